"""Training: epochs over clips, a validation after each, and checkpoints that survive a kill.

Everything random is a function of (seed, epoch, step): the order of the videos, each clip and
its augmentation (see `tinyvid.data.ClipLoader`), dropout, and the initial weights. So a run
that is killed within an epoch starts that epoch anew from `last.safetensors`, and arrives at
the weights it would have had, to the bit.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

import tinyvid
from tinyvid import nn, optim
from tinyvid.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tinyvid.config import Config, OptimConfig, from_dict
from tinyvid.data import (
    Augment,
    ClipLoader,
    VideoSet,
    check_clip_length,
    group_folds,
    normalise,
    split_by_group,
)
from tinyvid.device import check_device
from tinyvid.errors import UserError
from tinyvid.evaluate import clip_spec, open_videos, score
from tinyvid.metrics import cross_entropy, measure
from tinyvid.report import plot_curves
from tinyvid.runs import Run, build_model, load_weights, resolved, write_csv

# Keys that may differ between a run and its continuation, because no result depends on them.
FREE_KEYS = ("data.workers", "data.prefetch", "data.cache", "data.strict")

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
            written, or `resume` with another config than the run was started with.
    """
    listener, config = listener or Listener(), resolved(config)
    check_device(config.run.device)
    if videos is None:
        videos = open_videos(config, progress=listener.reading)
    if videos.skipped:
        listener.note(describe_skipped(videos))
    parts = split_parts(videos, config, listener)
    short = check_clip_length(parts["train"], clip_spec(config))
    if short:
        listener.note(
            f"{short} of {len(parts['train'])} training videos are shorter than a clip; "
            f"they are filled up ({config.clip.pad_policy})"
        )
    before = _continued(out, config, videos.classes, parts) if resume else None
    trainer = _Trainer(config, parts["train"])  # before the folder: it tells what does not fit
    if before is None:
        run = Run.create(out, config, videos.classes, parts)
    else:
        run = Run.reopen(out, config)
    rows: list[Row] = []
    best = 0  # index of the best row
    if before is not None:
        rows = [Row(**row) for row in before.state["rows"]]
        best = before.state["best"]
        trainer.restore(before, run.last)
    if len(rows) < config.run.epochs:
        listener.start(run, parts, len(rows) + 1, trainer.steps)
    else:
        listener.note(f"{run.path} is finished: it has all {config.run.epochs} epochs")
    try:
        # What overflows becomes NaN or infinity, which stops the run with one sentence.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            best = _train(trainer, rows, best, run, parts, listener)
    except BaseException:
        with contextlib.suppress(UserError):  # what stopped the run is what to tell
            _draw(rows, run)
        raise
    _draw(rows, run)
    model, _ = run.model()
    return TrainResult(run, model, rows, rows[best])


