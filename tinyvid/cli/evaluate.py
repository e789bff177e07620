"""The commands that use a trained network: test and predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyvid.cli.options import Data, Device, Fusion, RunFolder, Strict, check_fusion
from tinyvid.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from tinyvid.predict import Prediction


def evaluate(
    run: RunFolder,
    clips: Annotated[
        int | None, typer.Option(help="Evenly spread clips of each video.", show_default="10")
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(help="1, the centre; or 3 along the longer side.", show_default="1"),
    ] = None,
    fusion: Fusion = "mean_prob",
    part: Annotated[
        str | None,
        typer.Option(help="The run's train, val or test part.", show_default="test, else val"),
    ] = None,
    data: Data = None,
    strict: Strict = False,
    from_scores: Annotated[
        bool,
        typer.Option("--from-scores", help="Use the last such test's scores; run nothing."),
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Other weights of the same network, as safetensors.")
    ] = None,
    device: Device = None,
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

    check_fusion(fusion)
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
    run: RunFolder,
    files: Annotated[list[Path], typer.Argument(help="Video files.", metavar="FILE")],
    clips: Annotated[
        int | None, typer.Option(help="Clips of each file.", show_default="end to end")
    ] = None,
    top: Annotated[
        int, typer.Option(help="How many classes to print.", min=1, metavar="<int>")
    ] = 5,
    fusion: Fusion = "mean_prob",
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw probability against time: NAME.png, or a folder for several files.",
            metavar="<path>",
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Say what a video shows, and when.

    Prints the most probable classes of each file, and which was the most
    probable when: neighbouring clips of one class share a line.

        tinyvid predict runs/slow_fusion-verbs video.mp4
        tinyvid predict runs/slow_fusion-verbs *.mp4 --clips 20 --top 3
        tinyvid predict runs/cnn_lstm-verbs video.mp4 --plot probability.png

    The drawing has a point for each clip; of cnn_lstm and of an LSTM on
    features (tinyvid lstm), which say something at each frame, one for each.
    """
    from rich.console import Console

    from tinyvid.cli.tables import print_prediction
    from tinyvid.predict import predict as look

    check_fusion(fusion)
    console, failed = Console(), []
    drawings = _drawings(plot, files)

    def tell(error: UserError) -> None:
        failed.append(error)
        typer.echo(f"error: {error}", err=True)

    for found in look(run, files, clips=clips, fusion=fusion, device=device, failed=tell):
        print_prediction(console, found, top)
        if plot is not None:
            _draw(found, drawings[found.path])
            console.print(f"drawn in {drawings[found.path]}", highlight=False, markup=False)
    if failed:
        raise typer.Exit(2)


def _drawings(plot: Path | None, files: list[Path]) -> dict[Path, Path]:
    """Return the picture of each file."""
    if plot is None:
        return {}
    if plot.suffix == ".png":
        if len(set(files)) > 1:
            raise UserError(f"--plot {plot}: one picture for {len(files)} files: name a folder")
        return {files[0]: plot}
    if plot.suffix:
        raise UserError(f"--plot {plot}: end it in .png, or name a folder, without a dot")
    names = {file: plot / f"{file.stem}.png" for file in files}
    if len(set(names.values())) < len(names):
        raise UserError(f"--plot {plot}: two of the files have the same name: draw one at a time")
    plot.mkdir(parents=True, exist_ok=True)
    return names


def _draw(found: Prediction, path: Path) -> None:
    from tinyvid.report import plot_probabilities

    name, share = found.top(1)[0]
    title = f"{found.path.name}: {name} {share:.0%}"
    if found.steps is not None:
        times, probabilities = found.steps
        plot_probabilities(times.tolist(), probabilities, found.classes, path, title, steps=True)
    else:
        middles = [(start + end) / 2 for start, end in found.times]
        plot_probabilities(middles, found.clips, found.classes, path, title)


def _note(console: Console, text: str) -> None:
    console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)
