"""Training: epochs over clips, a validation after each, and checkpoints that survive a kill.

Everything random is a function of (seed, epoch, step): the order of the videos, each clip and
its augmentation (see `tinyvid.data.ClipLoader`), dropout, and the initial weights. So a run
that is killed within an epoch starts that epoch anew from `last.safetensors`, and arrives at
the weights it would have had, to the bit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from pathlib import Path

import numpy as np

from tinyvid import nn
from tinyvid.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tinyvid.config import Config, from_dict
from tinyvid.data import VideoSet, check_clip_length
from tinyvid.device import check_device
from tinyvid.errors import UserError
from tinyvid.evaluate import open_videos
from tinyvid.inputs import as_input, check_augment, clip_spec
from tinyvid.parts import split_parts
from tinyvid.report import plot_curves
from tinyvid.runs import Run, data_name, locked, resolved, write_csv
from tinyvid.trainer import Trainer

# Keys that may differ between a run and its continuation, because no result depends on them.
FREE_KEYS = ("data.workers", "data.prefetch", "data.cache", "data.memory", "data.strict")

OTHER = "choose another --out for another config"
LONGER = "the learning rate is planned over all epochs, so to train longer start a new run"

FEW_STEPS = 100  # with fewer, a training rarely gets anywhere

DRAW_EVERY = 30.0  # seconds between drawings of the curves, which takes half a second


@dataclass(frozen=True)
class Row:
    """What the log says of an epoch; accuracies are shares, `None` where nothing validates.

    Attributes:
        epoch: the epoch, from 1. step: optimiser steps so far.
        lr: learning rate of the epoch's last step.
        train_loss, train_acc: means over the epoch's clips, while the weights change; the loss
            is the cross-entropy with the labels themselves, not with smoothed ones.
        val_loss: mean cross-entropy of clips. val_hit1: Video Hit@1.
        seconds: wall-clock time of the epoch, validation included.
        clips_per_s: training clips a second.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_acc: float
    val_loss: float | None
    val_hit1: float | None
    seconds: float
    clips_per_s: float


