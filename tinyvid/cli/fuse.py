"""`tinyvid fuse`: one result of the saved scores of several networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyvid.cli.options import Fusion, check_fusion
from tinyvid.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from tinyvid.fusion_sources import Fused


def fuse(
    scores: Annotated[
        list[Path],
        typer.Argument(help="Runs, cross-validations or scores.npz files.", metavar="SCORES..."),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            help="Of the average, one for each, such as 1,2.",
            metavar="<str>",
            show_default="equal ones",
        ),
    ] = None,
    svm: Annotated[
        bool, typer.Option("--svm", help="Fuse by a linear SVM; needs scikit-learn.")
    ] = False,
    fusion: Fusion = "mean_prob",
    out: Annotated[
        Path | None, typer.Option(help="Where results go.", show_default="runs/fused-A+B")
    ] = None,
) -> None:
    """Fuse what several networks say of the same videos.

    Averages their probabilities; of four networks this is the CNN average
    of Karpathy et al., of a spatial and a temporal stream the two-stream
    network. Or trains a linear SVM on their scores, only on those of
    videos that the networks were not trained on and that are not tested:
    of the validation part where there is one, else of the other folds.

        tinyvid fuse runs/single_frame-a runs/slow_fusion-a --weights 1,2
        tinyvid fuse runs/crossval-a runs/crossval-b --svm

    The results are in the same form, and can be fused again.
    """
    from rich.console import Console

    from tinyvid.fusion_sources import fuse_sources

    check_fusion(fusion)
    method = "svm" if svm else "average"
    folder = out or _default_out(scores, method, weights)
    found = fuse_sources(scores, folder, method=method, weights=_numbers(weights), fusion=fusion)
    console = Console()
    print_fused(console, found)
    files = "crossval.csv, confusion.png, seed<s>/" if found.crossval else "test/"
    console.print(f"in {folder}: {files}", highlight=False, soft_wrap=True, markup=False)


def print_fused(console: Console, found: Fused) -> None:
    """Print the metrics of the fusion, and those of each of its sources beside it."""
    import numpy as np
    from rich.table import Table
    from rich.text import Text

    from tinyvid.cli.tables import print_crossval, print_metrics

    if found.crossval is not None:
        print_crossval(console, found.crossval, found.title)
    else:
        print_metrics(console, found.fused[0], found.classes, found.title)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in ("Clip Hit@1", "Video Hit@1", "mean class"):
        table.add_column(column, justify="right")
    for name, metrics in {**found.alone, "fused": found.fused}.items():
        shares = [
            np.mean([getattr(m, key) for m in metrics])
            for key in ("clip_hit_1", "video_hit_1", "mean_class")
        ]
        cells = [f"{share:.1%}" for share in shares]
        if name == "fused" and not found.by_clip:
            cells[0] = "–"
        table.add_row(Text(name), *cells)
    console.print()
    console.print(table, highlight=False)
    if found.learnt_from:
        _say(console, f"the SVM learnt from {found.learnt_from}")
    elif not found.by_clip:
        _say(console, "the clips differ, or are not averaged: each video was fused as a whole")


def _say(console: Console, text: str) -> None:
    console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--weights {text}: give numbers with commas, such as 1,2") from None


def _default_out(scores: list[Path], method: str, weights: str | None) -> Path:
    """A folder whose name says what is fused."""
    from tinyvid.fusion_sources import short_names

    names = [name.replace("/", "_") for name in short_names(scores)]
    how = f"-{method}" if method == "svm" else f"-{weights}" if weights else ""
    return Path("runs") / f"fused-{'+'.join(names)}{how}"
