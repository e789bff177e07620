"""The commands that train: train and crossval."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyvid.cli.options import (
    Clips,
    ConfigFile,
    Crops,
    Data,
    Device,
    Epochs,
    Fusion,
    Set,
    Strict,
    TrainingData,
    check_fusion,
    given,
    parse_seeds,
)
from tinyvid.errors import UserError

if TYPE_CHECKING:
    from tinyvid.metrics import Metrics


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            help="The network; `tinyvid models` lists them.",
            metavar="MODEL",
            show_default="slow_fusion",
        ),
    ] = None,
    data: TrainingData = None,
    strict: Strict = False,
    config: ConfigFile = None,
    set_: Set = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder.", show_default="runs/MODEL-DATA")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out, or the latest unfinished."),
    ] = False,
    epochs: Epochs = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything random.")] = None,
    test_group: Annotated[
        list[str] | None,
        typer.Option(help="Hold this group out for testing; may be repeated.", metavar="<str>"),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(help="Hold out the k-th of K parts of the groups.", metavar="<k/K>"),
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Share of the training videos that validates; 0 for none.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Start from these weights of the same network, as safetensors."),
    ] = None,
    device: Device = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the whole config as TOML, and stop.")
    ] = False,
) -> None:
    """Train a network on videos.

    The run's folder gets the best and the last weights, the log as CSV
    and as a picture, and the whole config. A run that was stopped goes on
    with --resume, and ends with the very weights that it would have had.

        tinyvid train slow_fusion --data verbs
        tinyvid train slow_fusion --data my_videos --set clip.frames=32
        tinyvid train slow_fusion --data my_videos --config small_sets

    small_sets is a recipe for a few dozen videos. To set many keys, print
    the config, change it, and train with the file:

        tinyvid train slow_fusion --data my_videos --show-config > my.toml
        tinyvid train --config my.toml
    """
    from tinyvid.cli.folders import folder_to_resume, fresh_folder
    from tinyvid.config import load_config
    from tinyvid.data.sets import check_exists
    from tinyvid.device import check_device

    named = {
        "model.name": model,
        "data.path": data,
        "data.strict": strict or None,
        "run.epochs": epochs,
        "run.seed": seed,
        "data.test_group": test_group or None,
        "data.fold": fold,
        "data.val_fraction": val_fraction,
        "run.device": device,
        "model.weights": str(weights) if weights is not None else None,
    }
    if resume and config is None:
        config = folder_to_resume(out, model, data) / "config.toml"
    settings = load_config(config, set_ or (), given(named))
    if show_config:
        check_exists(settings.data.path)
        typer.echo(settings.to_toml(), nl=False)
        return

    check_device(settings.run.device)  # before a folder is spoken of

    from rich.console import Console

    from tinyvid.cli.progress import Reporter
    from tinyvid.train import fit

    console = Console()
    with Reporter(console) as reporter:
        if resume:
            folder = folder_to_resume(out, settings.model.name, settings.data.path)
            reporter.say(f"resuming {folder}")
        else:
            folder = fresh_folder(out, settings, reporter.note)
        try:
            result = fit(settings, folder, resume=resume, listener=reporter)
        except KeyboardInterrupt:
            how = f"tinyvid train --resume --out {shlex.quote(str(folder))}"
            typer.echo(f"stopped; to go on: {how}", err=True)
            raise typer.Exit(130) from None
    best = result.best
    if best.val_hit1 is not None:
        reporter.say(f"best: epoch {best.epoch}, validation Video Hit@1 {best.val_hit1:.1%}")
    reporter.say(f"in {folder}: best.safetensors, log.csv, curves.png")
    reporter.say(f"next: tinyvid test {shlex.quote(str(folder))}")


def crossval(
    model: Annotated[
        str, typer.Argument(help="The network; `tinyvid models` lists them.", metavar="MODEL")
    ],
    data: Data = None,
    strict: Strict = False,
    by: Annotated[
        str, typer.Option(help="'group' leaves out one group at a time; a number makes k folds.")
    ] = "group",
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    config: ConfigFile = None,
    set_: Set = None,
    epochs: Epochs = None,
    clips: Clips = 10,
    crops: Crops = 1,
    fusion: Fusion = "mean_prob",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of all the runs.", show_default="runs/crossval-MODEL-DATA[-byK]"),
    ] = None,
) -> None:
    """Test every group by a network that has never seen it.

    Trains and tests once for each fold and seed, and prints a table with
    mean and spread. Nothing is validated unless data.val_fraction is set,
    and the last epoch is tested. What is finished is kept: the same
    command goes on where it was stopped.

        tinyvid crossval slow_fusion --data gestures --by group --seeds 0,1,2
    """
    from rich.console import Console

    from tinyvid.cli.progress import Reporter
    from tinyvid.cli.tables import print_crossval
    from tinyvid.config import load_config
    from tinyvid.crossval import cross_validate
    from tinyvid.runs import data_name

    check_fusion(fusion)
    named = given(
        {
            "model.name": model,
            "data.path": data,
            "data.strict": strict or None,
            "run.epochs": epochs,
        }
    )
    settings = load_config(config, ["data.val_fraction=0", *(set_ or ())], named)
    if data is None and settings.data.path == "verbs":
        raise UserError("--data: name the videos; a cross-validation is for a set of your own")
    kind = "" if by == "group" else f"-by{by}"
    name = f"crossval-{model}-{data_name(settings.data.path)}{kind}"
    folder = out or Path("runs") / name
    console = Console()

    def on_fold(seed: int, fold: str, metrics: Metrics, before: bool) -> None:
        known = " (finished before)" if before else ""
        reporter.__exit__()  # the next fold has a bar of its own
        reporter.say(
            f"seed {seed}, fold {fold}: Video Hit@1 {metrics.video_hit_1:.1%} of "
            f"{metrics.videos} videos{known}"
        )

    with Reporter(console, quiet=True) as reporter:
        try:
            result = cross_validate(
                settings,
                folder,
                by=by,
                seeds=parse_seeds(seeds),
                clips=clips,
                crops=crops,
                fusion=fusion,
                listener=reporter,
                on_fold=on_fold,
            )
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on from here", err=True)
            raise typer.Exit(130) from None
    print_crossval(console, result, f"{model} on {settings.data.path}: Video Hit@1")
    console.print(f"in {folder}: crossval.csv, confusion.png", highlight=False, soft_wrap=True)
