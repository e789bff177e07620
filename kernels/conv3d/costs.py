"""What convolution costs on the processor by `cpu/im2col` and by `cpu/direct`.

All three passes do the same multiply-adds. They differ in what is output (`rows` cells of `columns`
channels) and in how many products each number of it is the sum of (`depth`):

    fprop   a row an output cell, K columns, a sum over taps and C
    dgrad   a row an input cell, C columns, a sum over those of the taps that meet it, and K
    wgrad   a row a tap and channel c, K columns, a sum over output cells

An input cell is met by one tap in as many as strides say, but also by taps that stand beyond the
output's border: where the output is smaller than the input, dgrad multiplies more zeros.

See `tinyvid.kernels.cost`. The channels are those of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import cost

VECTOR = 8  # numbers of a vector register, of which sums take two or three
DIRECT = 28.0  # multiply-adds a nanosecond of `cpu/direct`
PACKED = 2.0  # numbers of patches written a nanosecond, run by run
NARROW = 8  # columns that a product takes the time of, over those that it has
PHASE = 100_000.0  # nanoseconds of the Python around each phase of dgrad


def im2col(geometry: ConvGeometry, pass_: str) -> float:
    """Return the nanoseconds of `cpu/im2col`: to write the patches, and to multiply by them."""
    K, C, *taps = geometry.w
    K //= geometry.groups
    cells = _cells(geometry, pass_)
    channels, columns = (K, C) if pass_ == "dgrad" else (C, K)
    patches = cells * prod(taps) * channels
    rows, depth = cells, prod(taps) * channels
    product = cost.gemm(rows, columns + NARROW, depth)
    once = product + patches / PACKED + cost.moved(cells * columns)
    return cost.LOOP + _phases(geometry, pass_) + geometry.groups * once


def directly(geometry: ConvGeometry, pass_: str) -> float:
    """Return the nanoseconds of `cpu/direct`: products with columns filled up to whole vectors.

    What is read is copied with its border about twice, as bands of lines overlap.
    """
    K, C, *taps = geometry.w
    K //= geometry.groups
    cells = _cells(geometry, pass_)
    depth, columns = (K, C) if pass_ == "dgrad" else (C, K)
    products = cells * prod(taps) * depth * max(2, -(-columns // VECTOR)) * VECTOR
    copied = geometry.y if pass_ == "dgrad" else geometry.x
    once = products / DIRECT
    moved = cost.moved(2 * prod(copied) + prod(geometry.y))
    return cost.LOOP + _phases(geometry, pass_) + geometry.groups * once + moved


def _cells(geometry: ConvGeometry, pass_: str) -> float:
    """Return for how many cells all taps are multiplied: in dgrad each meets a share of them."""
    if pass_ == "dgrad":
        return geometry.x[0] * prod(geometry.x[2:]) / prod(geometry.stride)
    return geometry.y[0] * prod(geometry.y[2:])


def _phases(geometry: ConvGeometry, pass_: str) -> float:
    return PHASE * prod(geometry.stride) if pass_ == "dgrad" else 0.0


def costs(
    formula: Callable[[ConvGeometry, str], float],
    pass_: str,
    seen_as: Callable[[ConvGeometry], ConvGeometry] | None = None,
    before: Callable[[ConvGeometry], float] | None = None,
) -> Callable[..., float]:
    """Return the cost of a kernel whose arguments have a geometry among them.

    Args:
        seen_as: makes of it the geometry of a 3-D convolution, where it is none.
        before: the nanoseconds of what is done to its operands before.
    """

    def cost_of(*args: Any) -> float:
        geometry = next(a for a in args if isinstance(a, ConvGeometry))
        first = before(geometry) if before else 0.0
        return first + formula(seen_as(geometry) if seen_as else geometry, pass_)

    return cost_of
