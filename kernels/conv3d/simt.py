"""How the steps without tensor cores are launched: `naive.cu`, `tiled.cu`, `implicit_gemm.cu`."""

from __future__ import annotations

import math

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry, Ints
from tinyvid.kernels.conv3d.plan import (
    BLOCKS,
    OUTPUT,
    SLICE,
    Plan,
    lost,
    matrix_product,
    product_columns,
    product_rows,
    tiles,
)

_THREADS = 256
_SHARED = 48 * 1024  # bytes that a block has without asking for more


def naive(pass_: str, geometry: ConvGeometry, dtype: np.dtype) -> Plan:
    """A thread for each element of the output."""
    size = math.prod(getattr(geometry, OUTPUT[pass_]))
    return Plan(tiles(size, _THREADS), _THREADS)


def tiled(pass_: str, geometry: ConvGeometry, dtype: np.dtype) -> Plan:
    """A block for 16 cells x 16 channels of the output (wgrad: 16 taps x 4 x 4 channels)."""
    if pass_ == "wgrad":
        return _tiled_wgrad(geometry, dtype)
    group_C, group_K = geometry.w[1], geometry.w[0] // geometry.groups
    box = (2, 2, 4)
    if pass_ == "fprop":
        cells, summed, columns, halo = geometry.y, group_C, group_K, _under(box, geometry)
    else:
        cells, summed, columns, halo = geometry.x, group_K, group_C, _over(box, geometry)
    # As many channels at a time as there is room for; 17 is the filter's pitch in shared memory.
    each = (math.prod(halo) + 17 * math.prod(geometry.w[2:])) * dtype.itemsize
    # A line of taps is summed up plainly, so it has not too many terms.
    most = max(1, min(16, 64 // geometry.w[4]))
    chunk = next(
        (n for n in (16, 8, 4, 2) if n < 2 * summed and n * each <= _SHARED and n <= most), 1
    )
    blocks = cells[0] * math.prod(map(tiles, cells[2:], box)) * geometry.groups
    shared = _fitting(chunk * each, geometry)
    return Plan(blocks * tiles(columns, 16), _THREADS, shared, args=(chunk,))


def _tiled_wgrad(geometry: ConvGeometry, dtype: np.dtype) -> Plan:
    for box in ((4, 4, 4), (2, 4, 4), (2, 2, 4), (2, 2, 2), (1, 2, 2), (1, 1, 2), (1, 1, 1)):
        shared = 4 * (math.prod(box) + math.prod(_under(box, geometry))) * dtype.itemsize
        if shared <= _SHARED:
            break
    K, group_C, *taps = geometry.w
    of_channels = tiles(group_C, 4) * tiles(K // geometry.groups, 4) * geometry.groups
    blocks = of_channels * tiles(math.prod(taps), 16)
    boxes = geometry.y[0] * math.prod(map(tiles, geometry.y[2:], box))
    slices = max(1, min(BLOCKS // blocks, boxes))
    return Plan(blocks * slices, _THREADS, _fitting(shared, geometry), slices, args=box)


def _under(box: Ints, geometry: ConvGeometry) -> Ints:
    """Return how many cells of x, along each axis, the windows of a box of y cover."""
    axes = zip(box, geometry.w[2:], geometry.stride, geometry.dilation, strict=True)
    return tuple((b - 1) * stride + (T - 1) * step + 1 for b, T, stride, step in axes)


def _over(box: Ints, geometry: ConvGeometry) -> Ints:
    """Return how many cells of y, along each axis, have windows that meet a box of x."""
    axes = zip(box, geometry.w[2:], geometry.stride, geometry.dilation, strict=True)
    return tuple((b - 1 + (T - 1) * step) // stride + 1 for b, T, stride, step in axes)


def _fitting(shared: int, geometry: ConvGeometry) -> int:
    if shared > _SHARED:
        raise UserError(
            f"a filter of {geometry.w[2:]} with dilation {geometry.dilation} and stride "
            f"{geometry.stride} takes {shared} bytes of shared memory; a block has {_SHARED}"
        )
    return shared


def implicit_gemm(pass_: str, geometry: ConvGeometry, dtype: np.dtype) -> Plan:
    """A block for each tile of the matrix product; few tiles are cut along the sum."""
    chunk = 16 // dtype.itemsize
    columns = geometry.w[1] if pass_ == "dgrad" else geometry.w[0] // geometry.groups
    width = product_columns(columns, chunk)
    rows, depth = product_rows(width, chunk), 4 * chunk
    row_tiles, _, terms = matrix_product(pass_, geometry, rows, depth, chunk)
    blocks = row_tiles * tiles(columns, width * chunk) * geometry.groups
    slices = max(1, min(BLOCKS // blocks, tiles(terms, SLICE)))
    threads = 128 if width == 8 else 256
    return Plan(
        blocks * slices,
        threads,
        slices=slices,
        constants={"TILE_COLUMNS": width * chunk, "TILE_ROWS": rows},
        workspace=(lost(pass_, geometry, terms, slices),),
    )
