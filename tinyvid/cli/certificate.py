"""`tinyvid kernels`: which variants there are, and their certificate as tables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from tinyvid.cli.inspect import PIPED_WIDTH

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Rich

    from tinyvid.kernels.certificate import Table

NOTES = """\
cpu/* run on the device cpu, cuda/* and numba/* on cuda and emulator, the
reference on cpu and emulator; numba/*, and those that round operands
(tf32, bf16), run only when asked for by name.
What is known of them: --op OP, --variant VARIANT or --all."""


def overview() -> None:
    """Print the variants of each operation's passes, a line for each target."""
    from rich.text import Text

    from tinyvid.kernels import kernels
    from tinyvid.kernels.certificate import CHECKED, FAILED, read

    written = next(table for table in read() if table.title == CHECKED)
    passed = {row[:3]: FAILED not in row for row in written.rows}
    passes: dict[tuple[str, str], list[str]] = {}  # (operation, its lines) -> passes
    for kernel in kernels():
        targets: dict[str, list[str]] = {}
        for name, variant in kernel.variants.items():
            good = passed.get((kernel.op, kernel.pass_, name))
            mark = "" if good else "?" if good is None else "!"
            targets.setdefault(variant.target, []).append(
                (name.partition("/")[2] or "NumPy loop nests") + mark
            )
        lines = "\n".join(f"  {target:9} {', '.join(of)}" for target, of in targets.items())
        passes.setdefault((kernel.op, lines), []).append(kernel.pass_)
    out = _console()
    for (op, lines), of in passes.items():
        out.print(Text.assemble((op, "bold"), f" {', '.join(of)}\n{lines}"))
    notes = NOTES
    if any("?" in lines for _, lines in passes):
        notes += "\n? not in the certificate yet"
    if any("!" in lines for _, lines in passes):
        notes += "\n! failed a check when the certificate was written"
    out.print(Text(f"\n{notes}", style="dim"))


def show(variant: str | None, op: str | None, run: bool) -> None:
    """Print the certificate, of all variants or of one variant, target or operation.

    Args:
        variant: such as `cuda/tiled`, or `cuda`. op: such as `conv3d`.
        run: run all checks and compile anew; else print what is written down.

    Raises:
        UserError: there is no such variant or operation, or a tool is missing.
    """
    from tinyvid.kernels.certificate import FAILED, certificate, read

    tables = certificate(True, variant, op) if run else read(variant, op=op)
    out = _console()
    for table in tables:
        if not table.rows:
            continue
        out.print(f"\n[bold]{table.title}[/]")
        rich = _rich(table)
        if out.measure(rich, options=out.options.update(max_width=1000)).maximum <= out.width:
            out.print(rich)
        else:
            out.print(_lines(table), markup=False)
        out.print(table.about, style="dim", markup=False)
    if not run:
        out.print("\nAs written down in kernels/README.md; --run checks anew.", style="dim")
    elif any(FAILED in row for table in tables for row in table.rows):
        raise typer.Exit(1)


def _console() -> Console:
    from rich.console import Console

    out = Console(highlight=False)
    if not (out.is_terminal or "COLUMNS" in os.environ):
        out = Console(highlight=False, width=PIPED_WIDTH)
    return out


def _rich(table: Table) -> Rich:
    from rich import box
    from rich.table import Table as Rich

    found = Rich(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in table.header:
        found.add_column(name, overflow="fold")
    for row in table.rows:
        found.add_row(*row)
    return found


def _lines(table: Table) -> str:
    """Return the rows one below the other, for a narrow terminal."""
    from tinyvid.kernels.certificate import KEYS

    lines = []
    for row in table.rows:
        cells = dict(zip(table.header, row, strict=True))
        lines.append(" ".join(cells[name] for name in KEYS if name in cells))
        told = [f"{name}: {text}" for name, text in cells.items() if name not in KEYS]
        lines.append("  " + "; ".join(told))
    return "\n".join(lines)
