"""Schedules: the learning rate as a function of how many steps have been made.

A schedule computes the rate from the step's number alone, never from the rate before, so that
a run that is resumed has exactly the rates of one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinyvid.errors import UserError

if TYPE_CHECKING:
    from tinyvid.optim.optimizer import Optimizer


class Schedule:
    """Sets the learning rate of each of an optimiser's groups, now and at each `step()`.

    What a step is, an epoch or a batch, is decided by whoever calls `step()`, after
    `optimizer.step()`.

    Attributes:
        base_lrs: each group's learning rate when the schedule was made.
        last_epoch: how often `step()` was called.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.last_epoch = 0
        self._apply()

    def lr(self, base: float, step: int) -> float:
        """Return the learning rate after `step` steps, for a group whose own is `base`."""
        raise NotImplementedError

    def step(self) -> None:
        """Go on by one step."""
        self.last_epoch += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """Return each group's learning rate as it stands."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state, and set the learning rates that belong to it.

        Raises:
            UserError: it is of an optimiser with another number of groups.
        """
        base_lrs = list(state_dict["base_lrs"])
        if len(base_lrs) != len(self.base_lrs):
            raise UserError(
                f"a schedule of {len(base_lrs)} parameter groups was saved, "
                f"the optimiser has {len(self.base_lrs)}"
            )
        self.base_lrs, self.last_epoch = base_lrs, int(state_dict["last_epoch"])
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.lr(base, self.last_epoch)


class StepLR(Schedule):
    """Multiply the learning rate by `gamma` every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = _at_least_one("step_size", step_size), gamma
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        return base * self.gamma ** (step // self.step_size)


class CosineAnnealingLR(Schedule):
    """Half a cosine from the learning rate down to `eta_min` over `T_max` steps.

    Beyond `T_max` it rises again, as PyTorch's does. Loshchilov and Hutter, "SGDR: stochastic
    gradient descent with warm restarts", ICLR 2017, equation 5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        self.T_max, self.eta_min = _at_least_one("T_max", T_max), eta_min
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        return _cosine(base, self.eta_min, step / self.T_max)


class LinearWarmup(Schedule):
    """Rise in equal steps, from 1 / warmup_steps of the learning rate to all of it.

    Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int):
        self.warmup_steps = _at_least_one("warmup_steps", warmup_steps)
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        return base * min(1.0, (step + 1) / self.warmup_steps)


class WarmupCosine(Schedule):
    """A linear warm-up, then half a cosine down to `eta_min`, where it stays.

    Args:
        optimizer: whose learning rates are set.
        warmup_steps: how many steps rise, as in `LinearWarmup`; may be 0.
        total_steps: when `eta_min` is reached, counted from the start.
        eta_min: the last learning rate.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, eta_min: float = 0.0
    ):
        if not 0 <= warmup_steps < total_steps:
            raise UserError(
                f"warmup_steps={warmup_steps} must be within 0 and total_steps={total_steps} - 1"
            )
        self.warmup_steps, self.total_steps, self.eta_min = warmup_steps, total_steps, eta_min
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        if step < self.warmup_steps:
            return base * (step + 1) / self.warmup_steps
        falling = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return _cosine(base, self.eta_min, min(1.0, falling))


def _cosine(base: float, eta_min: float, progress: float) -> float:
    return eta_min + (base - eta_min) * (1 + math.cos(math.pi * progress)) / 2


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"{name}={value!r} must be at least 1")
    return value
