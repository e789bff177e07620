"""`tinyvid baseline`: features made by hand, to compare networks with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tinyvid.cli.options import (
    Clips,
    ConfigFile,
    Data,
    Fusion,
    Set,
    Strict,
    check_fusion,
    given,
    parse_seeds,
)
from tinyvid.errors import UserError


def baseline(
    name: Annotated[str, typer.Argument(help="histograms or fisher.", metavar="NAME")],
    data: Data = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Leave out each group in turn (group), or so many folds.",
            metavar="<str>",
            show_default="group, without --fold and --test-group",
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="One cross-validation for each.", metavar="<str>")
    ] = "0",
    test_group: Annotated[
        list[str] | None,
        typer.Option(help="Hold this group out for testing; may be repeated.", metavar="<str>"),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(help="Hold out the k-th of K parts of the groups.", metavar="<k/K>"),
    ] = None,
    clips: Clips = 10,
    fusion: Fusion = "mean_prob",
    strict: Strict = False,
    config: ConfigFile = None,
    set_: Set = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for each video's features.", show_default="runs/cells"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where results go.", show_default="runs/NAME-DATA[-byK]")
    ] = None,
) -> None:
    """Classify videos without a deep network.

    histograms: oriented gradients (HOG) and optical flow (HOF) in the cells
    of a grid over each clip, and a small network on them. fisher: the same
    of small blocks of space and time, encoded as Fisher vectors, and a
    linear SVM; it needs scikit-learn. Trained and tested on the splits and
    clips of the networks, whose scores tinyvid fuse can join them with.

        tinyvid baseline histograms --data gestures
        tinyvid baseline fisher --data my_videos --by 5

    Of the config, its section data, clip.frames and clip.fps count. As in
    tinyvid crossval, nothing validates unless data.val_fraction is set.
    """
    from rich.console import Console

    from tinyvid.cli.tables import counting_bar, print_crossval, print_metrics
    from tinyvid.config import load_config
    from tinyvid.evaluate import Scores
    from tinyvid.features import cross_validate_baseline, fit_baseline
    from tinyvid.metrics import Metrics
    from tinyvid.runs import data_name

    check_fusion(fusion)
    named = {
        "data.path": data,
        "data.strict": strict or None,
        "data.fold": fold,
        "data.test_group": test_group or None,
    }
    folds = by is not None or not (test_group or fold or data == "verbs")
    first = ["data.val_fraction=0"] if folds else []  # as tinyvid crossval does
    settings = load_config(config, [*first, *(set_ or ())], given(named))
    if data is None and settings.data.path == "verbs":
        raise UserError("--data: name the videos; --data verbs takes the synthetic set")
    held = settings.data.test_group or settings.data.fold or settings.data.path == "verbs"
    if by is not None and held:
        raise UserError(f"--by {by} chooses what is tested: leave out --fold and --test-group")
    by = by or ("" if held else "group")
    kind = f"-by{by}" if by not in ("", "group") else ""
    folder = out or Path("runs") / f"{name}-{data_name(settings.data.path)}{kind}"
    console = Console()
    title = f"{name} on {settings.data.path}"

    def note(text: str) -> None:
        console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)

    options: dict[str, Any] = {
        "clips": clips,
        "fusion": fusion,
        "cache": cache or Path("runs") / "cells",
        "note": note,
    }

    def on_fold(seed: int, fold: str, metrics: Metrics, before: bool) -> None:
        known = " (finished before)" if before else ""
        console.print(
            f"seed {seed}, fold {fold}: Video Hit@1 {metrics.video_hit_1:.1%} of "
            f"{metrics.videos} videos{known}",
            highlight=False,
        )

    with counting_bar(console, "features", "videos") as progress:
        if by:
            result = cross_validate_baseline(
                name, settings, folder, by=by, seeds=parse_seeds(seeds), progress=progress,
                on_fold=on_fold, **options,
            )  # fmt: skip
        else:
            metrics = fit_baseline(name, settings, folder, progress=progress, **options)
    if by:
        print_crossval(console, result, f"{title}: Video Hit@1")
        files = "crossval.csv, confusion.png, seed<s>/"
    else:
        classes = Scores.load(folder / "test" / "scores.npz").classes
        print_metrics(console, metrics, classes, title)
        files = "test/"
    console.print(f"in {folder}: {files}", highlight=False, soft_wrap=True, markup=False)