class Listener:
    """What a run tells while it trains; the command line shows it, other callers may ignore it."""

    def reading(self, done: int, total: int) -> None:
        """Before training: `done` of `total` video files have been looked into."""

    def opened(self, videos: VideoSet) -> None:
        """The data have been opened."""

    def folds(self, folds: list[str], seeds: Sequence[int]) -> None:
        """A cross-validation begins; it trains once for each fold and seed."""

    def start(self, run: Run, parts: Mapping[str, VideoSet], epoch: int, steps: int) -> None:
        """Training begins with `epoch` (from 1); an epoch has `steps` steps."""

    def step(self, epoch: int, step: int, loss: float, clips: int) -> None:
        """Step `step` (from 1) of the epoch is done; it trained on `clips` clips."""

    def epoch(self, row: Row, best: bool) -> None:
        """An epoch is done and saved; `best` if its weights are the best so far."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


@dataclass
class TrainResult:
    """What `fit` leaves behind.

    Attributes:
        run: the folder. model: the network with the best weights, in evaluation mode.
        rows: the log. best: the row of the best epoch.
    """

    run: Run
    model: nn.Module
    rows: list[Row]
    best: Row


def fit(
    config: Config,
    out: str | Path,
    *,
    videos: VideoSet | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> TrainResult:
    """Train a network as the config says, and keep the run in the folder `out`.

    Args:
        config: all choices; see `tinyvid.config`.
        out: the run's folder; with `resume` one that holds an unfinished run.
        videos: the data, where it is open already; by default `config.data.path` is opened.
        resume: continue the run in `out` after its last finished epoch.
        listener: is told of progress.

    Raises:
        UserError: config or data are wrong, the loss is no longer finite, a file cannot be
            written, another process trains in `out`, or `resume` with another config than
            the run was started with.
    """
    listener, config = listener or Listener(), resolved(config)
    check_device(config.run.device)
    if videos is None:
        videos = open_videos(config, progress=listener.reading)
        listener.opened(videos)
    if videos.skipped:
        listener.note(describe_skipped(videos))
    if len(videos.classes) < 2:
        raise UserError(
            f"{videos.source or 'the data'} has only one class, {videos.classes[0]!r}: there is "
            "nothing to tell apart. Add videos that show something else"
        )
    parts = split_parts(videos, config, listener.note)
    check_augment(config)
    short = check_clip_length(as_input(config, parts["train"]), clip_spec(config))
    if short:
        listener.note(
            f"{short} of {len(parts['train'])} training videos are shorter than a clip; "
            f"they are filled up ({config.clip.pad_policy})"
        )
    before = _continued(out, config, videos.classes, parts) if resume else None
    # Before the folder is made: it tells what does not fit.
    trainer = Trainer(config, parts["train"], resumed=before is not None)
    for text in trainer.notes:
        listener.note(text)
    rows: list[Row] = []
    best = 0  # index of the best row
    with locked(out):
        if before is None:
            split = {name: [v.name for v in part.videos] for name, part in parts.items()}
            run = Run.create(out, config, videos.classes, split)
        else:
            run = Run.reopen(out, config)
            rows = [Row(**row) for row in before.state["rows"]]
            best = before.state["best"]
            trainer.restore(before, run.last)
        _tell_start(trainer, rows, run, parts, listener)
        try:
            # What overflows becomes NaN or infinity, which stops the run with one sentence.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                best = _train(trainer, rows, best, run, parts, listener)
        except BaseException as error:
            with contextlib.suppress(UserError):  # what stopped the run is what to tell
                _draw(rows, run)
            if isinstance(error, MemoryError):  # a GPU's too
                raise UserError(
                    f"out of memory: {error}; give a smaller run.batch_size, or smaller clips"
                ) from error
            raise
        _draw(rows, run)
    model, _ = run.model()
    return TrainResult(run, model, rows, rows[best])


def _tell_start(
    trainer: Trainer,
    rows: list[Row],
    run: Run,
    parts: Mapping[str, VideoSet],
    listener: Listener,
) -> None:
    epochs = run.config.run.epochs
    if len(rows) == epochs:
        listener.note(
            f"{run.path} is finished, with {len(rows)} of {epochs} epochs; to train longer, start "
            "a new run with more --epochs"
        )
        return
    if trainer.total < FEW_STEPS:
        listener.note(
            f"{trainer.total} steps in all are few to learn from: give more --epochs, or "
            "--set run.train_clips=4 for more clips of each video"
        )
    listener.start(run, parts, len(rows) + 1, trainer.steps)


def _train(
    trainer: Trainer,
    rows: list[Row],
    best: int,
    run: Run,
    parts: Mapping[str, VideoSet],
    listener: Listener,
) -> int:
    """Train the epochs that `rows` lacks, and save each; return the index of the best row."""
    config, drawn = run.config, time.perf_counter()
    for epoch in range(len(rows), config.run.epochs):
        began = time.perf_counter()
        trained = trainer.epoch(epoch, listener, run)
        loss, hit = trainer.validate(parts["val"], epoch, run)
        seconds = time.perf_counter() - began
        rows.append(Row(**trained, val_loss=loss, val_hit1=hit, seconds=round(seconds, 3)))
        improved = epoch == 0 or _better(rows[-1], rows[best])
        if improved:
            best = epoch
            about = {"epoch": epoch + 1, "classes": run.classes, "config": config.to_dict()}
            save_checkpoint(run.best, Checkpoint(trainer.tested_weights(), about))
        log = [asdict(row) for row in rows]
        state = trainer.state() | {"rows": log, "best": best, "config": config.to_dict()}
        save_checkpoint(run.last, Checkpoint(trainer.weights(), state))
        write_csv(run.path / "log.csv", log)
        if time.perf_counter() - drawn > DRAW_EVERY:
            _draw(rows, run)
            drawn = time.perf_counter()
        listener.epoch(rows[-1], improved)
    return best


def _draw(rows: list[Row], run: Run) -> None:
    """Draw the curves, if there are any yet."""
    if rows:
        title = f"{run.config.model.name} on {data_name(run.config.data.path)}"
        plot_curves([asdict(row) for row in rows], run.path / "curves.png", title)


def describe_skipped(videos: VideoSet) -> str:
    """Return how many files could not be used, and which."""
    lines = [f"\n  {path}: {reason}" for path, reason in videos.skipped]
    return f"skipped {len(lines)} files that cannot be used:{''.join(lines)}"


def _better(row: Row, best: Row) -> bool:
    """Higher Hit@1 wins, then lower loss; without validation the latest epoch does."""
    if row.val_hit1 is None or best.val_hit1 is None:
        return True
    return (row.val_hit1, -(row.val_loss or 0)) > (best.val_hit1, -(best.val_loss or 0))


def _continued(
    out: str | Path, config: Config, classes: list[str], parts: Mapping[str, VideoSet]
) -> Checkpoint | None:
    """Return the last checkpoint of the run in `out`; None if it has finished no epoch."""
    run = Run.open(out)
    if not run.last.exists():  # nothing is lost by starting anew, be it with another config
        return None
    checkpoint = load_checkpoint(run.last)
    before = from_dict(checkpoint.state["config"])
    check_same_config(before, config, out)
    check_same_videos(run, classes, parts)
    return checkpoint


def check_same_config(before: Config, now: Config, out: str | Path) -> None:
    """Raise UserError if the run in `out` was started with choices that lead to other results."""
    before, now = resolved(before), resolved(now)
    for section in fields(now):
        old, new = getattr(before, section.name), getattr(now, section.name)
        for found in fields(new):
            key = f"{section.name}.{found.name}"
            was, wanted = getattr(old, found.name), getattr(new, found.name)
            if was != wanted and key not in FREE_KEYS:
                raise UserError(
                    f"{out} was started with {key} = {was!r}, not {wanted!r}: a run is resumed "
                    f"with the config it has; {LONGER if key == 'run.epochs' else OTHER}"
                )


def check_same_videos(run: Run, classes: list[str], parts: Mapping[str, VideoSet]) -> None:
    """Raise UserError if the data has changed since the run was started."""
    advice = "a run is resumed with the data it has; choose another --out for other data"
    for i, (was, now) in enumerate(zip_longest(run.classes, classes)):
        if was != now:
            raise UserError(
                f"{run.path} was started with {_shown(was)} as class {i + 1}, the data has "
                f"{_shown(now)}: {advice}"
            )
    for name, part in parts.items():
        then, videos = run.split[name], [v.name for v in part.videos]
        for i, (was, now) in enumerate(zip_longest(then, videos)):
            if was != now:
                raise UserError(
                    f"{run.path} was started with {len(then)} videos in part {name!r}, of which "
                    f"number {i + 1} was {_shown(was)}; now there are {len(videos)}, and it is "
                    f"{_shown(now)}: {advice}"
                )


def _shown(name: str | None) -> str:
    return "none" if name is None else repr(name)