def _train(
    trainer: _Trainer,
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
        plot_curves([asdict(row) for row in rows], run.path / "curves.png", run.path.name)


def describe_skipped(videos: VideoSet) -> str:
    """Return how many files could not be used, and which."""
    lines = [f"\n  {path}: {reason}" for path, reason in videos.skipped]
    return f"skipped {len(lines)} files that cannot be used:{''.join(lines)}"


def split_parts(
    videos: VideoSet, config: Config, listener: Listener | None = None
) -> dict[str, VideoSet]:
    """Split the videos into the parts train, val and test; no group is in two of them.

    The test part is `data.test_group` or `data.fold`; of the rest, a share of
    `data.val_fraction` validates. The folds do not depend on `run.seed`, so that runs of
    several seeds are tested on the same videos; the validation part does.

    Raises:
        UserError: a group does not exist, a part would be empty, or both are given.
    """
    data = config.data
    train, test = videos, videos.subset([])
    if data.test_group and data.fold:
        raise UserError("data.test_group and data.fold both name the test videos: give one")
    if data.test_group:
        train, test = split_by_group(videos, data.test_group)
    elif data.fold:
        k, folds = _parse_fold(data.fold)
        train, test = group_folds(videos, folds)[k - 1]
    val = videos.subset([])
    if data.val_fraction:
        if len({v.group for v in train.videos}) > 1:
            train, val = split_by_group(train, data.val_fraction, seed=config.run.seed)
        elif listener is not None:
            listener.note("all training videos are of one group: nothing is left to validate with")
    absent = [name for name, count in train.counts().items() if not count]
    if absent:
        raise UserError(
            f"class {absent[0]!r} has no video left to train on: hold out fewer groups, "
            "or set data.val_fraction=0"
        )
    return {"train": train, "val": val, "test": test}


class _Trainer:
    """The network, its optimiser and the running mean of its weights."""

    def __init__(self, config: Config, train: VideoSet):
        self.config = config
        self.model = build_model(config, len(train.classes))
        self.optimiser = _optimiser(self.model, config.optim)
        self.average = self.weights() if config.optim.ema is not None else None
        self.loader = ClipLoader(
            train,
            clip_spec(config),
            batch_size=config.run.batch_size,
            train=True,
            clips_per_video=config.run.train_clips,
            seed=config.run.seed,
            workers=config.data.workers,
            prefetch=config.data.prefetch,
            augment=Augment(**asdict(config.augment)),
            cache=config.data.cache,
        )
        self.steps = len(self.loader)
        self.schedule = _schedule(self.optimiser, config, self.steps)

    def epoch(self, epoch: int, listener: Listener, run: Run) -> dict[str, Any]:
        """Train for one epoch (from 0) and return its part of the log's row."""
        c = self.config
        began, loss_sum, hits, clips, lr = time.perf_counter(), 0.0, 0, 0, 0.0
        self.model.train()
        for i, batch in enumerate(self.loader.epoch(epoch)):
            step = epoch * self.steps + i
            # Dropout draws from here, so that it too depends on (seed, epoch, step) alone.
            sequence = np.random.SeedSequence([c.run.seed, epoch, i])
            tinyvid.manual_seed(int(sequence.generate_state(1)[0]))
            lr = self.optimiser.param_groups[0]["lr"]
            x = normalise(batch.clips, c.clip.mean, c.clip.std)
            logits = self.model(tinyvid.tensor(x, device=c.run.device))
            loss = tinyvid.cross_entropy(
                logits,
                tinyvid.tensor(batch.labels, device=c.run.device),
                label_smoothing=c.optim.label_smoothing,
            )
            value = float(loss.item())
            if not math.isfinite(value):
                raise _diverged("loss", value, epoch, step, lr, run)
            self.optimiser.zero_grad()
            loss.backward()
            longest = math.inf if c.optim.clip_norm is None else c.optim.clip_norm
            norm = float(optim.clip_grad_norm_(list(self.model.parameters()), longest))
            if not math.isfinite(norm):
                raise _diverged("gradient", norm, epoch, step, lr, run)
            self.optimiser.step()
            if self.schedule is not None:
                self.schedule.step()
            self._update_average(step)
            count = len(batch.labels)
            # Without the smoothing, so that it can be compared with that of validation.
            plain = float(cross_entropy(logits.numpy(), batch.labels).mean())
            loss_sum += plain * count
            hits += int((logits.numpy().argmax(axis=1) == batch.labels).sum())
            clips += count
            listener.step(epoch + 1, i + 1, plain, count)
        return {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.steps,
            "lr": lr,
            "train_loss": loss_sum / clips,
            "train_acc": hits / clips,
            "clips_per_s": round(clips / (time.perf_counter() - began), 2),
        }

    def validate(self, val: VideoSet, epoch: int, run: Run) -> tuple[float | None, float | None]:
        """Return the loss of the clips and Hit@1 of the videos, or None without videos."""
        # The epoch's last step may have spoilt the weights: they must not reach a checkpoint.
        last = ((epoch + 1) * self.steps - 1, self.optimiser.param_groups[0]["lr"])
        for name, array in self.weights().items():
            if not np.isfinite(array).all():
                raise _diverged(f"weights of {name}", "not finite", epoch, *last, run)
        if not len(val):
            return None, None
        kept = self.weights()
        self.model.load_state_dict(self.tested_weights())
        scores = score(self.model, val, self.config, clips=self.config.run.val_clips)
        self.model.load_state_dict(kept)
        if not np.isfinite(scores.logits).all():
            raise _diverged("scores in validation", "not finite", epoch, *last, run)
        loss = float(cross_entropy(scores.logits, scores.labels).mean())
        return loss, measure(scores.logits, scores.labels, scores.videos).video_hit_1

    def weights(self) -> dict[str, np.ndarray]:
        return {name: t.numpy() for name, t in self.model.state_dict().items()}

    def tested_weights(self) -> dict[str, np.ndarray]:
        """The weights that validation and `best` use: the running mean, where there is one."""
        return self.weights() if self.average is None else self.average

    def state(self) -> dict[str, Any]:
        schedule = None if self.schedule is None else self.schedule.state_dict()
        return {
            "optimiser": self.optimiser.state_dict(),
            "schedule": schedule,
            "average": self.average,
        }

    def restore(self, checkpoint: Checkpoint, source: Path) -> None:
        load_weights(self.model, checkpoint.weights, source)
        self.optimiser.load_state_dict(checkpoint.state["optimiser"])
        self.average = checkpoint.state["average"]
        if self.schedule is not None:
            self.schedule.load_state_dict(checkpoint.state["schedule"])

    def _update_average(self, step: int) -> None:
        if self.average is None or self.config.optim.ema is None:
            return
        # Early on the mean is over few steps; a constant decay would hold on to the first weights.
        decay = min(self.config.optim.ema, (1 + step) / (10 + step))
        for name, value in self.weights().items():
            if value.dtype.kind == "f":
                mean = self.average[name]
                self.average[name] = (mean + (1 - decay) * (value - mean)).astype(value.dtype)
            else:  # a counter of batches
                self.average[name] = value


def _diverged(what: str, value: object, epoch: int, step: int, lr: float, run: Run) -> UserError:
    kept = f"{run.last} keeps epoch {epoch}" if epoch else "no epoch was finished, nothing is kept"
    return UserError(
        f"the {what} became {value} in epoch {epoch + 1}, step {step + 1} (learning rate {lr:g}): "
        f"training stops; {kept}. Try a lower optim.lr or optim.clip_norm=1"
    )


def _optimiser(model: nn.Module, config: OptimConfig) -> Any:
    """The optimiser, with weight decay on filters and matrices, not on biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
    kind = optim.AdamW if config.name == "adamw" else optim.Adam
    return kind(groups, lr=config.lr, betas=config.betas)


def _schedule(optimiser: Any, config: Config, steps: int) -> optim.Schedule | None:
    """The learning rate over the steps of the run; None where it never changes."""
    c, total = config.schedule, steps * config.run.epochs
    warmup = min(round(c.warmup_epochs * steps), total - 1)
    if c.name == "cosine":
        return optim.WarmupCosine(optimiser, warmup, total, c.final * config.optim.lr)
    if c.name == "step":
        return optim.StepLR(optimiser, c.step_epochs * steps, c.gamma)
    return optim.LinearWarmup(optimiser, warmup) if warmup else None


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
                    "with the config it has; choose another --out for another config"
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


def _parse_fold(text: str) -> tuple[int, int]:
    k, _, folds = text.partition("/")
    if not (k.isdecimal() and folds.isdecimal() and 1 <= int(k) <= int(folds)):
        raise UserError(f"data.fold = {text!r}: write 'k/K', such as 1/5 for the first of five")
    return int(k), int(folds)
