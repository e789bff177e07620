"""The loops of direct convolution with pooling: a band is computed, rectified and pooled.

What is pooled is a band of whole windows, which never leaves the cache: see
`tinyvid.kernels.conv3d.bands`. In wgrad only the cells at argmax have a gradient. Where a window
has few cells, the band is filled with zeros and the gradients, and goes the way of every
convolution. Where it has many, each gradient is multiplied by the patch of its own cell:

    gw[k, j] = sum over windows of gy[window, k] * u[cell at argmax[window, k] + tap[j]]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit as plain_njit
from numba import types
from numpy import empty

from tinyvid.kernels import lanes as v
from tinyvid.kernels.conv3d.band_product import ROWS, product
from tinyvid.kernels.conv3d.bands import INT, clip_array, common, flat_array, open_band
from tinyvid.kernels.jit import njit


class Window(NamedTuple):
    """The cells of a window, side by side, along Z, P and Q."""

    T: int
    R: int
    S: int


@plain_njit(nogil=True)
def _pool(y, argmax, o, held, columns, at, planes, rows, p, sizes, window, offsets, best, best_at):
    """Pool one line of windows of a band; its first cell is cell `at` of `held`.

    Args:
        y, argmax: flat; the line begins at `o`. best, best_at: (columns,), to work in.
    """
    size = v.count(held)
    for q in range(sizes.Q // window.S):
        for k in range(0, columns, size):
            first = (at + q * window.S) * columns + k
            largest = v.load(held, first)
            place = v.spread(offsets, 0)
            i = 0
            for t in range(window.T):
                for r in range(window.R):
                    cell = first + (t * rows + r) * sizes.Q * columns
                    for _ in range(window.S):
                        value = v.load(held, cell)
                        place = v.where_larger(value, largest, v.spread(offsets, i), place)
                        largest = v.where_larger(value, largest, value, largest)
                        cell += columns
                        i += 1
            v.store(best, k, largest)
            v.store(best_at, k, place)
        to, to_at = y[o : o + sizes.K], argmax[o : o + sizes.K]
        for k in range(sizes.K):
            to[k] = best[k]
            to_at[k] = int(best_at[k])
        o += sizes.all_k


def _fprop(first, last, y, argmax, x, w, taps, bias, window, sizes, scale, shift):
    """Write the windows of bands from `first` to before `last`.

    Args:
        y, argmax: flat, a channel each of all_k for each window. The rest as of the convolution's.
    """
    u = empty(sizes.D * sizes.H * sizes.V * sizes.C, y.dtype)
    most = max(ROWS, sizes.planes * sizes.rows * sizes.Q)
    cells = empty(most, np.int64)
    columns = bias.size
    held = empty(most * columns, y.dtype)
    best, best_at = empty(columns, y.dtype), empty(columns, y.dtype)
    offsets = empty(window.T * window.R * window.S, y.dtype)
    for i in range(offsets.size):
        offsets[i] = i
    P, Q = sizes.P // window.R, sizes.Q // window.S
    for band in range(first, last):
        n, z, p, count = open_band(band, u, cells, x, sizes, scale, shift)
        product(held, 0, columns, u, cells, count, taps, w, 0, columns, columns, bias, True)
        planes, rows = min(sizes.planes, sizes.Z - z), min(sizes.rows, sizes.P - p)
        for dz in range(0, planes, window.T):
            for dp in range(0, rows, window.R):
                line = (n * (sizes.Z // window.T) + (z + dz) // window.T) * P + (p + dp) // window.R
                o = line * Q * sizes.all_k + sizes.first_k
                at = (dz * rows + dp) * sizes.Q
                _pool(
                    *(y, argmax, o, held, columns, at, planes, rows, p),
                    *(sizes, window, offsets, best, best_at),
                )


@plain_njit(nogil=True)
def _cell_of(offset, at, q, rows, sizes, window):
    """Return the cell of a band that a window's argmax names."""
    plane, rest = divmod(offset, window.R * window.S)
    row, column = divmod(rest, window.S)
    return at + (plane * rows + row) * sizes.Q + q * window.S + column


