"""What commands that train and test share: their options, and checks of what was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tinyvid.errors import UserError, nearest

Data = Annotated[
    str | None,
    typer.Option(
        help="A folder of class folders, a CSV of path,label,group, ucf101:FOLDER, or verbs.",
        metavar="<path|verbs>",
        show_default=False,
    ),
]
TrainingData = Annotated[
    str | None,
    typer.Option(
        help="A folder of class folders, a CSV of path,label,group, ucf101:FOLDER, or verbs.",
        metavar="<path|verbs>",
        show_default="verbs",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A TOML file with any of the config's keys, or the name of a recipe: small_sets.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set one key of the config: optim.lr=0.01. May be repeated.",
        metavar="<key=value>",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at a file that cannot be read; else skip it.")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training videos.")]
Fusion = Annotated[
    str, typer.Option(help="How clips become a video: mean_prob, mean_logit or max.")
]
Clips = Annotated[int, typer.Option(help="Evenly spread clips of each video.")]
Crops = Annotated[int, typer.Option(help="1, the centre; or 3 along the longer side.")]
Device = Annotated[
    str | None, typer.Option(help="Where the kernels run: cpu, cuda or emulator (slow).")
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]


def check_fusion(fusion: str) -> None:
    """Raise UserError if there is no such way to make one result of several clips."""
    from tinyvid.metrics import FUSIONS

    if fusion not in FUSIONS:
        raise UserError(
            f"--fusion {fusion}: give one of {', '.join(FUSIONS)}.{nearest(fusion, FUSIONS)}"
        )


def given(named: Mapping[str, object]) -> dict[str, object]:
    """The keys that have an option of their own, without those that were not given."""
    return {key: value for key, value in named.items() if value is not None}


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of a text such as "0,1,2"."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text}: give whole numbers with commas, such as 0,1,2") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: seeds must be different, and not negative")
    return seeds
