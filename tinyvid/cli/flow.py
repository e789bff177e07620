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
    video: Annotated[
        Path | None, typer.Argument(help="A video file.", metavar="VIDEO", show_default=False)
    ] = None,
    outs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="NAME.npz, NAME.mp4, or a folder for .flo files.",
            metavar="OUT",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="All videos of a data set instead, for training on their flow.",
            metavar="<path>",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Of --data: where the flow is kept.", show_default="runs/flow"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Of --data: fail if a video has no flow.")
    ] = False,
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
            help="Keep one byte a number, up to so many pixels, in NAME.npz or of --data.",
            metavar="<float>",
            show_default="NAME.npz: lossless; --data: a tenth of the short side",
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

    With --data, finds what a network with clip.input=flow will train on,
    which otherwise it does itself as it goes. What is there stays: the same
    command goes on where it was stopped, and several may run at once.

        tinyvid flow --data my_videos --short-side 80
        tinyvid train temporal_stream --data my_videos --set clip.short_side=80
    """
    from rich.console import Console
    from rich.progress import track

    from tinyvid.device import check_device
    from tinyvid.flow import flows_of
    from tinyvid.kernels.flow import TVL1, horn_schunck_flow, tvl1_flow

    if data is not None:
        if video is not None or (method, device, weight) != ("tvl1", "cpu", TVL1().weight):
            raise UserError(
                "--data takes no VIDEO, --method, --device and --weight: networks train on the "
                "flow that tvl1 finds on the CPU as it is set"
            )
        _fill(data, cache, short_side, bound, strict)
        return
    if video is None or not outs:
        raise UserError("give a VIDEO and where its flow goes; or --data and a data set")
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


def _fill(
    data: str,
    cache: Path | None,
    short_side: int | None,
    bound: float | None,
    strict: bool,
) -> None:
    """Find the flow of all videos of a data set."""
    from rich.console import Console

    from tinyvid.cli.tables import counting_bar
    from tinyvid.data import open_data
    from tinyvid.flow.sets import FlowSet
    from tinyvid.inputs import FLOW_CACHE

    if data == "verbs":
        raise UserError("--data verbs: made anew by each training, its flow too; none is kept")
    console = Console()
    with counting_bar(console, "opening", "videos") as progress:
        videos = open_data(data, strict=strict, progress=progress)
    folder = cache or Path(FLOW_CACHE)
    flows = FlowSet(videos, folder, bound)
    with counting_bar(console, "flow", "videos") as progress:
        there, failed = flows.fill(short_side, progress)
    failed = [*videos.skipped, *failed]
    for path, reason in failed:
        typer.echo(f"{path}: {reason}", err=True)
    left = f", {len(failed)} have none" if failed else ""
    found = len(videos) + len(videos.skipped) - len(failed)
    typer.echo(f"the flow of {found} videos, {there} of them from before{left}: in {folder}")
    if strict and failed:
        raise UserError(f"{len(failed)} videos have no flow, the first is {failed[0][0]}")


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
