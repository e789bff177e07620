"""`tinyvid models`, `tinyvid summary`, `tinyvid budget`: tables of what there is."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyvid.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tinyvid.summary import Row

LEGEND = """\
RF         receptive field of a unit, clipped to the clip [unclipped, if larger]
MACs       multiply-accumulates: convolutions, linear layers, LSTMs
FLOPs      floating-point operations, 2 for each multiply-accumulate
training   bytes kept for one clip's backward pass: what each layer gave, where
           convolution, ReLU and pooling do not run as one operation
inference  bytes alive while a layer runs; in total, their peak"""
PIPED_WIDTH = 200  # no terminal, no reason to break lines


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the networks: their clip, parameters, arithmetic, and what they are.

    Parameters and multiply-accumulates are those for one clip of the size that
    the network is meant for, and for 10 classes (the full-size networks: those
    of their paper, 487 or 101).
    """
    from tinyvid import models as networks
    from tinyvid import nn
    from tinyvid.summary import summarise, total
    from tinyvid.trace import size_text

    listed = []
    for name in networks.names():
        entry = networks.entry(name)
        with nn.shapes_only():
            sums = total(summarise(networks.build(name, entry.classes), entry.clip))
        listed.append((name, entry, sums))
    if as_json:
        _print_json(
            [
                {
                    "name": name,
                    "clip": entry.clip,
                    "classes": entry.classes,
                    "parameters": sums.parameters,
                    "macs": sums.macs,
                    "description": entry.line,
                }
                for name, entry, sums in listed
            ]
        )
        return
    table = _table("network", "clip C×T×H×W", ">params", ">MACs", "what it is")
    for name, entry, sums in listed:
        table.add_row(
            name, size_text(entry.clip), count(sums.parameters), count(sums.macs), entry.line
        )
    _console().print(table)


