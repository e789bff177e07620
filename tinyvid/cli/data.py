"""`tinyvid data`: looking into sets of videos before anything is trained on them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyvid.cli.shown import Command, Group
from tinyvid.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode="rich")

MOST = 20  # lines of a list, unless all are asked for


@app.callback()
def data() -> None:
    """Look into sets of videos."""


@app.command(cls=Command)
def check(
    spec: Annotated[
        str,
        typer.Argument(
            help="A folder of class folders, a CSV, or ucf101:FOLDER, hmdb51:FOLDER, "
            "sports1m:FOLDER.",
            metavar="DATA",
        ),
    ],
    lists: Annotated[
        Path | None,
        typer.Option(help="The folder of the official lists.", show_default="in DATA's"),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help=f"Every class and file, not the first {MOST}.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first file that cannot be used.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Files decoded at once.", min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Decode every video, and say what there is and what is wrong.

    Prints the characteristics of the set, how many videos each class has,
    which files are missing or damaged, and leaks: groups on both sides of
    an official fold, and copies of one file under different groups. The
    exit code is 1 if a file is unusable or anything leaks.

        tinyvid data check my_videos
        tinyvid data check ucf101:videos --lists ucfTrainTestlist
    """
    from rich.console import Console

    from tinyvid.cli.tables import counting_bar
    from tinyvid.data import open_data
    from tinyvid.data.check import check as look

    if spec == "verbs":
        raise UserError("verbs is drawn, not read: there are no files to check")
    console = Console()
    options: dict[str, Any] = {"workers": workers} | ({"lists": lists} if lists else {})
    with counting_bar(console, "decoding", "videos") as progress:
        videos = open_data(spec, strict=strict, progress=progress, **options)
    with counting_bar(console, "comparing", "videos") as progress:
        found = look(videos, workers, progress)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        _print(console, found, None if every else MOST)
    if found.unusable or found.leaks:
        raise typer.Exit(1)


def _print(console: Console, found: Any, most: int | None) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for what, value in found.characteristics:
        table.add_row(what, value)
    console.print(table)

    def section(title: str, lines: list[str]) -> None:
        console.print(f"\n[bold]{title}[/]")
        for line in lines[:most]:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        if most is not None and len(lines) > most:
            console.print(f"  and {len(lines) - most} more; --all lists them", highlight=False)

    largest = max(found.counts.values())
    width = max(map(len, found.counts))
    ordered = sorted(found.counts.items(), key=lambda item: (item[1], item[0]))
    section(
        "videos of each class, the fewest first",
        [
            f"{name:<{width}} {count:6,} {'█' * max(1, round(20 * count / largest))}"
            for name, count in ordered
        ],
    )
    section(
        f"files that cannot be used: {len(found.unusable):,}",
        [f"{path}: {reason}" for path, reason in found.unusable],
    )
    section(f"leaks: {len(found.leaks):,}", [f"{leak.where}: {leak.what}" for leak in found.leaks])
