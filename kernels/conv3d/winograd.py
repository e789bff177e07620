"""Launches `winograd.cu`: the four kernels of a pass, and what lies between them in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry, Ints
from tinyvid.kernels.conv3d.plan import BLOCKS, SLICE, Plan, product_columns, tiles

# About so many bytes hold the transforms of some tiles; then come the next tiles. It decides how
# sums over tiles are cut, so it does not depend on the GPU at hand.
WORKSPACE = 256 * 2**20
_FREQUENCIES, _THREADS = 64, 128  # of winograd.cuh


def plan(pass_: str, geometry: ConvGeometry, dtype: np.dtype) -> Plan:
    """Return the plan of a pass: its launch is that of the products.

    `args` are the tiles of a round and, for wgrad, the slices of their sum. `workspace` are
    the arrays of `winograd.cu`: of fprop and dgrad the filter, the input and the output; of wgrad
    the gradient of the output, the input, the gradient of the filter and what that has lost.

    Raises:
        UserError: the filter, the stride or the dilation is another.
    """
    taps, ones = geometry.w[2:], (1, 1, 1)
    if taps != (3, 3, 3) or geometry.stride != ones or geometry.dilation != ones:
        raise UserError(
            "it takes filters of 3x3x3 taps with stride 1 and dilation 1, not of "
            f"{'x'.join(map(str, taps))} with stride {geometry.stride} and dilation "
            f"{geometry.dilation}"
        )
    chunk, groups = 16 // dtype.itemsize, geometry.groups
    C, K = (tiles(n // groups, chunk) * chunk for n in (geometry.x[1], geometry.w[0]))
    batches = _FREQUENCIES * groups
    rows = 32 * chunk  # of a block's tile
    workspace: tuple[Ints, ...]
    room = WORKSPACE // (batches * (C + K) * dtype.itemsize)
    count = max(1, min(room, _tiles(pass_, geometry)))
    if count > rows:
        count -= count % rows
    if pass_ == "wgrad":
        columns = product_columns(C, chunk)
        blocks = batches * tiles(K, rows) * tiles(C, columns * chunk)
        slices = max(1, min(BLOCKS // blocks, tiles(count, SLICE)))
        workspace = (
            (_FREQUENCIES, groups, count, K),
            (_FREQUENCIES, groups, count, C),
            *2 * ((slices, _FREQUENCIES, groups, K, C),),
        )
    else:
        inputs, outputs = (C, K) if pass_ == "fprop" else (K, C)
        columns = product_columns(outputs, chunk)
        blocks = batches * tiles(count, rows) * tiles(outputs, columns * chunk)
        slices = 1
        workspace = (
            (_FREQUENCIES, groups, inputs, outputs),
            (_FREQUENCIES, groups, count, inputs),
            (_FREQUENCIES, groups, count, outputs),
        )
    return Plan(
        blocks * slices,
        256 if columns == 32 else 128,
        constants={"TILE_COLUMNS": columns * chunk},
        args=(count, slices),
        workspace=workspace,
    )


def launch(
    module: Any,
    pass_: str,
    geometry: ConvGeometry,
    plan: Plan,
    operands: list[Any],
    finish: list[Any],
    out: Any,
    workspace: list[Any],
) -> None:
    """Fill `out`, the output as it lies in memory, from the operands; see `Step.launch`."""
    name = f"conv3d_{pass_}_winograd"
    count, slices = plan.args
    whole = _tiles(pass_, geometry)

    def transform(kernel: str, elements: int, *args: Any) -> None:
        blocks = tiles(elements, _THREADS)
        module.get_function(kernel)((blocks,), (_THREADS,), args)

    def multiply(tiles_now: int, *args: Any) -> None:
        blocks = plan.blocks
        if pass_ != "wgrad":  # the last round may have fewer rows
            rows = 32 * 16 // operands[0].dtype.itemsize
            blocks = blocks // tiles(count, rows) * tiles(tiles_now, rows)
        module.get_function(name)((blocks,), (plan.threads,), args)

    def channels(array: Any) -> int:  # of all groups together, padded as they are in memory
        return array.shape[-3] * array.shape[-1]

    first, second, third, *lost = workspace
    rounds = [(tile, min(count, whole - tile)) for tile in range(0, whole, count)]
    if pass_ != "wgrad":
        transform(f"{name}_filter", math.prod(first.shape[1:]), operands[1], first)
        for tile, now in rounds:
            at = np.int32(tile), np.int32(now)
            transform(f"{name}_input", now * channels(second), operands[0], *at, second)
            multiply(now, second, first, at[1], third)
            transform(f"{name}_output", now * out.shape[4], third, *at, *finish, out)
        return
    if not rounds:
        out[...] = 0
        return
    into_input = "conv3d_fprop_winograd_input"
    for tile, now in rounds:
        at = np.int32(tile), np.int32(now)
        transform(f"{name}_gradient", now * channels(first), operands[0], *at, first)
        transform(into_input, now * channels(second), operands[1], *at, second)
        multiply(now, first, second, at[1], np.int32(tile > 0), third, *lost)
    transform(f"{name}_output", math.prod(geometry.w[:2]), third, np.int32(slices), out)


def _tiles(pass_: str, geometry: ConvGeometry) -> int:
    """Return how many tiles of 2 x 2 x 2 outputs there are, of all examples together."""
    N, _, *sizes = geometry.x if pass_ == "dgrad" else geometry.y
    return N * math.prod(tiles(size, 2) for size in sizes)
