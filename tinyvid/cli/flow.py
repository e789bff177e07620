"""`tinyvid flow`: the optical flow of a video."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyvid.errors import UserError

VIDEOS = (".mp4", ".mkv", ".mov", ".avi")
METHODS = ("tvl1", "horn_schunck")


def flow(
    video: Annotated[Path, typer.Argument(help="A video file.", metavar="VIDEO")],
    outs: Annotated[
        list[Path],
        typer.Argument(help="NAME.npz, NAME.mp4, or a folder for .flo files.", metavar="OUT..."),
    ],
    short_side: Annotated[
        int | None,
        typer.Option(
            help="Scale the shorter side to so many pixels before.",
            min=8,
            metavar="<int>",
            show_default="as it is",
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="tvl1 or horn_schunck.")] = "tvl1",
    weight: Annotated[
        float, typer.Option(help="Of the data in tvl1; less is smoother.", metavar="<float>")
    ] = 0.25,
    bound: Annotated[
        float | None,
        typer.Option(
            help="Keep one byte a number in NAME.npz, up to so many pixels.",
            metavar="<float>",
            show_default="lossless",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where it is computed: cpu, cuda or emulator (slow).")
    ] = "cpu",
    full: Annotated[
        float, typer.Option(help="Pixels that have full colour in NAME.mp4.", metavar="<float>")
    ] = 8.0,
) -> None:
    """Find how far each pixel moves from each frame to the next.

    Writes the flow to one file or to several: to NAME.npz, all of it,
    float32 T 2 H W in pixels along x and y; to a new folder, a file of
    Middlebury's format for each pair of frames; to NAME.mp4, a video in
    which the hue is the direction and the saturation the length.

        tinyvid flow video.mp4 flow.npz flow.mp4
        tinyvid flow video.mp4 flows --short-side 240
    """
    from rich.console import Console
    from rich.progress import track

    from tinyvid.device import check_device
    from tinyvid.flow import flows_of
    from tinyvid.kernels.flow import TVL1, horn_schunck_flow, tvl1_flow

    if method not in METHODS:
        raise UserError(f"--method {method}: one of {', '.join(METHODS)}")
    if not full > 0:
        raise UserError(f"--full {full:g}: more than 0")
    for out in outs:
        if out.exists():
            raise UserError(f"{out} is there already: choose another name, or delete it")
        if out.suffix not in (".npz", *VIDEOS, ""):
            raise UserError(
                f"{out}: end it in .npz or in one of {', '.join(VIDEOS)}; or name a folder, "
                "without a dot, for .flo files"
            )
    check_device(device)
    if method == "tvl1":
        chosen = partial(tvl1_flow, settings=TVL1(weight=weight), device=device)
    else:
        chosen = partial(horn_schunck_flow, device=device)
    info, flows = flows_of(video, short_side, chosen)
    pairs = info.frames - 1
    console = Console()
    with ExitStack() as stack:
        writers: list[Any] = []
        for found in track(
            flows, "flow", total=pairs, console=console, disable=not console.is_terminal
        ):
            if not writers:
                shape = (pairs, *found.shape)
                writers = [_writer(stack, out, shape, info.fps, bound, full) for out in outs]
            for writer in writers:
                writer.add(found)
    typer.echo(f"{pairs} flows of {shape[3]} by {shape[2]} pixels in {', '.join(map(str, outs))}")


def _writer(
    stack: ExitStack,
    out: Path,
    shape: tuple[int, ...],
    fps: float,
    bound: float | None,
    full: float,
) -> Any:
    """Open what writes `out`: beside it, and under its name when all is done."""
    from tinyvid.data.video import VideoWriter
    from tinyvid.flow import FloWriter, NpzWriter

    aside = out.with_name(f"{out.stem}.part{out.suffix}")
    writer: Any
    try:
        if out.suffix == ".npz":
            writer = NpzWriter(aside, shape, bound)
        elif out.suffix in VIDEOS:
            writer = _Colours(VideoWriter(aside, fps), full)
        else:
            writer = FloWriter(aside)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error

    def end(kind: Any, *_: Any) -> None:
        writer.close()
        if kind is None:
            aside.rename(out)
        elif aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink()

    stack.push(end)
    return writer


class _Colours:
    """A video of flows in colours; an odd row or column at the end is left out."""

    def __init__(self, video: Any, full: float):
        self.video, self.full, self.close = video, full, video.close

    def add(self, found: Any) -> None:
        from tinyvid.flow import colours

        _, height, width = found.shape
        self.video.add(colours(found[:, : height // 2 * 2, : width // 2 * 2], self.full))
