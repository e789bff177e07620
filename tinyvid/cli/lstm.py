"""`tinyvid lstm`: an LSTM on the frozen features of a network's frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def lstm(
    run: Annotated[
        Path, typer.Argument(help="A run, or a cross-validation's folder.", metavar="RUN")
    ],
    hidden: Annotated[int, typer.Option(help="Units of the LSTM.", metavar="<int>")] = 64,
    epochs: Annotated[int, typer.Option(help="Passes over the training videos.")] = 60,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.", metavar="<float>")] = 3e-3,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for each video's features.", show_default="runs/frames"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where results go.", show_default="RUN-lstm")
    ] = None,
) -> None:
    """Train an LSTM on what a trained network sees in each frame.

    Takes the run of a network that looks at frames alone, such as
    single_frame, or a cross-validation of it. Its features are frozen:
    computed once for whole videos, and kept. The LSTM reads each video
    as long as it is, and what it says after each frame is averaged. It is
    tested on the run's test videos, as tinyvid test does.

        tinyvid lstm runs/single_frame-verbs
        tinyvid predict runs/single_frame-verbs-lstm video.mp4 --plot when.png

    Trained end to end, with its CNN, it is tinyvid train cnn_lstm.
    """
    from rich.console import Console

    from tinyvid.cli.tables import counting_bar, print_crossval, print_metrics
    from tinyvid.evaluate import Scores
    from tinyvid.folds import CrossValidation
    from tinyvid.lrcn import LstmSettings, lstm_on_features

    settings = LstmSettings(hidden, epochs, lr, seed=seed)
    folder = out or run.with_name(f"{run.name}-lstm")
    console = Console()
    with counting_bar(console, "features", "videos") as progress:
        result = lstm_on_features(
            run,
            folder,
            settings,
            cache=cache or Path("runs") / "frames",
            progress=progress,
        )
    title = f"LSTM on the features of {run}"
    if isinstance(result, CrossValidation):
        print_crossval(console, result, f"{title}: Video Hit@1")
        files = "crossval.csv, confusion.png, seed<s>/"
    else:
        classes = Scores.load(folder / "test" / "scores.npz").classes
        print_metrics(console, result, classes, title)
        files = "test/, lstm.safetensors"
    console.print(f"in {folder}: {files}", highlight=False, soft_wrap=True, markup=False)
