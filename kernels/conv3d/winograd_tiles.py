"""Winograd's transforms of a tile, for the processor: F(2, 3) and F(4, 3) along each axis.

Along an axis, m outputs of a filter of 3 taps take m + 2 products instead of 3 m, between
transformed cells and transformed taps (Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016, section 4.1):

    y = A' ((G g) * (B' d))          gradient of the taps: G' ((A gy) * (B' d))

The matrices come from points at which polynomials are evaluated and infinity: 0, 1 and -1 for
m = 2; for m = 4, 0 and plus or minus a = 1 / sqrt(2) and b = sqrt(2), whose powers stay near 1.
With the usual 1 and 2 instead, rounding errors are five to ten times as large.

A tile is an array of one axis: its cells (d, h, v), each a vector of 16 numbers, at most six along
an axis. It is transformed in place, one axis after the other; what has fewer cells than the tile
has room for begins at the same place and leaves the rest of the row as it is.
"""

from __future__ import annotations

from math import sqrt

from tinyvid.kernels.jit import njit
from tinyvid.kernels.simd import LANES, load, store

_A, _B = sqrt(0.5), sqrt(2.0)
_A3, _B3 = _A**3, _B**3


def _along_axes(line):
    """Return the function that transforms a tile in place, along the axes of which m is not 1.

    Its arguments:
        tile: of (m + 2) cells along such an axis, else of one; vectors of LANES numbers.
        m: outputs of a tile along each axis: 1, 2 or 4.
        given, made: cells along each axis before, and after.
    """

    @njit(nogil=True, error_model="numpy")
    def transform(tile, m, given, made):
        to_h = LANES * (m[2] + 2 if m[2] > 1 else 1)
        to_d = to_h * (m[1] + 2 if m[1] > 1 else 1)
        steps = (to_d, to_h, LANES)
        for axis in (2, 1, 0):
            if m[axis] == 1:
                continue
            # Lines along the axis: each begins at a cell of the two other ones.
            outer, step = (given[0], to_d) if axis else (made[1], to_h)
            inner, next_line = (given[1], to_h) if axis == 2 else (made[2], LANES)
            for i in range(outer):
                for j in range(inner):
                    line(tile, m[axis], i * step + j * next_line, steps[axis])

    return transform


@_along_axes
@njit(nogil=True)
def transform_cells(t, m, i0, step):
    """B' d: a line of m + 2 cells of x, the first at i0."""
    i1, i2, i3 = i0 + step, i0 + 2 * step, i0 + 3 * step
    x0, x1, x2, x3 = load(t, i0), load(t, i1), load(t, i2), load(t, i3)
    if m == 2:
        store(t, i0, x0 - x2)
        store(t, i1, x1 + x2)
        store(t, i2, x2 - x1)
        store(t, i3, x3 - x1)
    else:
        i4, i5 = i0 + 4 * step, i0 + 5 * step
        x4, x5 = load(t, i4), load(t, i5)
        even, odd = x4 - 2.0 * x2, _A * x3 - _B * x1
        even2, odd2 = x4 - 0.5 * x2, _B * x3 - _A * x1
        store(t, i0, x0 - 2.5 * x2 + x4)
        store(t, i1, even + odd)
        store(t, i2, even - odd)
        store(t, i3, even2 + odd2)
        store(t, i4, even2 - odd2)
        store(t, i5, x1 - 2.5 * x3 + x5)


@_along_axes
@njit(nogil=True)
def transform_gradients(t, m, i0, step):
    """A gy: a line of m gradients of outputs, into m + 2."""
    i1, i2, i3 = i0 + step, i0 + 2 * step, i0 + 3 * step
    x0, x1 = load(t, i0), load(t, i1)
    if m == 2:
        store(t, i1, x0 + x1)
        store(t, i2, x0 - x1)
        store(t, i3, x1)
    else:
        i4, i5 = i0 + 4 * step, i0 + 5 * step
        x2, x3 = load(t, i2), load(t, i3)
        even, odd = x0 + 0.5 * x2, _A * x1 + _A3 * x3
        even2, odd2 = x0 + 2.0 * x2, _B * x1 + _B3 * x3
        store(t, i1, even + odd)
        store(t, i2, even - odd)
        store(t, i3, even2 + odd2)
        store(t, i4, even2 - odd2)
        store(t, i5, x3)


@_along_axes
@njit(nogil=True)
def transform_sums(t, m, i0, step):
    """A' of a line of m + 2 sums, into m outputs."""
    i1, i2, i3 = i0 + step, i0 + 2 * step, i0 + 3 * step
    x0, x1, x2, x3 = load(t, i0), load(t, i1), load(t, i2), load(t, i3)
    if m == 2:
        store(t, i0, x0 + x1 + x2)
        store(t, i1, x1 - x2 + x3)
    else:
        x4, x5 = load(t, i0 + 4 * step), load(t, i0 + 5 * step)
        even, odd, even2, odd2 = x1 + x2, x1 - x2, x3 + x4, x3 - x4
        store(t, i0, x0 + even + even2)
        store(t, i1, _A * odd + _B * odd2)
        store(t, i2, 0.5 * even + 2.0 * even2)
        store(t, i3, _A3 * odd + _B3 * odd2 + x5)


@_along_axes
@njit(nogil=True)
def transform_filter(t, m, i0, step):
    """G g: a line of three taps, into m + 2."""
    i1, i2, i3 = i0 + step, i0 + 2 * step, i0 + 3 * step
    x0, x1, x2 = load(t, i0), load(t, i1), load(t, i2)
    if m == 2:
        even, odd = 0.5 * (x0 + x2), 0.5 * x1
        store(t, i1, even + odd)
        store(t, i2, even - odd)
        store(t, i3, x2)
    else:
        even, odd = (-2 / 3) * x0 - (1 / 3) * x2, (-2 / 3 * _A) * x1
        even2, odd2 = (1 / 6) * x0 + (1 / 3) * x2, (1 / 6 * _B) * x1
        store(t, i1, even + odd)
        store(t, i2, even - odd)
        store(t, i3, even2 + odd2)
        store(t, i0 + 4 * step, even2 - odd2)
        store(t, i0 + 5 * step, x2)


@_along_axes
@njit(nogil=True)
def transform_products(t, m, i0, step):
    """G' of a line of m + 2 sums, into the gradients of three taps."""
    i1, i2, i3 = i0 + step, i0 + 2 * step, i0 + 3 * step
    x0, x1, x2, x3 = load(t, i0), load(t, i1), load(t, i2), load(t, i3)
    if m == 2:
        even = 0.5 * (x1 + x2)
        store(t, i0, x0 + even)
        store(t, i1, 0.5 * (x1 - x2))
        store(t, i2, even + x3)
    else:
        x4, x5 = load(t, i0 + 4 * step), load(t, i0 + 5 * step)
        even, even2 = x1 + x2, x3 + x4
        store(t, i0, x0 - (2 / 3) * even + (1 / 6) * even2)
        store(t, i1, (-2 / 3 * _A) * (x1 - x2) + (1 / 6 * _B) * (x3 - x4))
        store(t, i2, (-1 / 3) * even + (1 / 3) * even2 + x5)
