"""`tinyvid bench goals`: what is meant to be reached beside PyTorch, measured row by row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyvid.cli.bench_show import new_console, running
from tinyvid.errors import UserError

if TYPE_CHECKING:
    from tinyvid.bench.results import Measured, Results

NAME = "goals"


def goals(
    only: Annotated[
        list[str] | None, typer.Option(help="A row by name; all by default. May be repeated.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Limit for each row; by default each has its own.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out rows that --out has from this machine.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the rows, and stop.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for JSON, CSV, Markdown and the roofline.")
    ] = None,
) -> None:
    """Measure what tinyvid is meant to reach beside PyTorch on a CPU.

    Every row is a whole operation or network, ours and PyTorch's in turn, and
    stands by itself: with --out, rows that are there from the same machine and
    versions stay, unless they are measured again.
    """
    from tinyvid.bench import goals as rows
    from tinyvid.bench import peers
    from tinyvid.bench.run import Settings

    if seconds is not None and not seconds > 0:
        raise UserError(f"--seconds {seconds:g}: more than 0")
    if resume and out is None:
        raise UserError("--resume: say with --out where the earlier rows are")
    chosen = rows.chosen(only)
    if listed:
        for goal in chosen:
            new_console().print(f"{goal.name:<18}{goal.label}", markup=False)
        return
    found, skipped = peers.chosen(["torch"], "cpu")
    settings = Settings(peers=tuple(found))
    with running(NAME, "cpu", skipped, out) as show:
        before = _kept(out, show.results) if out else {}
        for goal in chosen:
            if not (resume and goal.label in before):
                before.pop(goal.label, None)
        show.results.measured += before.values()
        order = [goal.label for goal in rows.GOALS]
        for goal in chosen:
            if goal.label in before:
                show.say(f"\n{goal.label}: kept")
                continue
            show(goal.measure(settings, seconds))
            show.results.measured.sort(key=lambda one: order.index(one.label))
            if out is not None:
                show.results.write(out, NAME)  # what there is shall not be lost


def _kept(out: Path, now: Results) -> dict[str, Measured]:
    """Return the rows that were measured on the same machine and have no fault, by label."""
    from tinyvid.bench.goals import GOALS
    from tinyvid.bench.results import read

    path = out / f"{NAME}.json"
    if not path.exists():
        return {}
    earlier = read(path)
    if _same(earlier.machine) != _same(now.machine):
        return {}
    now.gflops, now.gbps = max(now.gflops, earlier.gflops), max(now.gbps, earlier.gbps)
    labels = {goal.label for goal in GOALS}
    good = [one for one in earlier.measured if not any(line.fault for line in one.lines)]
    return {one.label: one for one in good if one.label in labels}


def _same(machine: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in machine.items() if key != "busy"}
