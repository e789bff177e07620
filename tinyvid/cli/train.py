"""The commands that train and test: train, test, predict, crossval."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyvid.errors import UserError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from tinyvid.metrics import Metrics

_Data = Annotated[
    str | None,
    typer.Option(
        help="A folder of class folders, a CSV of path,label,group, or verbs.",
        metavar="<path|verbs>",
        show_default=False,
    ),
]
_TrainingData = Annotated[
    str | None,
    typer.Option(
        help="A folder of class folders, a CSV of path,label,group, or verbs.",
        metavar="<path|verbs>",
        show_default="verbs",
    ),
]
_ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A TOML file with any of the config's keys, or the name of a recipe: small_sets.",
    ),
]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set one key of the config: optim.lr=0.01. May be repeated.",
        metavar="<key=value>",
    ),
]
_Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at a file that cannot be read; else skip it.")
]
_Epochs = Annotated[int | None, typer.Option(help="Passes over the training videos.")]
_Fusion = Annotated[
    str, typer.Option(help="How clips become a video: mean_prob, mean_logit or max.")
]
_Clips = Annotated[int, typer.Option(help="Evenly spread clips of each video.")]
_Crops = Annotated[int, typer.Option(help="1, the centre; or 3 along the longer side.")]
_Device = Annotated[
    str | None, typer.Option(help="Where the kernels run: cpu, cuda or emulator (slow).")
]
_Run = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            help="The network; `tinyvid models` lists them.",
            metavar="MODEL",
            show_default="slow_fusion",
        ),
    ] = None,
    data: _TrainingData = None,
    strict: _Strict = False,
    config: _ConfigFile = None,
    set_: _Set = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder.", show_default="runs/MODEL-DATA")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out, or the latest unfinished."),
    ] = False,
    epochs: _Epochs = None,
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
    device: _Device = None,
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
    }
    if resume and config is None:
        config = folder_to_resume(out, model, data) / "config.toml"
    settings = load_config(config, set_ or (), _given(named))
    if show_config:
        check_exists(settings.data.path)
        typer.echo(settings.to_toml(), nl=False)
        return

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


def evaluate(
    run: _Run,
    clips: Annotated[
        int | None, typer.Option(help="Evenly spread clips of each video.", show_default="10")
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(help="1, the centre; or 3 along the longer side.", show_default="1"),
    ] = None,
    fusion: _Fusion = "mean_prob",
    part: Annotated[
        str | None,
        typer.Option(help="The run's train, val or test part.", show_default="test, else val"),
    ] = None,
    data: _Data = None,
    strict: _Strict = False,
    from_scores: Annotated[
        bool,
        typer.Option("--from-scores", help="Use the last such test's scores; run nothing."),
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Other weights of the same network, as safetensors.")
    ] = None,
    device: _Device = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where results go.", show_default="RUN/test, or RUN/test-WHAT for other parts, …"
        ),
    ] = None,
) -> None:
    """Test a trained network on several clips of each video.

    Prints Hit@1 of clips and of videos, Hit@5 of videos, the mean of the
    classes' accuracies, and which class was taken for which. Saves the
    scores of every clip, so that another --fusion can be tried at once
    with --from-scores. Other parts, data, weights and fusions have
    folders of their own.

        tinyvid test runs/slow_fusion-verbs --clips 10
        tinyvid test runs/slow_fusion-verbs --from-scores --fusion max
    """
    from rich.console import Console

    from tinyvid.cli.tables import counting_bar, print_metrics
    from tinyvid.evaluate import (
        Scores,
        count_trained,
        latest_scores,
        name_tested,
        result_folder,
        save_results,
        score,
        videos_to_test,
    )
    from tinyvid.runs import Run, read_json
    from tinyvid.train import describe_skipped

    _check_fusion(fusion)
    opened = Run.open(run)
    opened.config.data.strict |= strict
    what, name = name_tested(opened, part, data)
    other = weights.stem if weights is not None and weights.stem != "best" else ""
    title = f"{opened.config.model.name} on {name}" + (f", weights {other}" if other else "")
    named = {"what": what, "weights": other}
    folder = out or result_folder(opened, title, **named, fusion=fusion)
    console = Console()
    if from_scores:
        for option, value in (("clips", clips), ("crops", crops), ("device", device)):
            if value is not None:
                raise UserError(
                    f"--from-scores takes the scores as they are: leave out --{option}, or it"
                )
        if out is None:
            scores = Scores.load(latest_scores(opened, title, **named))
        else:
            scores = Scores.load(out / "scores.npz")
            title = read_json(out / "metrics.json").get("of", title)
    else:
        model, checkpoint = opened.model(weights, device)
        with counting_bar(console, "reading", "videos") as progress:
            videos, _ = videos_to_test(opened, part=part, data=data, progress=progress)
        if videos.skipped:
            _note(console, describe_skipped(videos))
        known = count_trained(opened, videos)
        if known:
            _note(
                console,
                f"the run was trained on {known} of these {len(videos)} videos: that it knows them "
                "says nothing of new ones",
            )
        with counting_bar(console, "testing") as progress:
            scores = score(
                model,
                videos,
                opened.config,
                clips=10 if clips is None else clips,
                crops=1 if crops is None else crops,
                progress=progress,
            )
        if what == "val" and checkpoint.state.get("epoch"):
            _note(
                console,
                "the best epoch was chosen by these very videos, which flatters it; hold some "
                "out with --test-group or --fold",
            )
    metrics = save_results(scores, fusion, title, folder)
    print_metrics(console, metrics, scores.classes, title)
    console.print(
        f"in {folder}: metrics.json, videos.csv, scores.npz, confusion.csv, confusion.png",
        highlight=False,
        soft_wrap=True,
    )


def predict(
    run: _Run,
    files: Annotated[list[Path], typer.Argument(help="Video files.", metavar="FILE")],
    clips: Annotated[
        int | None, typer.Option(help="Clips of each file.", show_default="end to end")
    ] = None,
    top: Annotated[
        int, typer.Option(help="How many classes to print.", min=1, metavar="<int>")
    ] = 5,
    fusion: _Fusion = "mean_prob",
    device: _Device = None,
) -> None:
    """Say what a video shows, and when.

    Prints the most probable classes of each file, and which was the most
    probable when: neighbouring clips of one class share a line.

        tinyvid predict runs/slow_fusion-verbs video.mp4
        tinyvid predict runs/slow_fusion-verbs *.mp4 --clips 20 --top 3
    """
    from rich.console import Console

    from tinyvid.cli.tables import print_prediction
    from tinyvid.predict import predict as look

    _check_fusion(fusion)
    console, failed = Console(), []

    def tell(error: UserError) -> None:
        failed.append(error)
        typer.echo(f"error: {error}", err=True)

    for found in look(run, files, clips=clips, fusion=fusion, device=device, failed=tell):
        print_prediction(console, found, top)
    if failed:
        raise typer.Exit(2)


def crossval(
    model: Annotated[
        str, typer.Argument(help="The network; `tinyvid models` lists them.", metavar="MODEL")
    ],
    data: _Data = None,
    strict: _Strict = False,
    by: Annotated[
        str, typer.Option(help="'group' leaves out one group at a time; a number makes k folds.")
    ] = "group",
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    config: _ConfigFile = None,
    set_: _Set = None,
    epochs: _Epochs = None,
    clips: _Clips = 10,
    crops: _Crops = 1,
    fusion: _Fusion = "mean_prob",
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

    _check_fusion(fusion)
    named = _given(
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
                seeds=_seeds(seeds),
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


def _note(console: Console, text: str) -> None:
    console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


def _check_fusion(fusion: str) -> None:
    from tinyvid.metrics import FUSIONS

    if fusion not in FUSIONS:
        raise UserError(
            f"--fusion {fusion}: give one of {', '.join(FUSIONS)}.{nearest(fusion, FUSIONS)}"
        )


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text}: give whole numbers with commas, such as 0,1,2") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: seeds must be different, and not negative")
    return seeds


def _given(named: Mapping[str, object]) -> dict[str, object]:
    """The keys that have an option of their own, without those that were not given."""
    return {key: value for key, value in named.items() if value is not None}
