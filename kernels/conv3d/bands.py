"""The loops of direct convolution: what a band of output cells needs of x, and its sums.

A band is some lines of output cells of one clip, so few that all that is read for them stays in
the cache: x with its border of zeros, channels last, copied there once and read by every tap.
Where a tap of a cell lies in that copy is a sum of two numbers, one of the cell and one of the
tap. So both fprop and wgrad are a product of a matrix that is never made, with another one:

    fprop   y[m, k]  = sum over j of u[cell[m] + tap[j]] * w[j, k]
    wgrad   gw[j, k] = sum over m of u[tap[j] + cell[m]] * gy[m, k]

which `product` does, block by block in the registers: see `tinyvid.kernels.conv3d.band_product`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit as plain_njit
from numba import types
from numpy import empty

from tinyvid.kernels import lanes as v
from tinyvid.kernels.conv3d.band_product import ROWS, product
from tinyvid.kernels.jit import njit


class Sizes(NamedTuple):
    """What the loops over bands are told, as integers.

    Attributes:
        Z, P, Q: output cells an axis.
        planes, rows: of a band; more than one plane only where it has all rows.
        step_d, step_h, step_v: cells of x from an output cell to the next.
        low_d, low_h, low_v: the first cell of x that output cell 0 reads; may be negative.
        D, H, V: cells of x that a band reads, border and all.
        C: channels of a group. first_c: of this one.
        K: output channels of a group, and columns of what the loops write. first_k: of this group.
        all_k: output channels of all groups, which lie side by side.
    """

    Z: int
    P: int
    Q: int
    planes: int
    rows: int
    step_d: int
    step_h: int
    step_v: int
    low_d: int
    low_h: int
    low_v: int
    D: int
    H: int
    V: int
    C: int
    first_c: int
    K: int
    first_k: int
    all_k: int


@plain_njit(nogil=True)
def pad(u, x, n, d0, h0, v0, planes, lines, sizes, scale, shift):
    """Copy what a band reads of clip n into u (D, H, V, C): from x[n, d0, h0, v0] on.

    What lies outside of x is zero, and of the rest x * scale + shift of its channel is taken if
    there is a scale.
    """
    C, V, last = sizes.C, sizes.V, x.shape[3]
    width = V * C
    begin, end = max(0, -v0), min(V, last - v0)
    normalise = scale.size > 0
    for d in range(planes):
        for h in range(lines):
            first = (d * sizes.H + h) * width
            line = u[first : first + width]
            at_d, at_h = d0 + d, h0 + h
            if at_d < 0 or at_d >= x.shape[1] or at_h < 0 or at_h >= x.shape[2] or end <= begin:
                line[:] = 0
                continue
            line[: begin * C] = 0
            line[end * C :] = 0
            inside = line[begin * C : end * C]
            source = x[n, at_d, at_h, v0 + begin : v0 + end, sizes.first_c : sizes.first_c + C]
            if normalise:
                for c in range(C):
                    a, b = scale[sizes.first_c + c], shift[sizes.first_c + c]
                    channel = inside[c::C]
                    for i in range(end - begin):
                        channel[i] = u.dtype.type(source[i, c]) * a + b
            elif source.strides[0] < source.strides[1]:
                for c in range(C):
                    channel = inside[c::C]
                    of_x = source[:, c]
                    for i in range(end - begin):
                        channel[i] = of_x[i]
            else:
                for i in range(end - begin):
                    cell = inside[i * C : i * C + C]
                    of_x = source[i]
                    for c in range(C):
                        cell[c] = of_x[c]


@plain_njit(nogil=True)
def place(cells, planes, rows, sizes):
    """Write where each output cell of a band begins in u; return how many there are.

    The list is at least ROWS long: the last cell stands in for those beyond it.
    """
    count = 0
    for z in range(planes):
        for p in range(rows):
            first = (z * sizes.step_d * sizes.H + p * sizes.step_h) * sizes.V
            for q in range(sizes.Q):
                cells[count] = (first + q * sizes.step_v) * sizes.C
                count += 1
    for i in range(count, ROWS):
        cells[i] = cells[count - 1]
    return count


@plain_njit(nogil=True)
def open_band(band, u, cells, x, sizes, scale, shift):
    """Bring what a band reads into u; return its first clip, plane, row, and how many cells."""
    across = -(-sizes.P // sizes.rows)
    deep = -(-sizes.Z // sizes.planes)
    n, rest = divmod(band, across * deep)
    z, p = divmod(rest, across)
    z, p = z * sizes.planes, p * sizes.rows
    planes, rows = min(sizes.planes, sizes.Z - z), min(sizes.rows, sizes.P - p)
    pad(
        u,
        x,
        n,
        z * sizes.step_d + sizes.low_d,
        p * sizes.step_h + sizes.low_h,
        sizes.low_v,
        sizes.D - (sizes.planes - planes) * sizes.step_d,
        sizes.H - (sizes.rows - rows) * sizes.step_h,
        sizes,
        scale,
        shift,
    )
    return n, z, p, place(cells, planes, rows, sizes)


def _fprop(first, last, y, x, w, taps, bias, relu, sizes, scale, shift):
    """Write the output cells of bands from `first` to before `last`.

    Args:
        y: flat, (N, Z, P, Q, all_k). x: N D H V C in any order in memory.
        w: flat (taps, columns). bias: (columns,), columns being K and zeros up to whole vectors.
    """
    u = empty(sizes.D * sizes.H * sizes.V * sizes.C, y.dtype)
    most = max(ROWS, sizes.planes * sizes.rows * sizes.Q)
    cells = empty(most, np.int64)
    columns = bias.size
    # Vectors go straight to y where they end with its channels, and a block's rows lie inside it.
    apart = columns != sizes.K or most != sizes.planes * sizes.rows * sizes.Q
    apart = apart or (sizes.P % sizes.rows != 0 and sizes.P % sizes.rows * sizes.Q < ROWS)
    apart = apart or (
        sizes.Z % sizes.planes != 0 and sizes.Z % sizes.planes * sizes.P * sizes.Q < ROWS
    )
    held = empty(most * columns if apart else 0, y.dtype)
    for band in range(first, last):
        n, z, p, count = open_band(band, u, cells, x, sizes, scale, shift)
        o = ((n * sizes.Z + z) * sizes.P + p) * sizes.Q * sizes.all_k + sizes.first_k
        if apart:
            product(held, 0, columns, u, cells, count, taps, w, 0, columns, columns, bias, relu)
            for i in range(count):
                begin = o + i * sizes.all_k
                cell = y[begin : begin + sizes.K]
                sums = held[i * columns : i * columns + sizes.K]
                for k in range(sizes.K):
                    cell[k] = sums[k]
        else:
            product(y, o, sizes.all_k, u, cells, count, taps, w, 0, columns, columns, bias, relu)


def _wgrad(first, last, gw, gy, x, taps, sizes, scale, shift):
    """Add to gw, flat (taps, columns), what bands from `first` to before `last` give.

    Args:
        gy: flat, (N, Z, P, Q, all_k). x: as of fprop.
        taps: with ROWS at least; the last one stands in for those beyond gw's.
    """
    u = empty(sizes.D * sizes.H * sizes.V * sizes.C, gy.dtype)
    most = max(ROWS, sizes.planes * sizes.rows * sizes.Q)
    cells = empty(most, np.int64)
    size = v.count(gy)
    columns = -(-sizes.K // size) * size
    count_taps = gw.size // columns
    start = empty(columns, gy.dtype)
    start[:] = 0
    sums = empty(max(ROWS, count_taps) * columns, gy.dtype)
    apart = columns != sizes.K
    held = empty(most * columns if apart else 0, gy.dtype)
    held[:] = 0
    for band in range(first, last):
        n, z, p, count = open_band(band, u, cells, x, sizes, scale, shift)
        o = ((n * sizes.Z + z) * sizes.P + p) * sizes.Q * sizes.all_k + sizes.first_k
        g, at, ld = gy, o, sizes.all_k
        if apart:
            for i in range(count):
                begin = o + i * sizes.all_k
                cell = held[i * columns : i * columns + sizes.K]
                of_gy = gy[begin : begin + sizes.K]
                for k in range(sizes.K):
                    cell[k] = of_gy[k]
            g, at, ld = held, 0, columns
        product(
            sums, 0, columns, u, taps, count_taps, cells[:count], g, at, ld, columns, start, False
        )
        for i in range(gw.size):
            gw[i] += sums[i]


INT = types.int64


def flat_array(scalar: Any) -> Any:
    return types.Array(scalar, 1, "C")


def clip_array(scalar: Any) -> Any:
    return types.Array(scalar, 5, "A", readonly=True)


def common(dtype: str) -> list:
    scalar = getattr(types, dtype)
    return [
        types.NamedUniTuple(INT, len(Sizes._fields), Sizes),
        flat_array(scalar),
        flat_array(scalar),
    ]


@cache
def fprop(dtype: str, of_x: str) -> Callable[..., None]:
    """Return `_fprop` for y of a dtype, and x of another: compiled when it is first asked for."""
    flat = flat_array(getattr(types, dtype))
    arrays = [flat, clip_array(getattr(types, of_x)), flat, flat_array(INT), flat, types.boolean]
    signature = types.void(INT, INT, *arrays, *common(dtype))
    return njit([signature], nogil=True, cache=True)(_fprop)


@cache
def wgrad(dtype: str, of_x: str) -> Callable[..., None]:
    """Return `_wgrad` for gy of a dtype, and x of another: compiled when it is first asked for."""
    flat = flat_array(getattr(types, dtype))
    gy = types.Array(flat.dtype, 1, "C", readonly=True)
    arrays = [flat, gy, clip_array(getattr(types, of_x)), flat_array(INT)]
    signature = types.void(INT, INT, *arrays, *common(dtype))
    return njit([signature], nogil=True, cache=True)(_wgrad)