def _wgrad(first, last, gw, gy, argmax, x, taps, run, window, sizes, scale, shift):
    """Add to gw, flat, what bands from `first` to before `last` give.

    Args:
        gw: (taps, columns), or for run > 0 (K, runs, whole vectors for each).
        gy, argmax: flat, a channel each of all_k for each window.
        taps: where each tap and channel lies, or for run > 0 where each run begins.
        run: how many neighbours in memory a patch is made of each time, or 0: all at once.
    """
    size = v.count(gw)
    u = empty(sizes.D * sizes.H * sizes.V * sizes.C + size, gw.dtype)
    u[-size:] = 0
    most = max(ROWS, sizes.planes * sizes.rows * sizes.Q)
    cells = empty(most, np.int64)
    columns = -(-sizes.K // size) * size
    count_taps = gw.size // columns
    vectors = -(-run // size)
    start = empty(columns, gw.dtype)
    start[:] = 0
    sums = empty(max(ROWS, count_taps) * columns if run == 0 else 0, gw.dtype)
    held = empty(most * columns if run == 0 else 0, gw.dtype)
    P, Q = sizes.P // window.R, sizes.Q // window.S
    for band in range(first, last):
        n, z, p, count = open_band(band, u, cells, x, sizes, scale, shift)
        planes, rows = min(sizes.planes, sizes.Z - z), min(sizes.rows, sizes.P - p)
        held[:] = 0
        for dz in range(0, planes, window.T):
            for dp in range(0, rows, window.R):
                line = (n * (sizes.Z // window.T) + (z + dz) // window.T) * P + (p + dp) // window.R
                at = (dz * rows + dp) * sizes.Q
                for q in range(Q):
                    o = (line * Q + q) * sizes.all_k + sizes.first_k
                    for k in range(sizes.K):
                        cell = _cell_of(int(argmax[o + k]), at, q, rows, sizes, window)
                        if run == 0:
                            held[cell * columns + k] = gy[o + k]
                            continue
                        g = v.spread(gy, o + k)
                        to, where = k * taps.size * vectors * size, cells[cell]
                        for j in range(taps.size):
                            for i in range(vectors):
                                patch = v.load(u, where + taps[j] + i * size)
                                v.store(gw, to, v.multiply_add(patch, g, v.load(gw, to)))
                                to += size
        if run == 0:
            product(
                *(sums, 0, columns, u, taps, count_taps, cells[:count]),
                *(held, 0, columns, columns, start, False),
            )
            for i in range(gw.size):
                gw[i] += sums[i]


def _arrays(dtype: str, offsets: str) -> tuple:
    scalar, index = getattr(types, dtype), getattr(types, offsets)
    window = types.NamedUniTuple(INT, 3, Window)
    return flat_array(scalar), flat_array(index), clip_array(scalar), flat_array(INT), window


@cache
def fprop(dtype: str, offsets: str) -> Callable[..., None]:
    """Return `_fprop` for a dtype, and another of argmax: compiled when it is first asked for."""
    flat, argmax, clip, table, window = _arrays(dtype, offsets)
    arrays = [flat, argmax, clip, flat, table, flat, window]
    return njit([types.void(INT, INT, *arrays, *common(dtype))], nogil=True, cache=True)(_fprop)


@cache
def wgrad(dtype: str, offsets: str) -> Callable[..., None]:
    """Return `_wgrad` for a dtype, and another of argmax: compiled when it is first asked for."""
    flat, argmax, clip, table, window = _arrays(dtype, offsets)
    gy, at = (types.Array(array.dtype, 1, "C", readonly=True) for array in (flat, argmax))
    arrays = [flat, gy, at, clip, table, INT, window]
    return njit([types.void(INT, INT, *arrays, *common(dtype))], nogil=True, cache=True)(_wgrad)
