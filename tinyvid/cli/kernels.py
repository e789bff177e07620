"""`tinyvid kernels`: looking into CUDA kernels without a GPU."""

from __future__ import annotations

import linecache
import runpy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinyvid.cli import certificate
from tinyvid.errors import UserError, nearest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tinyvid.kernels.emulator.check import Report
    from tinyvid.kernels.emulator.report import LineCount

app = typer.Typer(no_args_is_help=False, rich_markup_mode="rich")

LEGEND = """\
moved   shared: wavefronts, each one word from every bank; global: sectors of 32 bytes
fewest  how few would do for as many lanes and bytes; 1.00x is perfect"""

Launches = list[tuple[str, Callable[[], object]]]


@app.callback(invoke_without_command=True)
def kernels(
    context: typer.Context,
    variant: Annotated[
        str | None, typer.Option(help="A variant or a target: cuda/tiled, cuda, reference.")
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run every check anew; takes minutes.")
    ] = False,
) -> None:
    """List the kernels: what is checked of each, what it compiles to, what bounds it.

    No GPU is needed, and no time was measured on one.
    """
    if context.invoked_subcommand is None:
        certificate.show(variant, run)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="CUDA C++ files.")],
    kernel: Annotated[str | None, typer.Option(help="The kernel to launch, such as saxpy.")] = None,
    grid: Annotated[str, typer.Option(help="Blocks: 4 or 4,2,1.")] = "1",
    block: Annotated[str, typer.Option(help="Threads of a block: 256 or 16,16.")] = "1",
    shared: Annotated[int, typer.Option(help="Bytes of dynamic shared memory.")] = 0,
    cooperative: Annotated[
        bool, typer.Option("--cooperative", help="All blocks at once, for grid_sync().")
    ] = False,
    arg: Annotated[
        list[str] | None, typer.Option(help="An argument: x=[1000]:random or n=1000.")
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
        typer.Option(help="Of a file of tinyvid's: launches named so, such as 'dgrad plain'."),
    ] = "",
) -> None:
    """Run kernels on the CPU and look for races and accesses out of place.

    Finds races within a block and between blocks, accesses out of bounds,
    reads of what nobody wrote, divergent barriers, misaligned vectors and
    asynchronous copies not waited for; and counts bank conflicts and
    memory sectors for each line. The exit code is 1 if something is found.

    What to launch stands in comments of the file,

        // check: saxpy grid=4 block=256 a=2.5 x=[1000] y=[1000]:zeros n=1000

    or in the options (--kernel saxpy --grid 4 --arg x=[1000] ...), or in a
    Python file. A copy of a file of tinyvid's own runs on all its cases.
    """
    from rich.console import Console

    from tinyvid.kernels.emulator.settings import COPIES, SCHEDULES

    schedules = _chosen("--schedule", schedule, SCHEDULES)
    landings = _chosen("--copies", copies, COPIES)
    words: list[str] | None = None
    if kernel is not None:
        words = [kernel, f"grid={grid}", f"block={block}", f"shared={shared}"]
        words += [f"cooperative={int(cooperative)}", *(arg or [])]
    elif arg:
        raise UserError("--arg belongs to a launch: name its --kernel, too")
    console = Console()
    found = 0
    for file in files:
        with _launches(file, words, define or [], script) as (launches, notes):
            chosen = [launch for launch in launches if only in launch[0]]
            if not chosen:
                names = [name for name, _ in launches]
                raise UserError(f"{file}: no launch is named {only!r}.{nearest(only, names)}")
            report, first_in, seconds = _run(chosen, schedules, landings, seed, counts, console)
            _tell(file, report, first_in, seconds, len(chosen), notes(), console)
            found += len(report.findings)
    if found:
        raise typer.Exit(1)


def _chosen(option: str, value: str, known: tuple[str, ...]) -> tuple[str, ...]:
    if value == "all":
        return known
    if value not in known:
        raise UserError(
            f"{option} {value}: it is one of all, {', '.join(known)}.{nearest(value, known)}"
        )
    return (value,)


