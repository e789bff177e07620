"""What a run shows while it trains: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinyvid.data import VideoSet
from tinyvid.data.sets import describe
from tinyvid.parts import describe_parts
from tinyvid.runs import Run
from tinyvid.train import Listener, Row

PLAIN_EVERY = 30.0  # seconds between lines within an epoch, where there is no terminal


class Reporter(Listener, AbstractContextManager):
    """Prints a line for each epoch, and between them how far it has got.

    Args:
        console: where to.
        quiet: show the bar and the notes, but no line for each epoch.
    """

    def __init__(self, console: Console, quiet: bool = False):
        self.console, self.quiet = console, quiet
        self._said: set[str] = set()
        self.bar: Progress | None = None
        self._epochs = self._steps = 0
        self._clips, self._since, self._told = 0, 0.0, 0.0

    def reading(self, done: int, total: int) -> None:
        if not self.console.is_terminal:
            return
        if self.bar is None:
            columns = (TextColumn("reading videos"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.add_task("", total=total)
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=done)
        if done == total:
            self.__exit__()

    def opened(self, videos: VideoSet) -> None:
        self.say(f"{videos.source or 'data'}: {describe(videos)}")

    def folds(self, folds: list[str], seeds: Sequence[int]) -> None:
        count = len(folds) * len(seeds)
        self.say(f"{len(folds)} folds × {len(seeds)} seeds: {count} trainings")

    def start(self, run: Run, parts: Mapping[str, VideoSet], epoch: int, steps: int) -> None:
        self._epochs, self._steps = run.config.run.epochs, steps
        if not self.quiet:
            self.say(f"{run.config.model.name}: {describe_parts(parts)}")
            val = "; val: validation loss; *: best" if parts.get("val") else ""
            self.say(f"Hit@1: share whose most probable class is right{val}")
        if epoch > 1:
            self.say(f"goes on with epoch {epoch} of {self._epochs}")
        if epoch <= self._epochs and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[speed]} clips/s  loss {task.fields[loss]}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
                transient=True,
            )
            task: dict[str, Any] = {"epoch": epoch, "epochs": self._epochs}
            task |= {"speed": "-", "loss": "-", "completed": (epoch - 1) * steps}
            self.bar.add_task("", total=self._epochs * steps, **task)
            self.bar.start()
        self._clips, self._since = 0, time.perf_counter()
        self._told = self._since

    def step(self, epoch: int, step: int, loss: float, clips: int) -> None:
        now = time.perf_counter()
        self._clips += clips
        speed = self._clips / max(1e-9, now - self._since)
        done = (epoch - 1) * self._steps + step
        if self.bar is not None:
            values: dict[str, Any] = {
                "epoch": epoch,
                "speed": f"{speed:.1f}",
                "loss": f"{loss:.3f}",
            }
            self.bar.update(self.bar.task_ids[0], completed=done, **values)
        elif now - self._told > PLAIN_EVERY:
            self.say(
                f"epoch {epoch}/{self._epochs}, step {step}/{self._steps}: "
                f"loss {loss:.3f}, {speed:.1f} clips/s"
            )

    def epoch(self, row: Row, best: bool) -> None:
        if self.quiet:
            return
        width = len(str(self._epochs))
        text = (
            f"epoch {row.epoch:{width}}/{self._epochs}  loss {row.train_loss:.3f}  "
            f"Clip Hit@1 {row.train_acc:6.1%}"
        )
        if row.val_hit1 is not None:
            star = " *" if best else ""
            text += f" | val {row.val_loss:.3f}  Video Hit@1 {row.val_hit1:6.1%}{star}"
        self.say(text)

    def note(self, text: str) -> None:
        if text not in self._said:  # the runs of a cross-validation would repeat it
            self.say(f"note: {text}")
        self._said.add(text)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._told = time.perf_counter()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