def summary(
    names: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Networks; `tinyvid models` lists them.")
    ],
    clip: Annotated[
        str | None, typer.Option(help="Size of the clip, C×T×H×W, such as 3x20x64x64.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    every_layer: Annotated[
        bool, typer.Option("--all", help="A row for ReLU, normalisation and dropout too.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="An option of the network: width=32. May be repeated.",
            metavar="<key=value>",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Clips of the training step.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")] = False,
) -> None:
    """Show a network layer by layer: sizes, receptive fields, arithmetic, memory.

    Sizes are those of one clip; below the tables, the most memory that a step
    of training holds. Nothing is computed, so that large networks take no
    longer.
    """
    from tinyvid import models as networks
    from tinyvid import nn
    from tinyvid.budget import binary
    from tinyvid.step_memory import step_memory
    from tinyvid.summary import summarise, total
    from tinyvid.trace import size_text

    options = dict(_option(text) for text in option or [])
    console, every = _console(), []
    for name in names:
        entry = networks.entry(name)
        sizes = entry.clip if clip is None else _clip(clip)
        with nn.shapes_only():
            scores = entry.classes if classes is None else classes
            model = networks.build(name, scores, sizes, **options)
        rows = summarise(model, sizes, fold=not every_layer)
        if as_json or as_csv:
            every += [{"model": name, **row.as_dict()} for row in rows]
            continue
        console.print(f"\n[bold]{name}[/]  clip {size_text(sizes)}, {scores} classes: {entry.line}")
        _print_rows(console, rows, total(rows))
        convs = sum(row.macs for row in rows if row.layer.startswith("Conv"))
        console.print(f"convolutions alone: {count(convs)}MAC = {count(2 * convs)}FLOP")
        peak = binary(step_memory(model, sizes, batch).peak)
        console.print(f"a training step on {batch} clips holds {peak} of arrays (SGD, CPU)")
    if as_json:
        _print_json(every)
    elif as_csv:
        _print_csv(every)
    else:
        console.print("\n" + LEGEND, style="dim", markup=False)


def budget(
    seconds: Annotated[float, typer.Option(help="Length of the clip.")] = 3.2,
    fps: Annotated[float, typer.Option(help="Frames per second of the clip.")] = 5.0,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 112,
    height: Annotated[int | None, typer.Option(help="Height, if it is not --size.")] = None,
    width: Annotated[int | None, typer.Option(help="Width, if it is not --size.")] = None,
    bits: Annotated[int, typer.Option(help="Bits a pixel, all channels together.")] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show how many bytes a clip takes, and how many a minute of raw video."""
    from tinyvid.budget import RAW_VIDEOS, binary
    from tinyvid.budget import budget as work_out

    clip = work_out(
        seconds, fps, size if height is None else height, size if width is None else width, bits
    )
    raw = [(f"{clip.width}×{clip.height}", clip)]
    raw += [(name, work_out(60, rate, h, w, bits)) for name, h, w, rate in RAW_VIDEOS]
    if as_json:
        _print_json(
            {
                "frames": clip.frames,
                "height": clip.height,
                "width": clip.width,
                "bits": bits,
                "frame_bytes": clip.frame_bytes,
                "clip_bytes": clip.clip_bytes,
                "raw_minute_bytes": {f"{name}@{b.fps:g}": b.minute_bytes for name, b in raw},
            }
        )
        return
    table = _table("", "frames", "size W×H", ">bytes", ">that is")
    table.add_row(
        f"the clip: {seconds:g} s, {fps:g} fps",
        str(clip.frames),
        f"{clip.width}×{clip.height}",
        f"{clip.clip_bytes:,}",
        binary(clip.clip_bytes),
    )
    table.add_section()
    for name, b in raw:
        table.add_row(
            f"a minute of raw video, {b.fps:g} fps",
            f"{60 * b.fps:g}",
            name,
            f"{b.minute_bytes:,}",
            binary(b.minute_bytes),
        )
    _console().print(table)


def count(number: int) -> str:
    """Return a count to four digits in thousands (k), millions (M) or billions (G).

    >>> count(78_409_573)
    '78.41 M'
    """
    value, unit = float(number), ""
    for larger in ("k", "M", "G", "T"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:#.4g} {unit}" if unit else str(number)


def _print_rows(console: Console, rows: list[Row], total: Row) -> None:
    """Print one table, or where the terminal is too narrow for it, two with half the columns."""
    from rich.measure import Measurement

    wide = _rows_table(rows, total, shape=True, cost=True)
    needed = Measurement.get(console, console.options.update(max_width=1000), wide).maximum
    if needed <= console.width:
        console.print(wide)
        return
    console.print(_rows_table(rows, total, shape=True, cost=False))
    console.print(_rows_table(rows, total, shape=False, cost=True))


def _rows_table(rows: list[Row], total: Row, *, shape: bool, cost: bool) -> Table:
    from tinyvid.budget import binary
    from tinyvid.trace import size_text

    columns = ["name"]
    if shape:
        columns += ["layer", *["then"] * cost, "size", "RF T×H×W"]
    if cost:
        columns += [">params", ">MACs", ">FLOPs", ">training", ">inference"]
    table = _table(*columns)

    def add(row: Row, *, last: bool = False) -> None:
        cells = [row.name]
        if shape:
            field = ""
            if last:
                pass
            elif row.receptive_field is None or row.clipped is None:
                field = "?"
            else:
                field = size_text(row.clipped)
                if row.receptive_field != row.clipped:
                    field += rf" \[{size_text(row.receptive_field)}]"
            # ReLU and the like: left out where the terminal is narrow
            then = ", ".join(re.sub(r"\(.*\)", "", layer) for layer in row.then)
            cells += [row.layer, *[then] * cost, "" if last else size_text(row.size), field]
        if cost:
            cells += [
                f"{row.parameters:,}" if row.parameters else "",
                count(row.macs) if row.macs else "",
                count(row.flops) if row.macs else "",
                binary(row.training_bytes) if row.training_bytes else "",
                binary(row.inference_bytes),
            ]
        table.add_row(*cells, style="bold" if last else None)

    for row in rows:
        add(row)
    if cost:
        table.add_section()
        add(total, last=True)
    return table


def _console() -> Console:
    from rich.console import Console

    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console(highlight=False)
    return Console(highlight=False, width=PIPED_WIDTH)


def _table(*columns: str) -> Table:
    """Return an empty table; the columns whose heading begins with ">" are aligned right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left")
    return table


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_csv(rows: list[dict[str, Any]]) -> None:
    from tinyvid.trace import size_text

    def text(value: Any) -> Any:
        if not isinstance(value, tuple):
            return value
        return ", ".join(value) if value and isinstance(value[0], str) else size_text(value)

    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: text(value) for key, value in row.items()} for row in rows)


def _clip(text: str) -> tuple[int, ...]:
    """Return the sizes in `3x20x64x64`; × and commas separate them as well."""
    parts = re.split("[x×X,]", text)
    if len(parts) != 4 or not all(p.strip().isdecimal() for p in parts):
        raise UserError(
            f"--clip {text}: give channels, frames, height and width, such as 3x20x64x64"
        )
    return tuple(int(p) for p in parts)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--option {text}: write name=value, such as width=32")
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value.strip()
