"""Trainings of a few tiny synthetic videos, for the tests that need one."""

import sys
from pathlib import Path

from compare import assert_close

from tinyvid.checkpoint import load_checkpoint
from tinyvid.config import Config, load_config
from tinyvid.train import Listener

TINY = [
    "data.options.per_class=4",
    "data.options.size=16",
    "data.options.frames=8",
    'data.options.classes=["move_left", "move_right"]',
    "data.workers=0",
    "data.val_fraction=0.25",
    "clip.frames=8",
    "clip.stride=1",
    "clip.height=16",
    "clip.width=16",
    "model.options.width=2",
    "run.batch_size=4",
    "run.epochs=2",
    "schedule.warmup_epochs=1",
]


def tiny(*overrides: str) -> Config:
    """Return the config of a training that takes a second, with these of its keys set."""
    return load_config(overrides=[*TINY, *overrides])


def equal_arrays(a: Path, b: Path) -> None:
    """Assert that two checkpoints hold the same arrays, to the bit."""
    one, two = load_checkpoint(a), load_checkpoint(b)
    assert list(one.weights) == list(two.weights)
    for name in one.weights:
        assert_close(one.weights[name], two.weights[name])
    if "optimiser" in one.state:
        first, second = one.state["optimiser"], two.state["optimiser"]
        assert first["param_groups"] == second["param_groups"]
        assert list(first["state"]) == list(second["state"])
        for name in first["state"]:
            assert_close(first["state"][name], second["state"][name])
        assert one.state["schedule"] == two.state["schedule"]


class Notes(Listener):
    """Keeps what it is told; training is not to begin."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def start(self, run, parts, epoch, steps):
        raise AssertionError(f"training began with epoch {epoch}")


class StopAt(Listener):
    """Interrupts training within an epoch, as Ctrl-C does."""

    def __init__(self, epoch: int, step: int):
        self.at = (epoch, step)

    def step(self, epoch, step, loss, clips):
        if (epoch, step) == self.at:
            raise KeyboardInterrupt


def train_command(out: Path, *overrides: str) -> list[str]:
    sets = [arg for pair in (*TINY, *overrides) for arg in ("--set", pair)]
    return [sys.executable, "-m", "tinyvid", "train", "slow_fusion", "--out", str(out), *sets]
