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

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import cost

VECTOR = 16  # numbers of a vector register of AVX-512
DIRECT = 85.0  # multiply-adds a nanosecond of `cpu/direct`
GATHERED = 7.5  # numbers of patches copied a nanosecond, beside
RUN = 6.0  # nanoseconds to find each run of neighbours that is copied
BORDERED = 2.0  # numbers a nanosecond that are brought into a band, with its border
ADDED = 2.5  # numbers of a filter's gradient a nanosecond, summed up band by band
FILTERS = 1.6  # numbers of filters a nanosecond that one thread brings into order
PHASE = 150_000.0  # nanoseconds of the Python around each further phase of dgrad
OWN_CACHE = 1 << 17  # numbers of filters that stay near a core while bands go by
SHARED_CACHE = 1.8  # numbers of those that do not, read a nanosecond
# Output cells of a band of `cpu/direct`, about: what they read and write stays in the second-level
# cache, and what wgrad reads again for each block of taps in the first.
FPROP_CELLS, WGRAD_CELLS = 512, 256


class _Work(NamedTuple):
    """A pass as a product of patches and filters, of one group.

    Attributes:
        cells: rows; of dgrad as many as meet all taps, for each meets a share of them.
        taps: of a filter; depth: channels that are summed up; columns: channels that are output.
        run: numbers that lie side by side in a patch.
        source: all numbers that patches are gathered from. out: those of y, or of gx.
        filters: of all groups.
        along: cells of the output along each axis, which bands are cut of; of a phase of dgrad.
        phases: of dgrad, each with a loop, and a share of the taps, of its own.
    """

    cells: float
    taps: int
    depth: int
    columns: int
    run: int
    source: int
    out: int
    filters: int
    along: Sequence[int]
    phases: int


def _work(geometry: ConvGeometry, pass_: str) -> _Work:
    K, C, *taps = geometry.w
    K //= geometry.groups
    x, y, filters = prod(geometry.x), prod(geometry.y), prod(geometry.w)
    if pass_ == "dgrad":
        phases = prod(geometry.stride)
        cells = geometry.x[0] * prod(geometry.x[2:]) / phases
        run = K * max(1, taps[2] // geometry.stride[2])
        along = [-(-n // step) for n, step in zip(geometry.x[2:], geometry.stride, strict=True)]
        return _Work(cells, prod(taps), K, C, run, y, x, filters, along, phases)
    cells = geometry.y[0] * prod(geometry.y[2:])
    return _Work(cells, prod(taps), C, K, C * taps[2], x, y, filters, geometry.y[2:], 1)


def im2col(geometry: ConvGeometry, pass_: str) -> float:
    """Return the nanoseconds of `cpu/im2col`: to gather the patches, and to multiply by them.

    A filter of one cell has no patches to gather: the source is multiplied as it lies.
    """
    work = _work(geometry, pass_)
    patches = work.cells * work.taps * work.depth
    once = cost.gemm(work.cells, work.columns, work.taps * work.depth)
    if work.taps > 1 or work.phases > 1 or geometry.x[2:] != geometry.y[2:]:
        once += patches / GATHERED + patches / work.run * RUN
    moved = cost.moved(work.out) + work.filters / FILTERS
    return cost.START + PHASE * (work.phases - 1) + geometry.groups * once + moved


def directly(geometry: ConvGeometry, pass_: str) -> float:
    """Return the nanoseconds of `cpu/direct`: products with columns filled up to whole vectors.

    fprop and dgrad go through all filters for each band, wgrad through a sum as large as they are;
    where a layer is wide, or its bands are small, that is most of the work.
    """
    work = _work(geometry, pass_)
    columns = -(-work.columns // VECTOR) * VECTOR
    filters = work.taps * work.depth * columns
    planes, rows = band_of(work.along, WGRAD_CELLS if pass_ == "wgrad" else FPROP_CELLS)
    bands = geometry.x[0] * -(-work.along[0] // planes) * -(-work.along[1] // rows)
    once = work.cells * filters / DIRECT
    if pass_ == "wgrad":
        once += bands * filters / ADDED
    elif filters > OWN_CACHE * work.phases:
        once += bands * filters / SHARED_CACHE
    if bands * geometry.groups < cost.ALONE:
        once *= cost.ALONE  # nothing for a second thread
    moved = work.source / BORDERED + cost.moved(work.out) + cost.ALONE * work.filters / FILTERS
    return cost.START + PHASE * (work.phases - 1) + geometry.groups * once + moved


def band_of(along: Sequence[int], cells: int) -> tuple[int, int]:
    """Return the planes and the rows of a band of about so many output cells.

    Args:
        along: output cells along each axis.
    """
    Z, P, Q = along
    rows = max(1, min(P, cells // max(1, Q)))
    planes = max(1, min(Z, cells // max(1, P * Q))) if rows == P else 1
    return planes, rows


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
