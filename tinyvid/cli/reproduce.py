"""`tinyvid reproduce`: the lecture's comparisons on any data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinyvid.cli.options import ConfigFile, Set


def reproduce(
    data: Annotated[
        str,
        typer.Option(
            help="A folder of class folders, a CSV of path,label,group, or verbs.",
            metavar="<path|verbs>",
        ),
    ] = "verbs",
    quick: Annotated[
        bool, typer.Option("--quick", help="A smaller training, of minutes on verbs.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help="Folds: 'group' leaves out one group at a time; a number makes k folds.",
            show_default="3, or group where there are no more than 3",
        ),
    ] = None,
    config: ConfigFile = None,
    set_: Set = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of everything.", show_default="runs/reproduce-DATA[-quick]"),
    ] = None,
) -> None:
    """Make the lecture's comparisons anew on verbs, or on videos of your own.

    Trains every network that the tables need, tests it on videos that it has
    never seen, and writes report.html, one file that needs nothing beside it,
    report.md, and results.json with every number. What is finished is kept: the
    same command goes on where it was stopped.

        tinyvid reproduce --data verbs --quick
        tinyvid reproduce --data my_videos --config small_sets
    """
    from rich.console import Console

    from tinyvid.cli.progress import Reporter
    from tinyvid.reproduce import Plan
    from tinyvid.reproduce import reproduce as run
    from tinyvid.runs import data_name

    name = f"reproduce-{data_name(data)}" + ("-quick" if quick else "")
    folder = out or Path("runs") / name
    console = Console()

    def tell(text: str) -> None:
        reporter.__exit__()  # the next training has a bar of its own
        reporter.say(text)

    with Reporter(console, quiet=True) as reporter:
        plan = Plan(data, folder, quick, by or "", config, tuple(set_ or ()), listener=reporter)
        try:
            run(plan, tell)
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on from here", err=True)
            raise typer.Exit(130) from None
    console.print(
        f"in {folder}: report.html, report.md, results.json", highlight=False, soft_wrap=True
    )
