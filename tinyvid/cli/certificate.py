"""`tinyvid kernels`: the certificate of the kernels as tables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from tinyvid.cli.inspect import PIPED_WIDTH

if TYPE_CHECKING:
    from rich.table import Table as Rich

    from tinyvid.kernels.certificate import Table


def show(variant: str | None, run: bool) -> None:
    """Print the certificate, of all variants or of one variant or target.

    Args:
        variant: such as `cuda/tiled`, or `cuda`.
        run: run all checks and compile anew; else print what is written down.

    Raises:
        UserError: there is no such variant, or a tool is missing.
    """
    from rich.console import Console

    from tinyvid.kernels.certificate import FAILED, certificate, read

    tables = certificate(True, variant) if run else read(variant)
    out = Console(highlight=False)
    if not (out.is_terminal or "COLUMNS" in os.environ):
        out = Console(highlight=False, width=PIPED_WIDTH)
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
