"""`tinyvid kernels`: looking into CUDA kernels without a GPU."""

from __future__ import annotations

import linecache
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinyvid.cli import certificate
from tinyvid.cli.launches import Planned, planned
from tinyvid.cli.shown import Command, Group
from tinyvid.errors import UserError, nearest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tinyvid.kernels.emulator.check import Report
    from tinyvid.kernels.emulator.found import Finding, LineCount

app = typer.Typer(cls=Group, no_args_is_help=False, rich_markup_mode="rich")

LEGEND = """\
moved   shared: wavefronts, each one word from every bank; global: sectors of 32 bytes
fewest  how few would do for as many lanes and bytes; a ratio of 1.00x is perfect"""


@app.callback(invoke_without_command=True)
def kernels(
    context: typer.Context,
    variant: Annotated[
        str | None, typer.Option(help="A variant or a target: cuda/tiled, cuda, reference.")
    ] = None,
    op: Annotated[
        str | None, typer.Option(help="An operation: conv3d. What is known of its kernels.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="What is known of all kernels, 1500 lines.")
    ] = False,
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="Run every check anew; takes minutes, and the extra tinyvid[inspect]."
        ),
    ] = False,
) -> None:
    """List the kernels: which variants there are, and on which devices they run.

    --op, --variant and --all tell what is checked of each, what it compiles to and what bounds it.
    No GPU is needed, and no time was measured on one.
    """
    if context.invoked_subcommand is not None:
        return
    if everything and (op or variant):
        raise UserError("--all tells of every kernel: leave out --op and --variant, or --all")
    if everything or op or variant or run:
        certificate.show(variant, op, run)
    else:
        certificate.overview()


@app.command(cls=Command)
def check(
    files: Annotated[list[Path], typer.Argument(help="CUDA C++ files.")],
    kernel: Annotated[str | None, typer.Option(help="The kernel to launch, such as saxpy.")] = None,
    grid: Annotated[str | None, typer.Option(help="Blocks: 4 or 4,2,1.", show_default="1")] = None,
    block: Annotated[
        str | None, typer.Option(help="Threads of a block: 256 or 16,16.", show_default="1")
    ] = None,
    shared: Annotated[
        int | None, typer.Option(help="Bytes of dynamic shared memory.", show_default="0")
    ] = None,
    cooperative: Annotated[
        bool, typer.Option("--cooperative", help="All blocks at once, for grid_sync().")
    ] = False,
    arg: Annotated[
        list[str] | None, typer.Option(help="An argument: x=[1000]:random, k=int[9] or n=1000.")
    ] = None,
    define: Annotated[
        list[str] | None, typer.Option("--define", "-D", help="A macro: N=5.")
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option("--with", help="A Python file whose launch(module) makes the launches."),
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="Who goes first: forward, reversed, shuffled or all.")
    ] = "all",
    copies: Annotated[str, typer.Option(help="When cp.async lands: late, early or all.")] = "all",
    seed: Annotated[int, typer.Option(help="Of shuffled.")] = 1,
    counts: Annotated[
        bool, typer.Option("--counts/--no-counts", help="Count what each line's accesses cost.")
    ] = True,
    only: Annotated[
        str,
        typer.Option(
            help="Of a file with several launches: the one of this name, such as 'dgrad plain'; "
            "else all whose names hold it."
        ),
    ] = "",
) -> None:
    """Run kernels on the CPU and look for races and accesses out of place.

    Finds races within a block and between blocks, accesses out of bounds,
    reads of what nobody wrote, divergent barriers, misaligned vectors and
    asynchronous copies not waited for; and counts bank conflicts and
    memory sectors for each line.

    What to launch stands in comments of the file,

        // check: saxpy grid=4 block=256 a=2.5 x=[1000] y=[1000]:zeros n=1000

    or in the options (--kernel saxpy --grid 4 --arg x=[1000] ...), or in a
    Python file. A copy of a file of tinyvid's own runs on all its cases.

    The exit code is 0 when nothing is found, 1 when something is, and 2 when
    a file cannot be checked or the command makes no sense; of several files
    the highest. Ctrl-C ends a kernel that does not, with 130.
    """
    from rich.console import Console

    from tinyvid.kernels.emulator.settings import COPIES, SCHEDULES

    schedules = _chosen("--schedule", schedule, SCHEDULES)
    landings = _chosen("--copies", copies, COPIES)
    words = None
    parts = {"--grid": grid, "--block": block, "--shared": shared, "--arg": arg}
    given = [option for option, value in parts.items() if value is not None]
    given += ["--cooperative"] * cooperative
    if kernel is None and given:
        raise UserError(
            f"{', '.join(given)} belong{'s' * (len(given) == 1)} to a launch: name its --kernel, "
            "too; launches in a file's comments and in Python have their own"
        )
    if kernel is not None:
        if script is not None:
            raise UserError("--kernel and --with both say what to launch: give one of them")
        words = [kernel, f"grid={grid or 1}", f"block={block or 1}", f"shared={shared or 0}"]
        words += [f"cooperative={int(cooperative)}", *(arg or [])]
    console = Console()

    def check_file(file: Path) -> int:
        with planned(file, words, define or [], script, only) as plan:
            return _run(file, plan, schedules, landings, seed, counts, console)

    worst = 0
    for file in files:
        try:
            worst = max(worst, check_file(file))
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            worst = 2
    if worst:
        raise typer.Exit(worst)


