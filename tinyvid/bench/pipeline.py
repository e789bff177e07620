"""Clips a second from video files, and how long a training waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np

import tinyvid
from tinyvid import models, optim
from tinyvid.bench.results import OURS, Line, Measured
from tinyvid.bench.timing import LEAST_ROUNDS
from tinyvid.data import Augment, Batch, ClipLoader, ClipSpec, VideoSet, normalise, write_verbs
from tinyvid.errors import UserError

WINDOW = 0.5  # seconds of which the clips are counted together: batches come in bursts
MEAN, STD = (0.45,) * 3, (0.25,) * 3


def written_videos(folder: Path, each: int = 2, frames: int = 60) -> Path:
    """Write H.264 videos of 240×240 pixels to decode, where there are none at hand."""
    return write_verbs(folder, each, frames=frames, size=240, fps=25)


def loader(videos: VideoSet, clip: tuple[int, int], batch: int, workers: int) -> ClipLoader:
    """Return a loader of training clips, mildly augmented: (frames, side) of each."""
    spec = ClipSpec(frames=clip[0], size=(clip[1], clip[1]))
    augment = Augment(scale=(0.6, 1.0), flip=0.5, brightness=0.2)
    return ClipLoader(videos, spec, batch_size=batch, train=True, workers=workers, augment=augment)


def measure_decoding(
    source: ClipLoader, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Measured:
    """Return the seconds a clip takes to be decoded and transformed, in windows of half a second.

    The first batch is compared, to the bit, with the one that a single thread makes.
    """
    spec = source.spec
    name = f"{spec.frames}×{spec.size[0]}×{spec.size[1]}, {source.workers} workers"
    measured = Measured("pipeline", "clip", name, "", 0, 0, "a single thread's clips, to the bit")
    line = Line("decode and transform", OURS)
    measured.lines.append(line)
    alone = ClipLoader(
        source.videos,
        spec,
        batch_size=source.batch_size,
        train=True,
        workers=0,
        augment=source.augment,
    )
    first, wanted = next(source.epoch(0)), next(alone.epoch(0))
    if not np.array_equal(first.clips, wanted.clips):
        line.fault = "several threads make other clips than a single one does"
        return measured
    began = start = clock()
    clips = 0
    for batch in _batches(source):
        clips += len(batch)
        now = clock()
        if now - start >= WINDOW:
            line.seconds.append((now - start) / clips)
            start, clips = now, 0
        if now - began >= seconds and len(line.seconds) >= LEAST_ROUNDS:
            return measured
    return measured


def measure_waiting(
    source: ClipLoader, network: str, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[Measured, float]:
    """Train a network; return the seconds of each step, and the share of time spent waiting.

    Raises:
        UserError: no such network, or it does not take such clips.
    """
    spec, classes = source.spec, len(source.videos.classes)
    model = models.build(network, classes, (3, spec.frames, *spec.size))
    optimiser = optim.SGD(list(model.parameters()), lr=1e-3, momentum=0.9)
    waited: list[float] = []
    steps: list[float] = []
    batches = _batches(source)
    began = clock()
    while len(steps) <= LEAST_ROUNDS or clock() - began < seconds:
        start = clock()
        batch = next(batches)
        arrived = clock()
        x = tinyvid.tensor(normalise(batch.clips, MEAN, STD))
        loss = tinyvid.cross_entropy(model(x), tinyvid.tensor(batch.labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        waited.append(arrived - start)
        steps.append(clock() - start)
    name = f"{network}, {source.batch_size} clips"
    measured = Measured("pipeline", "step", name, "", 0, 0, "that every loss is finite")
    line = Line("training step with its data", OURS, steps[1:])
    if not np.isfinite(loss.item()):
        line.seconds, line.fault = [], "the loss is not finite"
    measured.lines.append(line)
    share = sum(waited[1:]) / sum(steps[1:])  # the first step compiles
    line.note = f"{share:.1%} of the time spent waiting for data"
    return measured, share


def _batches(source: ClipLoader) -> Iterator[Batch]:
    if not len(source):
        raise UserError("there are fewer clips than one batch has: take a smaller --batch")
    for epoch in count():
        yield from source.epoch(epoch)
