"""`tinyvid bench`: ours and the peers in turn, in one run, checked before and after."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyvid.cli.bench_goals import goals
from tinyvid.cli.bench_show import STYLES, Show, new_console, running
from tinyvid.cli.shown import Command, Group
from tinyvid.errors import UserError

if TYPE_CHECKING:
    from tinyvid.bench.results import Measured

# The operations that have kernels, and what to call them.
OPS = {
    "conv3d": "3-D convolution",
    "conv3d_uint8": "3-D convolution of clips that are still bytes",
    "conv3d_relu_max_pool": "3-D convolution with ReLU and max pooling",
    "conv2d": "2-D convolution and early fusion",
    "conv2d_uint8": "early fusion of clips that are still bytes",
    "max_pool3d": "3-D max pooling",
    "avg_pool3d": "3-D average pooling",
    "lstm": "the LSTM",
    "tvl1": "optical flow by TV-L1",
    "horn_schunck": "optical flow by Horn and Schunck's method",
}
NO_PEER = "none"

app = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode="rich")

Peers = Annotated[
    list[str] | None,
    typer.Option("--peer", help="torch, torch/channels_last, numpy or none. May be repeated."),
]
Seconds = Annotated[float | None, typer.Option(help="Limit for each line of work: 20, quick 3.")]
Quick = Annotated[bool, typer.Option("--quick", help="A few small cases, and less time.")]
Out = Annotated[Path | None, typer.Option(help="Folder for JSON, CSV, Markdown and the roofline.")]


@app.callback()
def bench() -> None:
    """Time kernels, networks and data beside their peers.

    Every result is checked before and after it is timed; a wrong one is a
    failed benchmark, and the exit code is 1. Ours and the peers run in turn,
    until their ratios settle. A machine too noisy to tell says so.
    """


def _kernels(op: str) -> Callable[..., None]:
    def run(
        case: Annotated[
            list[str] | None,
            typer.Option(help="A case by name; by default the layers of the lecture's networks."),
        ] = None,
        pass_: Annotated[
            list[str] | None, typer.Option("--pass", help="A pass, such as fprop; all by default.")
        ] = None,
        variant: Annotated[
            list[str] | None, typer.Option(help="A variant; the preferred one by default.")
        ] = None,
        peer: Peers = None,
        ladder: Annotated[
            bool, typer.Option("--ladder", help="Every variant, each beside the first peer.")
        ] = False,
        whole: Annotated[
            bool,
            typer.Option(
                "--whole", help="The operation through the engine: forward, forward+backward."
            ),
        ] = False,
        device: Annotated[str, typer.Option(help="cpu, cuda, or emulator with --check.")] = "cpu",
        batch: Annotated[int | None, typer.Option(help="N, instead of the case's own.")] = None,
        script: Annotated[
            Path | None,
            typer.Option("--with", help="A Python file that adds a variant of its own."),
        ] = None,
        check: Annotated[
            bool, typer.Option("--check", help="Check the results only; time nothing.")
        ] = False,
        seconds: Seconds = None,
        quick: Quick = False,
        seed: Annotated[
            int | None, typer.Option(help="Of the random inputs; others in each run by default.")
        ] = None,
        out: Out = None,
    ) -> None:
        from tinyvid.bench import peers
        from tinyvid.bench.problems import tasks
        from tinyvid.bench.run import Settings, measure
        from tinyvid.bench.timing import processor_timer
        from tinyvid.bench.whole import measure_whole, wholes

        settings = Settings(device, check_only=check)  # says first what cannot be
        if whole and (variant or ladder or script):
            raise UserError(
                "--whole runs what the operation chooses: no --variant, --ladder, --with"
            )
        added = _added_by(script, op) if script else []
        names = [] if device == "emulator" or peer == [NO_PEER] else peer
        found, skipped = peers.chosen(names, device)
        timer = processor_timer
        if device == "cuda":
            from tinyvid.bench.gpu import EventTimer

            timer = EventTimer()
        wanted = tuple(variant or [])
        if added and not wanted and not ladder:
            wanted = tuple(added)
        settings = Settings(
            device, wanted, ladder, tuple(found), _limit(seconds, quick), check, timer
        )
        some: Iterable[Measured]
        if whole:
            operations = wholes(op, case or (), pass_ or (), batch, quick)
            some = (measure_whole(operation, settings) for operation in operations)
        else:
            work = tasks(op, case or (), pass_ or (), batch, quick, seed, wanted)
            some = (measure(task, settings) for task in work)
        with running(op, device, skipped, out, ceilings=not check, timer=timer) as show:
            if added:
                _check_added(op, added, device, show)
            for measured in some:
                show(measured)

    run.__doc__ = f"Time {OPS[op]}."
    return run


for _op in OPS:
    app.command(_op, cls=Command)(_kernels(_op))


app.command(cls=Command)(goals)


@app.command(cls=Command)
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Networks; all by default."),
    ] = None,
    pass_: Annotated[
        list[str] | None, typer.Option("--pass", help="step or forward; both by default.")
    ] = None,
    peer: Annotated[list[str] | None, typer.Option(help="torch or none; torch by default.")] = None,
    batch: Annotated[int | None, typer.Option(help="Clips of a step.")] = None,
    seconds: Seconds = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Time a training step and the scores of each network, beside PyTorch's.

    Both get the same weights, and their losses and gradients must agree.
    """
    from tinyvid import models as networks
    from tinyvid.bench import peers
    from tinyvid.bench.networks import PASSES, measure_network
    from tinyvid.errors import nearest

    for given in pass_ or ():
        if given not in PASSES:
            raise UserError(f"--pass {given}: step or forward.{nearest(given, PASSES)}")
    known = ["worked_slow_fusion", "worked_early_fusion"] if quick else networks.names()
    chosen = names or known
    for name in chosen:
        networks.entry(name)
    alone = peer == [NO_PEER]
    if peer and not alone and peer != ["torch"]:
        raise UserError(f"--peer {' '.join(peer)}: networks have the peer torch, or none")
    found, skipped = peers.chosen([] if alone else ["torch"], "cpu")
    skipped = [why for why in skipped if not why.startswith("torch/")]
    with running("models", "cpu", skipped, out) as show:
        for name in chosen:
            for each in pass_ or PASSES:
                limit = _limit(seconds, quick)
                show(measure_network(name, each, batch, limit, bool(found)))


