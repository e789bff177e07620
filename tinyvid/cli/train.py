"""The commands that train and test: train, test, predict, crossval."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyvid.errors import UserError, nearest

if TYPE_CHECKING:
    from tinyvid.config import Config
    from tinyvid.metrics import Metrics

_Data = Annotated[
    str | None,
    typer.Option(
        help="A folder of class folders, a CSV of path,label,group, or verbs.",
        metavar="PATH|verbs",
        show_default=False,
    ),
]
_ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file with any of the config's keys.")
]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set one key of the config, such as optim.lr=0.01.", metavar="K=V"),
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
            help="The network; `tinyvid models` lists them.", metavar="MODEL", show_default=False
        ),
    ] = None,
    data: _Data = None,
    strict: _Strict = False,
    config: _ConfigFile = None,
    set_: _Set = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder.", show_default="runs/MODEL-DATA")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out after its last epoch.")
    ] = False,
    epochs: _Epochs = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything random.")] = None,
    test_group: Annotated[
        list[str] | None, typer.Option(help="Hold this group out for testing; may be repeated.")
    ] = None,
    fold: Annotated[
        str | None, typer.Option(help="Hold out the k-th of K parts of the groups.", metavar="k/K")
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
    """
    from tinyvid.config import load_config

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
        config = _folder_to_resume(out, model, data) / "config.toml"
    settings = load_config(config, set_ or (), _given(named))
    if show_config:
        typer.echo(settings.to_toml(), nl=False)
        return
    if resume:
        folder = _folder_to_resume(out, settings.model.name, settings.data.path)
    else:
        folder = _fresh_folder(out, settings)

    from rich.console import Console

    from tinyvid.cli.progress import Reporter
    from tinyvid.train import fit

    console = Console()
    with Reporter(console) as reporter:
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
    clips: _Clips = 10,
    crops: _Crops = 1,
    fusion: _Fusion = "mean_prob",
    part: Annotated[
        str | None,
        typer.Option(help="The run's train, val or test part.", show_default="test, else val"),
    ] = None,
    data: _Data = None,
    strict: _Strict = False,
    from_scores: Annotated[
        bool, typer.Option("--from-scores", help="Use the scores of the last test; run nothing.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Other weights of the same network, as safetensors.")
    ] = None,
    device: _Device = None,
    out: Annotated[
        Path | None, typer.Option(help="Where results go.", show_default="RUN/test")
    ] = None,
) -> None:
    """Test a trained network on several clips of each video.

    Prints Hit@1 of clips and of videos, Hit@5 of videos, the mean of the
    classes' accuracies, and which class was taken for which. Saves the
    scores of every clip, so that another --fusion can be tried at once
    with --from-scores.

        tinyvid test runs/slow_fusion-verbs --clips 10
        tinyvid test runs/slow_fusion-verbs --from-scores --fusion max
    """
    from rich.console import Console

    from tinyvid.cli.tables import counting_bar, print_metrics
    from tinyvid.evaluate import Scores, save_results, score, videos_to_test
    from tinyvid.runs import Run, read_json
    from tinyvid.train import describe_skipped

    _check_fusion(fusion)
    opened = Run.open(run)
    opened.config.data.strict |= strict
    folder = out or run / "test"
    console = Console()
    if from_scores:
        scores = Scores.load(folder / "scores.npz")
        title = read_json(folder / "metrics.json").get("of", str(run))
    else:
        model, checkpoint = opened.model(weights, device)
        with counting_bar(console, "reading", "videos") as progress:
            videos, name = videos_to_test(opened, part=part, data=data, progress=progress)
        if videos.skipped:
            note = f"note: {describe_skipped(videos)}"
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        title = f"{opened.config.model.name} on {name}"
        with counting_bar(console, "testing") as progress:
            scores = score(
                model, videos, opened.config, clips=clips, crops=crops, progress=progress
            )
        if name.startswith("part 'val'") and checkpoint.state.get("epoch"):
            console.print(
                "note: the best epoch was chosen by these very videos, which flatters it; hold some"
                " out with --test-group or --fold",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    metrics = save_results(scores, fusion, title, folder)
    print_metrics(console, metrics, scores.classes, title)
    console.print(
        f"in {folder}: videos.csv, scores.npz, confusion.png", highlight=False, soft_wrap=True
    )


def predict(
    run: _Run,
    files: Annotated[list[Path], typer.Argument(help="Video files.", metavar="FILE...")],
    clips: Annotated[
        int | None, typer.Option(help="Clips of each file.", show_default="end to end")
    ] = None,
    top: Annotated[int, typer.Option(help="How many classes to print.", min=1)] = 5,
    fusion: _Fusion = "mean_prob",
    device: _Device = None,
) -> None:
    """Say what a video shows, and when.

    Prints the most probable classes of each file, and the first of them
    clip by clip.

        tinyvid predict runs/slow_fusion-verbs video.mp4
        tinyvid predict runs/slow_fusion-verbs *.mp4 --clips 20 --top 3
    """
    from rich.console import Console

    from tinyvid.cli.tables import print_prediction
    from tinyvid.predict import predict as look

    _check_fusion(fusion)
    console = Console()
    for found in look(run, files, clips=clips, fusion=fusion, device=device):
        print_prediction(console, found, top)


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
        typer.Option(help="Folder of all the runs.", show_default="runs/crossval-MODEL-DATA"),
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
    folder = out or Path("runs") / f"crossval-{model}-{_data_name(settings)}"
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


def _data_name(settings: Config) -> str:
    path = Path(settings.data.path)
    known = path.stem if path.suffix == ".csv" and path.stem != "clips" else path.name
    return known if path.name != "clips.csv" else path.resolve().parent.name


def _runs_called(name: str) -> list[Path]:
    """The folders runs/NAME, runs/NAME-2, … that exist, in this order."""
    numbered = [Path("runs") / name]
    while numbered[-1].exists():
        numbered.append(Path("runs") / f"{name}-{len(numbered) + 1}")
    return numbered[:-1]


def _fresh_folder(out: Path | None, settings: Config) -> Path:
    """The folder for a new run: --out, which must not hold one, or the next free name."""
    if out is None:
        name = f"{settings.model.name}-{_data_name(settings)}"
        taken = len(_runs_called(name))
        return Path("runs") / (f"{name}-{taken + 1}" if taken else name)
    if (out / "last.safetensors").exists():  # a run that finished no epoch has nothing to lose
        raise UserError(f"{out} holds a run already: go on with --resume, or choose another --out")
    return out


def _folder_to_resume(out: Path | None, model: str | None, data: str | None) -> Path:
    """The folder of the run to go on with: --out, or the latest of the default names."""
    if out is None:
        if model is None:
            raise UserError("--resume: name the run with --out runs/NAME")
        from tinyvid.config import load_config

        settings = load_config(named=_given({"model.name": model, "data.path": data}))
        name = f"{model}-{_data_name(settings)}"
        found = _runs_called(name)
        if not found:
            raise UserError(f"--resume: there is no run in runs/{name}; name it with --out")
        return found[-1]
    if not (out / "config.toml").is_file():
        raise UserError(f"--resume: {out} holds no run, it has no config.toml")
    return out
