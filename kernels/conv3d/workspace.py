"""How much memory the variants on the processor need beside their results, as they take it.

Each function here returns one of a pass's arguments, that returns the bytes of each array that is
there while the pass runs. Beside them there are tables of taps, and views.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv3d.winograd_plan import LANES, ROWS, plan
from tinyvid.kernels.threads import chunks_of, get_num_threads

SeenAs = Callable[[ConvGeometry], ConvGeometry]


def winograd(pass_: str, seen_as: SeenAs | None = None) -> Callable[..., list[int]]:
    """Return the workspace of `cpu/winograd`.

    Args:
        seen_as: gives the geometry of the 3-D convolution that does the work.
    """
    return _of(_winograd, pass_, seen_as)


def im2col(pass_: str, seen_as: SeenAs | None = None) -> Callable[..., list[int]]:
    """Return the workspace of `cpu/im2col`; otherwise as `winograd`."""
    return _of(_im2col, pass_, seen_as)


def direct(pass_: str, seen_as: SeenAs | None = None) -> Callable[..., list[int]]:
    """Return the workspace of `cpu/direct`; otherwise as `winograd`."""
    return _of(_direct, pass_, seen_as)


def _of(
    sizes: Callable[[str, ConvGeometry, Any], list[int]], pass_: str, seen_as: SeenAs | None
) -> Callable[..., list[int]]:
    def workspace(*args: Any) -> list[int]:
        geometry = next(a for a in args if isinstance(a, ConvGeometry))
        dtype = next(a.dtype for a in args if hasattr(a, "dtype") and a.dtype.kind == "f")
        return sizes(pass_, seen_as(geometry) if seen_as else geometry, dtype)

    return workspace


def _im2col(pass_: str, geometry: ConvGeometry, dtype: Any) -> list[int]:
    from tinyvid.kernels.conv3d import cpu  # only where it is asked for: it imports Numba

    copied = prod(geometry.w) if prod(geometry.w[2:]) > 1 else 0  # the filters, channels last
    if pass_ != "dgrad":
        found = _patches(pass_, geometry.x, geometry.y, cpu.windows(geometry), geometry.groups)
        found += [copied] if pass_ == "fprop" else []
        return [n * dtype.itemsize for n in found]
    most: list[int] = []
    for phase in product(*(cpu.phases(geometry, axis) for axis in range(3))):
        axes = [along.axis for along in phase]
        taps = prod(len(along.taps) for along in phase)
        cells = (*geometry.x[:2], *(axis.size for axis in axes))
        found = _patches(pass_, geometry.y, cells, axes, geometry.groups) if taps else []
        found += [taps * prod(geometry.w[:2])]  # the filters of this phase
        found += [prod(cells)] if prod(geometry.stride) > 1 else []  # put between others later
        most = max(most, found, key=sum)
    return [n * dtype.itemsize for n in [*most, copied]]


def _patches(pass_: str, source: Any, out: Any, axes: Any, groups: int) -> list[int]:
    """Return the numbers of each array that products with patches of a source take."""
    from tinyvid.kernels.conv3d import cpu

    N, C, D, H, V = source
    if not prod(source) or not prod(out):
        return []
    nothing = np.broadcast_to(np.float32(0), (N, D, H, V, C))  # only its shape counts
    patches = cpu.Patches(nothing, axes, groups, cpu.COLUMNS)
    chunks = cpu.row_chunks(patches)
    rows = chunks[0].stop
    widest = max(columns.stop - columns.start for columns, _ in patches.blocks)
    K = out[1] // groups
    if pass_ == "wgrad":
        result, term, steps = K * groups * patches.shape[1], K * widest, len(chunks)
        items = len(patches.blocks) * groups
    else:
        result, term, steps = prod(out), rows * K, len(patches.blocks)
        items = len(chunks) * groups
    slabs = max(1, min(cpu.ITEMS // items, steps))
    packed = 0 if patches.is_source else rows * widest
    of_a_thread = [packed, term if steps > slabs else 0]
    return [(slabs - 1) * result, *of_a_thread * min(get_num_threads(), items * slabs)]


def _direct(pass_: str, geometry: ConvGeometry, dtype: Any) -> list[int]:
    from tinyvid.kernels.conv3d import cpu, direct

    K, C, *taps = geometry.w
    groups, backward = geometry.groups, pass_ == "dgrad"
    columns, depth = (C, K // groups) if backward else (K // groups, C)
    cells = (geometry.x if backward else geometry.y)[2:]
    axes = cpu.windows(geometry)
    if backward:
        axes = [cpu.phases(geometry, axis)[0].axis for axis in range(3)]
        cells = tuple(axis.size for axis in axes)
    aim = direct.WGRAD_CELLS if pass_ == "wgrad" else direct.FPROP_CELLS
    sizes = direct.band_sizes_of(axes, depth, columns, columns * groups, aim)
    bands = direct.band_count((geometry.x[0], 0, *cells), sizes)
    slabs = len(chunks_of(bands, max(1, -(-bands // direct.ITEMS))))
    wide = direct.padded(columns, dtype)
    filters = groups * prod(taps) * depth * wide
    # What a thread reads for a band, and its sums where they do not go straight to the output.
    of_a_thread = sizes.D * sizes.H * sizes.V * depth
    of_a_thread += sizes.planes * sizes.rows * sizes.Q * wide if wide != columns else 0
    if pass_ == "wgrad":
        of_a_thread += filters // groups
    threads = [of_a_thread] * min(get_num_threads(), slabs * groups)
    if pass_ == "wgrad":
        # Before the slabs are added up, or after it when the result is there too.
        found = [slabs * filters, max(sum(threads) - prod(geometry.w), filters)]
    else:
        copied = prod(geometry.w) if prod(taps) > 1 else 0  # channels last
        found = [filters // prod(geometry.stride) if backward else filters, copied, *threads]
    if backward:
        found += [prod(geometry.w) // prod(geometry.stride)]
        found += [prod(geometry.x) // prod(geometry.stride)] if prod(geometry.stride) > 1 else []
    return [n * dtype.itemsize for n in found]


def _winograd(pass_: str, geometry: ConvGeometry, dtype: Any) -> list[int]:
    itemsize = dtype.itemsize
    cut = plan(pass_, geometry, itemsize)
    C, K = geometry.x[1], geometry.y[1]
    if pass_ == "dgrad":
        C, K = K, C
    panels = -(-K // LANES)

    def numbers(rows: int, columns: int) -> int:
        return cut.positions * (rows * columns + LANES) * itemsize

    def tiles(channels: int) -> int:
        return numbers(cut.block + ROWS, -(-channels // LANES) * LANES)

    def for_each(items: int, *sizes: int) -> list[int]:
        return list(sizes) * min(get_num_threads(), items)

    wide = cut.panels * LANES
    if pass_ == "wgrad":
        items = -(-K // cut.depth) * -(-C // wide)
        return [tiles(C), tiles(K), *for_each(items, numbers(cut.depth + ROWS, wide))]
    if cut.kept:
        blocks = -(-cut.tiles // cut.block)
        products = numbers(cut.block + ROWS, panels * LANES)
        return [numbers(panels * C, LANES), *for_each(blocks, tiles(C), products)]
    products = numbers(cut.block + ROWS, wide)
    groups = -(-panels // cut.panels)
    return [tiles(C), *for_each(groups, products, numbers(wide, cut.depth))]