@app.command(cls=Command)
def pipeline(
    data: Annotated[
        Path | None, typer.Option(help="A folder of videos; by default H.264 files made for it.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of a clip.")] = 16,
    size: Annotated[int, typer.Option(help="Height and width of a clip.")] = 112,
    batch: Annotated[int, typer.Option(help="Clips of a batch.")] = 8,
    workers: Annotated[int, typer.Option(help="Threads that decode; 0 for none.")] = 2,
    memory: Annotated[int, typer.Option(help="MiB of decoded videos that may be kept.")] = 1024,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A network whose training waits for data, on clips of its own size."),
    ] = None,
    seconds: Seconds = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Time decoding and augmentation, and how long a training waits for data."""
    from tinyvid import models
    from tinyvid.bench.pipeline import loader, measure_decoding, measure_waiting, written_videos
    from tinyvid.data import open_data

    chosen = model or ["worked_early_fusion", "worked_slow_fusion"]
    networks = [(name, models.entry(name)) for name in chosen]
    limit = _limit(seconds, quick)
    with (
        tempfile.TemporaryDirectory() as folder,
        running("pipeline", "cpu", [], out, ceilings=False) as show,
    ):
        if data is None:
            show.say("writing H.264 videos to decode")
        videos = open_data(data or written_videos(Path(folder), 1 if quick else 2))
        kept = memory << 20
        for train, keep in ((False, False), (True, False), (True, True)):
            source = loader(videos, (frames, size), batch, workers, train, kept if keep else 0)
            if keep and not source.keeps:
                show.say(f"the videos do not fit into --memory {memory}: none is kept")
                continue
            decoding = measure_decoding(source, limit)
            show(decoding)
            for line in decoding.timed:
                show.say(f"{1 / line.median:.0f} clips a second")
        for name, entry in networks:
            _, depth, _, side = entry.clip
            source = loader(videos, (depth, side), batch, workers, memory=kept)
            show(measure_waiting(source, name, limit)[0])


@app.command(cls=Command)
def compare(
    before: Annotated[Path, typer.Argument(help="A JSON file of an earlier run.")],
    after: Annotated[Path, typer.Argument(help="One of a later run.")],
) -> None:
    """Compare two runs: what became faster, slower, or stayed the same.

    Where both runs timed the same peer, ours is measured by it, so that a
    busier machine does not look like a slower kernel.
    """
    from tinyvid.bench.results import compare as changes_of
    from tinyvid.bench.results import read, told

    changes, notes = changes_of(read(before), read(after))
    if not changes:
        raise UserError(f"{before} and {after} have nothing in common that was timed")
    console = new_console()
    width = max(len(change.what) for change in changes)
    for change in changes:
        through = f"  (by {change.through})" if change.through else ""
        console.print(
            f"{change.what:{min(width, 60)}}  {told(change.speed)}{through}",
            style=STYLES[change.verdict],
            markup=False,
        )
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False)


def _limit(seconds: float | None, quick: bool) -> float:
    if seconds is not None and not seconds > 0:
        raise UserError(f"--seconds {seconds:g}: more than 0")
    return seconds or (3.0 if quick else 20.0)


# ---- a user's own variants -----------------------------------------------------------------------


def _added_by(script: Path, op: str) -> list[str]:
    """Run a file, importable by its own name, and return the variants that it added to `op`."""
    from tinyvid.kernels import kernels

    if not script.is_file():
        raise UserError(f"--with {script}: no such file")
    if not script.stem.isidentifier() or script.suffix != ".py":
        raise UserError(f"--with {script}: a Python file whose name can be imported, my_conv.py")

    def names() -> list[tuple[str, str]]:
        return [(k.name, name) for k in kernels() if k.op == op for name in k.variants]

    before = names()
    sys.path.insert(0, str(script.resolve().parent))
    try:
        importlib.import_module(script.stem)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--with {script}: {type(error).__name__}: {error}") from error
    added = list(dict.fromkeys(name for kernel, name in names() if (kernel, name) not in before))
    if not added:
        raise UserError(
            f"--with {script}: it adds no variant of {op}; write, for example,\n"
            f"  from tinyvid.kernels import {op}_fprop\n"
            f'  {op}_fprop.add("cpu/mine", "{script.stem}:fprop")'
        )
    return added


def _check_added(op: str, added: list[str], device: str, show: Show) -> None:
    """Check a user's variants as `tinyvid gradcheck` does: all cases, first and second derivatives.

    Raises:
        typer.Exit: one does not pass; nothing is timed then.
    """
    from tinyvid.checking.suite import jobs

    passed = True
    for name in added:
        for row in (job.run() for job in jobs(op, None, device) if job.variant == name):
            verdict = "pass" if row.passed else "FAIL"
            show.say(
                f"{row.op} {row.pass_} {row.variant} {row.dtype}: {row.cases} cases, {verdict}",
                "" if row.passed else "bold red",
            )
            for failure in row.failures[:3]:
                show.say(f"  {failure}")
            passed &= row.passed
    if not passed:
        raise typer.Exit(1)