@contextmanager
def _launches(
    file: Path, words: list[str] | None, define: list[str], script: Path | None
) -> Iterator[tuple[Launches, Callable[[], list[str]]]]:
    """Yield what to launch of a file, and what there is to say of it afterwards."""
    from tinyvid.kernels import files, launch
    from tinyvid.kernels.emulator import options
    from tinyvid.kernels.emulator.written import Runner, in_file, parse

    if not file.is_file():
        raise UserError(f"{file}: no such file")
    defines = [f"-D{text}" for text in define]
    written = [parse([*words, *defines], "the options")] if words else in_file(file)
    original = files.original_of(file)
    with options(checked=True):
        if script is not None and not words:
            function = _function_of(script)
            module = launch.load(file, dict(_macro(text) for text in define), "emulator")
            yield [(script.name, lambda: function(module))], list
        elif written:
            for one in written:
                one.defines.update(_macro(text) for text in define)
            runner = Runner(file, written)
            yield [(", ".join(one.kernel for one in written), runner)], lambda: _notes(runner)
        elif original is not None:
            with launch.stand_in(original, file):
                yield list(files.launches_of(original)), list
        else:
            raise UserError(
                f"{file}: nothing says how to launch it; write above its kernel, for example\n"
                "  // check: saxpy grid=4 block=256 a=2.5 x=[1000] y=[1000]:zeros n=1000\n"
                "or use --kernel and --arg, or --with a Python file"
            )


def _macro(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier():
        raise UserError(f"--define {text}: write NAME or NAME=value")
    return name, value if equals else "1"


def _function_of(script: Path) -> Callable:
    if not script.is_file():
        raise UserError(f"{script}: no such file")
    function = runpy.run_path(str(script)).get("launch")
    if not callable(function):
        raise UserError(f"{script}: it must define launch(module), which makes the launches")
    return function


def _notes(runner) -> list[str]:
    return [
        f"{place}: {missing} of {size} elements were never written"
        for place, (missing, size) in runner.unwritten.items()
    ]


def _run(
    launches: Launches,
    schedules: tuple[str, ...],
    copies: tuple[str, ...],
    seed: int,
    counts: bool,
    console: Console,
) -> tuple[Report, list[str], float]:
    """Return what was found, in which launch each finding came first, and the seconds it took."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from tinyvid.kernels.emulator.check import Report, check

    report = Report()
    first_in: list[str] = []
    start = time.perf_counter()
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=len(launches))
        for name, run in launches:
            progress.update(task, description=name)
            check(run, schedules, copies, seed, counts, report)
            first_in += [name] * (len(report.findings) - len(first_in))
            progress.advance(task)
    return report, first_in, time.perf_counter() - start


# ---- what is printed ---------------------------------------------------------------------------


def _tell(
    file: Path,
    report: Report,
    first_in: list[str],
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
    for finding, name in zip(report.findings, first_in, strict=True):
        line(f"\n{finding}", "red")
        # The lines themselves, and where this file called a helper that they stand in.
        callers = [c for c in finding.callers if Path(c.file).name == file.name]
        for place in dict.fromkeys([finding.place, finding.other_place, *callers]):
            text = linecache.getline(place.file, place.line).strip() if place else ""
            if place and text:
                where = place.line if Path(place.file).name == file.name else str(place)
                line(f"  {where:>5}  {text}", "dim")
        if cases > 1:
            line(f"  first in {name}", "dim")
    count = len(report.findings)
    for note in notes if not count else []:  # after a finding, results mean little
        line(f"note: {note}", "yellow")
    ran = f"{report.launches} launches" + (f" of {cases} cases" if cases > 1 else "")
    if count:
        line(f"{count} finding{'s' * (count > 1)} in {ran}, {seconds:.1f} s", "bold red")
    else:
        line(f"nothing found in {ran}, {seconds:.1f} s", "bold green")


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
    names = ["line", "access", "bytes", "requests", "moved", "fewest", ""]
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
