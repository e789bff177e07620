"""What `tinyvid bench` prints while it runs, and writes at the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tinyvid.bench.machine import Ceilings
    from tinyvid.bench.results import Line, Measured, Results
    from tinyvid.bench.statistics import Interval

HEADER = f"{'':22}{'ms':>8}{'±':>5}{'GFLOP/s':>8}{'GB/s':>6}{'roof':>6} ours/peer"
LEGEND = """\
ms         median of a call       ±  half of the distance between the quartiles
roof       share of what a large product or copy, in this run, would allow
ours/peer  how many times as fast ours is, and its 95 % interval"""
STYLES = {"faster": "green", "slower": "red", "same": "", "cannot tell": "yellow"}
GOAL_STYLES = {"met": "green", "missed": "red", "cannot tell": "yellow"}


class Show:
    """Prints each task when it is measured, and keeps it."""

    def __init__(self, console: Console, results: Results, ceilings: Ceilings | None):
        self.console, self.results, self.ceilings = console, results, ceilings

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False, highlight=False)

    def __call__(self, one: Measured) -> None:
        from tinyvid.bench.results import speed
        from tinyvid.bench.statistics import verdict

        self.sample()
        self.results.measured.append(one)
        self.say(f"\n{one.op} {one.pass_} {one.case}", "bold")
        rounds = f"{len(one.timed[0].seconds)} rounds" if one.timed else ""
        work = [_operations(one.flops), _bytes(one.moved), rounds]
        about = " · ".join(part for part in (one.shapes, *work) if part)
        self.say(f"  {about}", "dim")
        ratios = {id(at): speed(ours, peer) for at, ours, peer in one.pairs()}
        for line in one.lines:
            text, style = self._figures(one, line), ""
            if id(line) in ratios:
                found = ratios[id(line)]
                style = STYLES[verdict(found)]
                text += f" {_told(found)}"
            if line.fault:
                style = "bold red"
            self.say(f"  {line.name:<20}{text}".rstrip(), style)
            if line.note and line.seconds:
                self.say(f"    {line.note}")
        if one.slowed:
            self.say(f"  the GPU was slowed down by {', '.join(one.slowed)}", "yellow")
        for goal, said in one.reached():
            self.say(f"  goal {goal}: {said}", GOAL_STYLES[said])

    def sample(self) -> None:
        if self.ceilings is not None:
            self.ceilings.sample()
            self.results.gflops, self.results.gbps = self.ceilings.gflops, self.ceilings.gbps

    def _figures(self, one: Measured, line: Line) -> str:
        from tinyvid.bench.results import figure
        from tinyvid.bench.statistics import spread

        if line.fault:
            return f" FAILED: {line.fault}"
        if not line.seconds:
            return f" {line.note or 'right'}"
        rates = (one.flops / line.median / 1e9, one.moved / line.median / 1e9)
        bound = self.results.bound(one)
        ms = line.median * 1e3
        cells = [(figure(ms) if ms >= 1 else f"{ms:.4f}").rjust(8)]
        cells += [f"{spread(line.seconds):.0%}".rjust(5), figure(rates[0]).rjust(8)]
        cells += [figure(rates[1]).rjust(6), f"{bound / line.median:.0%}".rjust(6)]
        blank = (True, True, bool(one.flops), bool(one.moved), bool(bound))
        return "".join(c if b else " " * len(c) for c, b in zip(cells, blank, strict=True))


@contextmanager
def running(
    name: str,
    device: str,
    skipped: Iterable[str],
    out: Path | None,
    ceilings: bool = True,
    timer: Any = None,
) -> Iterator[Show]:
    """Print what the figures are taken on; yield what shows and keeps tasks; then write them."""
    from tinyvid.bench.machine import Ceilings, describe, line, warnings
    from tinyvid.bench.results import Results

    console = new_console()
    machine = describe(device)
    notes = [*warnings(machine), *skipped]
    command = shlex.join(["tinyvid", *sys.argv[1:]])
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    results = Results(command, when, machine, notes)
    tops = Ceilings(device, timer) if ceilings and timer else Ceilings(device) if ceilings else None
    show = Show(console, results, tops)
    show.say(line(machine))
    for note in notes:
        show.say(f"note: {note}", "yellow")
    show.sample()
    if tops is not None:
        show.say(f"ceilings: {tops.gflops:.0f} GFLOP/s, {tops.gbps:.1f} GB/s")
        show.say(f"\n{HEADER}", "bold")
    try:
        yield show
    except KeyboardInterrupt:
        if show.results.measured:  # what there is shall not be lost
            _finish(show, name, out)
        raise
    _finish(show, name, out)


def _finish(show: Show, name: str, out: Path | None) -> None:
    from tinyvid.bench.plot import roofline
    from tinyvid.bench.results import noisy, speed
    from tinyvid.bench.statistics import verdict

    results = show.results
    if show.ceilings is not None:
        show.say(f"\n{LEGEND}", "dim")
    verdicts = [verdict(speed(o, p)) for one in results.measured for _, o, p in one.pairs()]
    if verdicts:
        told = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(STYLES) if v in verdicts)
        show.say(f"ours beside the peers: {told}", "bold")
    if "cannot tell" in verdicts:
        show.say("this machine is too noisy to tell some of them: take more --seconds", "yellow")
    reached = [said for one in results.measured for _, said in one.reached()]
    if reached:
        told = ", ".join(f"{reached.count(v)} {v}" for v in GOAL_STYLES if v in reached)
        show.say(f"goals: {told}", "bold")
    if any(noisy(one) for one in results.measured):
        show.say("times vary by more than 20 %: only the ratios mean anything", "yellow")
    if out is not None:
        paths = results.write(out, name)
        picture = out / f"{name}.png"
        if roofline(results, picture):
            paths.append(picture)
        show.say(f"written: {', '.join(map(str, paths))}")
    failed = [line for one in results.measured for line in one.lines if line.fault]
    if failed:
        show.say(f"{len(failed)} failed", "bold red")
        raise typer.Exit(1)


def _told(ratio: Interval) -> str:
    """Return a ratio in the 25 columns that are left for it."""
    from tinyvid.bench.results import figure
    from tinyvid.bench.statistics import verdict

    said = verdict(ratio)
    if ratio.low <= 0:
        return f"{figure(ratio.middle)} too few rounds"
    middle = "" if said == "cannot tell" else f"{figure(ratio.middle)} "
    return f"{middle}({figure(ratio.low)}–{figure(ratio.high)}) {said}"


def _operations(count: int) -> str:
    unit, size = next(
        (u, s) for u, s in (("G", 1e9), ("M", 1e6), ("", 1)) if count >= s / 10 or s == 1
    )
    return f"{count / size:.3g} {unit}FLOP" if count else ""


def _bytes(count: int) -> str:
    from tinyvid.budget import binary

    return binary(count) if count else ""


def new_console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
