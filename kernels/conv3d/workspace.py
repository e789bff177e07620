"""How much memory `cpu/winograd` needs beside its results, as `cpu_winograd.py` takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv3d.winograd_plan import LANES, ROWS, plan
from tinyvid.kernels.threads import get_num_threads


def winograd(
    pass_: str, seen_as: Callable[[ConvGeometry], ConvGeometry] = lambda geometry: geometry
) -> Callable[..., list[int]]:
    """Return a function of a pass's arguments that returns the bytes of each array.

    Args:
        seen_as: gives the geometry of the 3-D convolution that does the work.
    """

    def workspace(a: Any, b: Any, geometry: ConvGeometry, *finish: Any) -> list[int]:
        return _winograd(pass_, seen_as(geometry), a.dtype.itemsize)

    return workspace


def _winograd(pass_: str, geometry: ConvGeometry, itemsize: int) -> list[int]:
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
