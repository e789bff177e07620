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
from tinyvid.data import (
    VERBS,
    Augment,
    Batch,
    ClipLoader,
    ClipSpec,
    VideoSet,
    normalise,
    verb_video,
)
from tinyvid.data.video import write_video
from tinyvid.errors import UserError

WINDOW = 0.5  # seconds of which the clips are counted together: batches come in bursts
MEAN, STD = (0.45,) * 3, (0.25,) * 3


def written_videos(folder: Path, each: int = 2, frames: int = 60) -> Path:
    """Write H.264 videos of 320×240 pixels to decode, where there are none at hand."""
    for index in range(each * len(VERBS)):
        label = VERBS[index % len(VERBS)]
        (folder / label).mkdir(parents=True, exist_ok=True)
        pictures = verb_video(0, index, label, frames=frames, size=320)
        write_video(folder / label / f"{index}.mp4", pictures[:, 40:280], fps=25)
    return folder


def loader(
    videos: VideoSet,
    clip: tuple[int, int],
    batch: int,
    workers: int,
    train: bool = True,
    memory: int = 0,
) -> ClipLoader:
    """Return a loader of clips, (frames, side) of each: random ones, cropped and flipped, to train
    on; or ten spread evenly over each video, which share its decoding."""
    return ClipLoader(
        videos,
        ClipSpec(frames=clip[0], size=(clip[1], clip[1])),
        batch_size=batch,
        train=train,
        clips_per_video=1 if train else 10,
        workers=workers,
        augment=Augment(flip=0.5),
        memory=memory,
    )


def measure_decoding(
    source: ClipLoader, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Measured:
    """Return the seconds a clip takes to be decoded and transformed, in windows of half a second.

    The first batch is compared, to the bit, with the one that a single thread makes. Where videos
    are kept in memory, that is after each was decoded.
    """
    spec = source.spec
    kind = "random" if source.train else f"{source.clips_per_video} of each video"
    kind += ", kept in memory" if source.keeps else ""
    name = f"{spec.frames}×{spec.size[0]}×{spec.size[1]}, {kind}, {source.workers} workers"
    measured = Measured("pipeline", "clip", name, "", 0, 0, "a single thread's clips, to the bit")
    line = Line("decode and transform", OURS)
    measured.lines.append(line)
    alone = ClipLoader(
        source.videos,
        spec,
        batch_size=source.batch_size,
        train=source.train,
        clips_per_video=source.clips_per_video,
        workers=0,
        augment=source.augment,
    )
    first, wanted = next(source.epoch(0)), next(alone.epoch(0))
    if not np.array_equal(first.clips, wanted.clips):
        line.fault = "several threads make other clips than a single one does"
        return measured
    if source.keeps:
        for _ in source.epoch(0):
            pass
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

    Where videos are kept in memory, the first epoch, which decodes them, is told apart.

    Raises:
        UserError: no such network, or it does not take such clips.
    """
    spec, classes = source.spec, len(source.videos.classes)
    model = models.build(network, classes, (3, spec.frames, *spec.size))
    optimiser = optim.SGD(list(model.parameters()), lr=1e-3, momentum=0.9)
    waited: list[float] = []
    steps: list[float] = []
    batches = _batches(source)
    first = len(source) if source.keeps else 1  # at least the first step: it compiles
    began = clock()
    while len(steps) < first + LEAST_ROUNDS or clock() - began < seconds:
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
    line = Line("training step with its data", OURS, steps[first:])
    if not np.isfinite(loss.item()):
        line.seconds, line.fault = [], "the loss is not finite"
    measured.lines.append(line)
    share = sum(waited[first:]) / sum(steps[first:])
    line.note = f"{share:.1%} of the time spent waiting for data"
    if first > 1:
        line.note += f", {sum(waited[1:first]) / sum(steps[1:first]):.1%} in the first epoch"
    return measured, share


def _batches(source: ClipLoader) -> Iterator[Batch]:
    if not len(source):
        raise UserError("there are fewer clips than one batch has: take a smaller --batch")
    for epoch in count():
        yield from source.epoch(epoch)