def _chosen(option: str, value: str, known: tuple[str, ...]) -> tuple[str, ...]:
    if value == "all":
        return known
    if value not in known:
        raise UserError(
            f"{option} {value}: it is one of all, {', '.join(known)}.{nearest(value, known)}"
        )
    return (value,)


# ---- running -----------------------------------------------------------------------------------


def _run(
    file: Path,
    plan: Planned,
    schedules: tuple[str, ...],
    copies: tuple[str, ...],
    seed: int,
    counts: bool,
    console: Console,
) -> int:
    """Check the launches of a file, and print what is found; returns the exit code.

    Raises:
        UserError: nothing is launched, or a script of the user's raises.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from tinyvid.kernels.emulator import KernelInterrupted
    from tinyvid.kernels.emulator.check import Report, check

    report = Report()
    first_in: dict[tuple, str] = {}  # key of a finding -> the launch in which it came first
    ended: list[str] = []
    start = time.perf_counter()

    def tell() -> None:
        seconds = time.perf_counter() - start
        notes = plan.left_out()
        left = "a fault ended it, and left out what it launches after that"
        notes += [f"{name}: {left}" for name in ended]
        notes += [] if report.findings else plan.unwritten()  # else results mean little
        _tell(file, report, first_in, seconds, len(plan.launches), notes, console)

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    try:
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress:
            task = progress.add_task("", total=len(plan.launches))
            for name, run in plan.launches:
                progress.update(task, description=name)
                before = report.cut_short
                try:
                    check(run, schedules, copies, seed, counts, report)
                finally:
                    for finding in report.findings:
                        first_in.setdefault(finding.key, name)
                ended += [name] * (report.cut_short > before)
                progress.advance(task)
    except UserError:
        if report.findings:
            tell()
        raise
    except KernelInterrupted as stop:
        if report.findings:
            tell()
        typer.echo(
            f"stopped: {stop}.\nA thread that waits for another one to write waits for ever here: "
            "the others run only when it comes to a barrier.",
            err=True,
        )
        raise typer.Exit(130) from None
    if not report.launches:
        raise UserError(f"{plan.launches[0][0]}: it launches nothing")
    tell()
    return 1 if report.findings else 0


# ---- what is printed ---------------------------------------------------------------------------


def _tell(
    file: Path,
    report: Report,
    first_in: dict[tuple, str],
    seconds: float,
    cases: int,
    notes: list[str],
    console: Console,
) -> None:
    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line(str(file), "bold")
    if report.counts:
        console.print(table(report.counts, console.width), highlight=False)
        line(LEGEND, "dim")
    for finding in report.findings:
        line(f"\n{finding.sentence}", "red")
        for row in _source(finding, file):
            line(row, "dim")
        if cases > 1:
            line(f"  first in {first_in[finding.key]}", "dim")
    count = len(report.findings)
    for note in notes:
        line(f"note: {note}", "yellow")
    ran = _number(report.launches, "launch", "es") + (f" of {cases} cases" if cases > 1 else "")
    if count:
        line(f"{_number(count, 'finding')} in {ran}, {seconds:.1f} s", "bold red")
    else:
        line(f"nothing found in {ran}, {seconds:.1f} s", "bold green")


def _source(finding: Finding, file: Path) -> list[str]:
    """Return the lines that a finding names, each with those from where its function was called."""
    # At the end of a copy it is found that the source has changed.
    led = "waits" if finding.kind == "source changed during copy" else "from"
    ends = [(finding.action, finding.place, led, finding.callers)]
    if finding.other_place is not None:
        ends.append((finding.other_action, finding.other_place, "from", finding.other_callers))
    rows = []
    for action, place, led, callers in ends:
        for what, one in [(action, place), *((led, caller) for caller in callers)]:
            text = linecache.getline(one.file, one.line).strip()
            name = Path(one.file).name
            row = (what, str(one.line) if name == file.name else f"{name}:{one.line}", text)
            if text and row not in rows:
                rows.append(row)
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    return [f"  {what:{widths[0]}} {where:>{widths[1]}}  {text}" for what, where, text in rows]


def _number(count: int, of: str, several: str = "s") -> str:
    return f"{count} {of}{several * (count != 1)}"


def table(counts: list[LineCount], width: int = 80) -> Table:
    """Return what lines cost as a table `width` columns wide: at the right as much of the source
    as there is room for."""
    from rich.table import Table
    from rich.text import Text

    files = {count.place.file for count in counts}
    rows = []
    for c in counts:
        place = f"{Path(c.place.file).name}:{c.place.line}" if len(files) > 1 else str(c.place.line)
        numbers = map(str, (c.bytes, c.requests, c.moved, c.fewest))
        rows.append([place, f"{c.space} {c.access}", *numbers, f"{c.ratio:.2f}x"])
    names = ["line", "access", "bytes", "requests", "moved", "fewest", "ratio"]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    room = width - sum(widths) - len(widths)
    found = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name, size in zip(names, widths, strict=True):
        justify: Literal["left", "right"] = "left" if name == "access" else "right"
        found.add_column(name, justify=justify, min_width=size, no_wrap=True)
    found.add_column("", no_wrap=True, style="dim")
    for c, row in zip(counts, rows, strict=True):
        text = linecache.getline(c.place.file, c.place.line).strip()
        if len(text) > room:
            text = text[: room - 1] + "…" if room > 8 else ""
        style = "yellow" if c.moved > c.fewest else ""
        found.add_row(*row[:-1], Text(row[-1], style=style), Text(text))
    return found
