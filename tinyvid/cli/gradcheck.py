"""`tinyvid gradcheck`: the suite of gradient checks as a table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tinyvid.checking.suite import Job, Row

TOLD = 3  # failures of a row that are told below the table
LEGEND = """\
vs ref    largest difference from the reference in float64
gradient  largest error of first and second derivatives, against differences
          (both relative to the largest element of the array)"""


def gradcheck(
    op: Annotated[
        str | None, typer.Option(help="An operation, or a pass of one: conv3d, conv3d_dgrad.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="A variant or a target: cpu/im2col, cpu, reference, numpy.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the kernels run.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; both by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Take the first few cases only.")] = False,
) -> None:
    """Check every operation, and each pass and variant of the kernels.

    A variant is compared with its reference, and the derivatives of every
    operation with differences. The exit code is 1 if a check fails.
    """
    from rich.console import Console

    from tinyvid.checking.suite import jobs

    chosen = jobs(op, variant, device, dtype, quick)
    console = Console()
    start = time.perf_counter()
    rows = _run(chosen, console)
    seconds = time.perf_counter() - start
    console.print(table(rows), highlight=False)
    console.print(LEGEND, style="dim", highlight=False, soft_wrap=True)
    failed = [row for row in rows if not row.passed]
    for row in failed:
        _tell(row, console)
    cases = sum(row.cases for row in rows)
    verdict = f"{len(failed)} of {len(rows)} rows failed" if failed else f"all {len(rows)} passed"
    console.print(
        f"{verdict}: {cases} cases in {seconds:.1f} s",
        style="bold red" if failed else "bold green",
        highlight=False,
        soft_wrap=True,
    )
    if failed:
        raise typer.Exit(1)


def _run(chosen: list[Job], console: Console) -> list[Row]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=len(chosen))
        rows = []
        for job in chosen:
            progress.update(task, description=f"{job.op} {job.pass_} {job.variant} {job.dtype}")
            rows.append(job.run())
            progress.advance(task)
    return rows


def table(rows: list[Row]) -> Table:
    """Return the rows as a table that fits 80 columns."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("op", "pass", "variant", "dtype"):
        found.add_column(name, overflow="fold")
    for name in ("cases", "vs ref", "gradient"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("", no_wrap=True)
    before = None
    for row in rows:
        name = "" if row.op == before else row.op
        before = row.op
        cells = [name, row.pass_, row.variant, row.dtype, str(row.cases)]
        cells += ["–" if e is None else f"{e:.1e}" for e in (row.agreement, row.gradient)]
        found.add_row(*cells, "[green]pass[/green]" if row.passed else "[bold red]FAIL[/bold red]")
    return found


def _tell(row: Row, console: Console) -> None:
    """Print what is wrong in a row."""
    name = " ".join(part for part in (row.op, row.pass_, row.variant, row.dtype) if part)
    console.print(f"\n{name}", style="bold red", highlight=False)
    for failure in row.failures[:TOLD]:
        console.print(f"  {failure}", markup=False, highlight=False, soft_wrap=True)
    if len(row.failures) > TOLD:
        console.print(f"  and {len(row.failures) - TOLD} more", highlight=False)
