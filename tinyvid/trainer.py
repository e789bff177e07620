"""The steps of a training: batches through the network, its loss, and the optimiser."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tinyvid
from tinyvid import nn, optim
from tinyvid.checkpoint import Checkpoint
from tinyvid.config import Config, OptimConfig
from tinyvid.data import Augment, ClipLoader, VideoSet
from tinyvid.errors import UserError
from tinyvid.evaluate import score
from tinyvid.inputs import as_input, clip_spec, numbers
from tinyvid.metrics import cross_entropy, measure
from tinyvid.runs import Run, build_model, input_of, load_weights, start_from

if TYPE_CHECKING:
    from tinyvid.train import Listener
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Trainer:
    """The network, its optimiser and the running mean of its weights."""

    def __init__(self, config: Config, train: VideoSet, resumed: bool = False):
        self.config = config
        self.notes: list[str] = []  # what the user should know
        self.model = build_model(config, len(train.classes))
        if config.model.weights is not None and not resumed:
            flow = input_of(config) == "flow"
            start_from(self.model, config.model.weights, flow, self.notes.append)
        self.optimiser = build_optimiser(self.model, config.optim)
        norms = [m for m in self.model.modules() if isinstance(m, BATCH_NORMS)]
        self.norms = [(norm, norm.momentum) for norm in norms]
        # On the device that the weights are on.
        self.average = self.model.state_dict() if config.optim.ema is not None else None
        self.loader = ClipLoader(
            as_input(config, train),
            clip_spec(config),
            batch_size=config.run.batch_size,
            train=True,
            clips_per_video=config.run.train_clips,
            seed=config.run.seed,
            workers=config.data.workers,
            prefetch=config.data.prefetch,
            augment=Augment(**asdict(config.augment)),
            cache=config.data.cache,
            memory=config.data.memory << 20,
        )
        self.steps = len(self.loader)
        self.total = self.steps * config.run.epochs
        self.schedule = build_schedule(self.optimiser, config, self.steps)

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
            self._set_momentum(step)
            self.optimiser.zero_grad()  # gone before the activations pile up
            x = numbers(c, batch.clips)
            logits = self.model(tinyvid.tensor(x, device=c.run.device))
            loss = tinyvid.cross_entropy(
                logits,
                tinyvid.tensor(batch.labels, device=c.run.device),
                label_smoothing=c.optim.label_smoothing,
            )
            loss.backward()
            longest = math.inf if c.optim.clip_norm is None else c.optim.clip_norm
            norm = optim.clip_grad_norm_(list(self.model.parameters()), longest)
            self.optimiser.step()
            if self.schedule is not None:
                self.schedule.step()
            self._update_average(step)
            # Only now are numbers read, so that the CPU never waits for a GPU within a step.
            for what, value in (("loss", loss.item()), ("gradient", norm.item())):
                if not math.isfinite(value):
                    raise _diverged(what, value, epoch, step, lr, run)
            scores, count = logits.numpy(), len(batch.labels)
            # Without the smoothing, so that it can be compared with that of validation.
            plain = float(cross_entropy(scores, batch.labels).mean())
            loss_sum += plain * count
            hits += int((scores.argmax(axis=1) == batch.labels).sum())
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
        if self.average is None:
            return self.weights()
        return {name: t.numpy() for name, t in self.average.items()}

    def state(self) -> dict[str, Any]:
        schedule = None if self.schedule is None else self.schedule.state_dict()
        return {
            "optimiser": self.optimiser.state_dict(),
            "schedule": schedule,
            "average": None if self.average is None else self.tested_weights(),
        }

    def restore(self, checkpoint: Checkpoint, source: Path) -> None:
        load_weights(self.model, checkpoint.weights, source)
        self.optimiser.load_state_dict(checkpoint.state["optimiser"])
        average, device = checkpoint.state["average"], self.config.run.device
        if average is not None:
            self.average = {name: tinyvid.tensor(a, device=device) for name, a in average.items()}
        if self.schedule is not None:
            self.schedule.load_state_dict(checkpoint.state["schedule"])

    def _set_momentum(self, step: int) -> None:
        """Let running statistics be the mean over the first steps, and follow the later ones.

        At the usual momentum of 0.1 they would hold on to where they start, mean 0 and variance
        1, for some 20 steps, which may be all that few videos give.
        """
        for norm, momentum in self.norms:
            if momentum is not None:
                norm.momentum = max(momentum, 1 / (step + 1))

    def _update_average(self, step: int) -> None:
        if self.average is None or self.config.optim.ema is None:
            return
        # Early on the mean is over few steps; a constant decay would hold on to the first weights.
        decay = min(self.config.optim.ema, (1 + step) / (10 + step))
        for name, value in self.model.state_dict().items():
            if value.dtype.kind == "f":
                mean = self.average[name]
                self.average[name] = mean + (value - mean) * (1 - decay)
            else:  # a counter of batches
                self.average[name] = value


def _diverged(what: str, value: object, epoch: int, step: int, lr: float, run: Run) -> UserError:
    kept = f"{run.last} keeps epoch {epoch}" if epoch else "no epoch was finished, nothing is kept"
    return UserError(
        f"the {what} became {value} in epoch {epoch + 1}, step {step + 1} (learning rate {lr:g}): "
        f"training stops; {kept}. Try a lower optim.lr or optim.clip_norm=1"
    )


def build_optimiser(model: nn.Module, config: OptimConfig) -> Any:
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


def build_schedule(optimiser: Any, config: Config, steps: int) -> optim.Schedule | None:
    """The learning rate over the steps of the run; None where it never changes."""
    c, total = config.schedule, steps * config.run.epochs
    warmup = min(round(c.warmup_epochs * steps), total - 1)
    if c.name == "cosine":
        return optim.WarmupCosine(optimiser, warmup, total, c.final * config.optim.lr)
    if c.name == "step":
        return optim.StepLR(optimiser, c.step_epochs * steps, c.gamma)
    return optim.LinearWarmup(optimiser, warmup) if warmup else None
