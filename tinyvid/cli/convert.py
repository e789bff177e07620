"""`tinyvid convert`: weights of other programs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tinyvid.errors import UserError


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="A C3D checkpoint: .pth, .pickle, .safetensors; or a run.", metavar="SOURCE"
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="NAME.safetensors or the folder of a run; of a run, NAME.onnx.", metavar="TARGET"
        ),
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="Text with the name of a class in each line.", show_default="0, 1, …"),
    ] = None,
) -> None:
    """Bring public C3D weights in, and trained networks out.

    Reads PyTorch's files without running the code that they may hold,
    and tells by the names of the layers where they come from. A folder
    becomes a run, with the colours and means that the weights are used
    to: test it, or predict with it. Weights alone are to train from.

        tinyvid convert c3d.pickle runs/sports1m --classes labels.txt
        tinyvid convert c3d.pickle c3d.safetensors
        tinyvid train c3d --data my_videos --weights c3d.safetensors

    A trained network is written as ONNX, with any number of clips at once
    as its input; its metadata say how to normalise them.

        tinyvid convert runs/slow_fusion-verbs slow_fusion.onnx
    """
    from tinyvid.weights.convert import convert as bring
    from tinyvid.weights.convert import convert_run

    if target.suffix == ".onnx":
        if source.is_file():
            raise UserError(f"{source} is a file: make a run of it first, tinyvid convert FILE RUN")
        convert_run(source, target)
        typer.echo(f"in {target}: takes clips N C T H W, gives scores; its metadata tell the rest")
        return
    names = None
    if classes is not None:
        try:
            names = [line.strip() for line in classes.read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{classes} cannot be read: {error}") from error
    layout = bring(source, target, names)
    typer.echo(
        f"layout {layout.name}: colours {layout.colours}, mean "
        f"{', '.join(f'{m:g}' for m in layout.mean)} (red, green, blue) subtracted"
    )
    at = shlex.quote(str(target))
    if target.suffix:
        typer.echo(f"in {target}; next: tinyvid train c3d --data VIDEOS --weights {at}")
    else:
        typer.echo(f"in {target}; next: tinyvid predict {at} VIDEO")
