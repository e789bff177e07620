"""Launches `tensor_core.cu`: a kernel that rounds each operand, and one that multiplies them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyvid.geometry import ConvGeometry, Ints
from tinyvid.kernels.conv3d.plan import BLOCKS, Plan, lost, matrix_product, tiles

_ROWS, _WIDTHS = 128, (128, 64, 32)  # of a block's tile, as in fragments.cuh
_SLAB = 512  # terms whose places are looked up in a table, the least that a slice has
_SLABS_A_TOTAL = 2  # so many are summed up before they are added to the total
_ROUND_THREADS = 256


def plan(number: str, pass_: str, geometry: ConvGeometry, dtype: np.dtype) -> Plan:
    """Return the plan of a pass in a number format, `tf32` or `bf16`.

    The launch is that of the product. `workspace` are the rounded operands, given as float32:
    lines of a group's channels, each with zeros up to a whole chunk of 16 bytes; and what totals
    have lost.
    """
    size = {"tf32": 4, "bf16": 2}[number]
    chunk, depth = 16 // size, 64 // size
    row_tiles, columns, terms = matrix_product(pass_, geometry, _ROWS, depth, chunk)
    width = min(_WIDTHS, key=lambda width: (tiles(columns, width) * width, -width))
    blocks = row_tiles * tiles(columns, width) * geometry.groups
    slices = max(1, min(BLOCKS // blocks, tiles(terms, _SLAB)))
    rounded = [(lines, tiles(n, chunk) * 4) for lines, n in _lines(pass_, geometry)]
    of_totals = lost(pass_, geometry, terms, slices, _SLABS_A_TOTAL * _SLAB)
    return Plan(
        blocks * slices,
        2 * width,
        slices=slices,
        constants={"TILE_COLUMNS": width},
        workspace=(*rounded, of_totals),
    )


def launch(
    number: str,
    module: Any,
    pass_: str,
    geometry: ConvGeometry,
    plan: Plan,
    operands: list[Any],
    finish: list[Any],
    out: Any,
    workspace: list[Any],
) -> None:
    """Fill `out`, the output as it lies in memory or its slices, from the operands; see `Step`."""
    round_lines = module.get_function(f"conv3d_round_{number}")
    chunk = {"tf32": 4, "bf16": 8}[number]
    *rounded_operands, of_totals = workspace
    for operand, (lines, channels), rounded in zip(
        operands, _lines(pass_, geometry), rounded_operands, strict=True
    ):
        blocks = tiles(lines * tiles(channels, chunk), _ROUND_THREADS)
        args = [operand, np.int64(lines), np.int32(channels), rounded]
        round_lines((blocks,), (_ROUND_THREADS,), args)
    product = module.get_function(f"conv3d_{pass_}_{number}")
    product((plan.blocks,), (plan.threads,), [*rounded_operands, *finish, out, of_totals])


def _lines(pass_: str, geometry: ConvGeometry) -> list[Ints]:
    """Return how many lines each operand of a pass has, and how many channels a line."""
    K, group_C, *taps = geometry.w
    cells = {letter: getattr(geometry, letter) for letter in "xy"}
    of = {
        letter: (shape[0] * math.prod(shape[2:]) * geometry.groups, shape[1] // geometry.groups)
        for letter, shape in cells.items()
    }
    of["w"] = K * math.prod(taps), group_C
    return [of[letter] for letter in {"fprop": "xw", "dgrad": "yw", "wgrad": "yx"}[pass_]]
