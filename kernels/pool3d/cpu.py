"""3-D pooling on the CPU: Numba loops over channels-last memory (`cpu/channels_last`).

Memory is `N D H W C`, so that the innermost loop runs over the channels of one cell: it is
contiguous, has no branch, and compiles to vector instructions whatever the window is. Where
channels are few, and for what needs no comparison, it runs over a whole line: see `rows.py`.

Backward passes are written as gathers: each input cell asks which windows cover it and adds
up what they send, in a fixed order. No two threads ever write to the same place, so nothing
needs atomics, windows may overlap, and results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tinyvid.geometry import PoolGeometry
from tinyvid.kernels.jit import njit
from tinyvid.kernels.memory import empty
from tinyvid.kernels.pool3d import argmax_dtype, rows
from tinyvid.kernels.pool3d.rows import larger
from tinyvid.kernels.threads import parallel_for

CHUNK = 64 * 1024  # elements that are worth a trip to another thread
# Channels of which a loop is mostly its beginning and its end, so that rows are compared instead.
FEW_CHANNELS = 16


# ---------------------------------------------------------------- tables, one an axis


@lru_cache(maxsize=256)
def _windows(geometry: PoolGeometry) -> tuple[np.ndarray, ...]:
    """For each axis an int64 table with a row (start, first tap, end tap) for each window.

    Tap k of a window reads cell `start + k * dilation`; taps from the first to before the
    end lie inside the input.
    """
    tables = []
    for axis in range(3):
        size, taps = geometry.x[2 + axis], geometry.window[axis]
        dilation = geometry.dilation[axis]
        start = np.arange(geometry.y[2 + axis]) * geometry.stride[axis] - geometry.padding[axis][0]
        first = np.maximum(0, -(start // dilation))
        end = np.minimum(taps, -((start - size) // dilation))
        tables.append(np.stack([start, first, end], axis=1).astype(np.int64))
    return tuple(tables)


@lru_cache(maxsize=256)
def _covers(geometry: PoolGeometry) -> tuple[np.ndarray, ...]:
    """For each axis three tables that list the (window, tap) pairs that read each cell.

    Those of cell i stand at `offset[i]` to before `offset[i + 1]` of `window` and of `tap`.
    """
    tables: list[np.ndarray] = []
    for axis, windows in enumerate(_windows(geometry)):
        readers: list[list[tuple[int, int]]] = [[] for _ in range(geometry.x[2 + axis])]
        for window, (start, first, end) in enumerate(windows.tolist()):
            for tap in range(first, end):
                readers[start + tap * geometry.dilation[axis]].append((window, tap))
        counts = [len(r) for r in readers]
        pairs = np.array([p for r in readers for p in r], np.int64).reshape(-1, 2)
        tables += [np.cumsum([0, *counts]), pairs[:, 0].copy(), pairs[:, 1].copy()]
    return tuple(tables)


@lru_cache(maxsize=256)
def _readers(geometry: PoolGeometry) -> tuple[np.ndarray, ...] | None:
    """For each axis a table with the (window, tap) that reads each cell, or (-1, -1).

    None if a cell is read more than once.
    """
    tables = []
    for offset, windows, taps in zip(*[iter(_covers(geometry))] * 3, strict=True):
        counts = np.diff(offset)
        if counts.max() > 1:
            return None
        table = np.full((len(counts), 2), -1)
        table[counts == 1] = np.stack([windows, taps], axis=1)
        tables.append(table)
    return tuple(tables)


def _divisors(
    geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> tuple[np.ndarray, ...]:
    """For each axis the cells that a window counts; a window's divisor is their product.

    Padding counts if asked for; what `ceil_mode` lets overhang beyond the padding never does.
    """
    if divisor_override is not None:
        ones = tuple(np.ones(size, np.int64) for size in geometry.y[2:])
        return (ones[0] * divisor_override, *ones[1:])
    counts = []
    for axis, windows in enumerate(_windows(geometry)):
        start, first, end = windows.T
        padded = geometry.x[2 + axis] + geometry.padding[axis][1]
        stop = np.minimum(start + geometry.window[axis], padded)
        counts.append(stop - start if count_include_pad else end - first)
    return tuple(counts)


# ---------------------------------------------------------------- memory and threads


def _channels_last(a: np.ndarray) -> np.ndarray:
    """Return `a` (N C D H W) as contiguous N D H W C memory; a view if it lies so already.

    It is read-only, so that Numba compiles one version whether or not `a` may be written to.
    """
    return _read_only(np.ascontiguousarray(a.transpose(0, 2, 3, 4, 1)))


def _read_only(a: np.ndarray) -> np.ndarray:
    view = a.view()
    view.flags.writeable = False
    return view


def _empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Return an uninitialised N D H W C array for the logical shape N C D H W."""
    n, c, d, h, w = shape
    return empty((n, d, h, w, c), dtype)


def _logical(a: np.ndarray) -> np.ndarray:
    """View N D H W C memory as N C D H W."""
    return a.transpose(0, 4, 1, 2, 3)


def _cells(a: np.ndarray) -> np.ndarray:
    """View N D H W C memory as a table with a row of channels for each cell."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


def _lines(a: np.ndarray) -> np.ndarray:
    """View N D H W C memory as a table with a row for each line (n, d, h)."""
    return a.reshape(math.prod(a.shape[:3]), a.shape[3] * a.shape[4])


def _over_lines(loop, shape: tuple[int, ...], *args) -> None:
    """Run `loop(begin, end, *args)` over all lines (n, d, h) of `shape`, in parallel."""
    n, c, d, h, w = shape
    lines = n * d * h
    step = max(1, CHUNK // max(1, w * c))
    chunks = [(begin, min(begin + step, lines)) for begin in range(0, lines, step)]
    parallel_for(lambda chunk: loop(*chunk, *args), chunks)


# ---------------------------------------------------------------- max pooling


def max_fprop(x: np.ndarray, geometry: PoolGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Compare the cells of each window in order, all channels of a cell at once."""
    x = _channels_last(x)
    y = _empty(geometry.y, x.dtype)
    argmax = _empty(geometry.y, argmax_dtype(geometry))
    few = x.shape[-1] < FEW_CHANNELS
    loop, table = (rows.max_fprop, _lines) if few else (_max_fprop, _cells)
    _over_lines(
        loop,
        geometry.y,
        table(y),
        table(argmax),
        table(x),
        *_windows(geometry),
        geometry.x[2:],
        geometry.window,
        geometry.dilation,
    )
    return _logical(y), _logical(argmax)


@njit(nogil=True, cache=True)
def _max_fprop(begin, end, y, argmax, x, zs, ps, qs, size, window, dilation):
    cells = np.empty(window[0] * window[1] * window[2], np.int64)
    offsets = np.empty(cells.size, np.int32)
    at = np.empty(argmax.shape[1], np.int32)
    for line in range(begin, end):
        nz, p = divmod(line, len(ps))
        n, z = divmod(nz, len(zs))
        for q in range(len(qs)):
            count = 0  # of the window's cells, listed in the order in which they compete
            for t in range(zs[z, 1], zs[z, 2]):
                d = n * size[0] + zs[z, 0] + t * dilation[0]
                for r in range(ps[p, 1], ps[p, 2]):
                    h = d * size[1] + ps[p, 0] + r * dilation[1]
                    for s in range(qs[q, 1], qs[q, 2]):
                        cells[count] = h * size[2] + qs[q, 0] + s * dilation[2]
                        offsets[count] = (t * window[1] + r) * window[2] + s
                        count += 1
            out = line * len(qs) + q
            for c in range(y.shape[1]):
                y[out, c] = x[cells[0], c]
                at[c] = offsets[0]
            for i in range(1, count, 4):
                _compare_four(y, out, at, x, cells, offsets, i, count - 1)
            for c in range(y.shape[1]):
                argmax[out, c] = at[c]


@njit(nogil=True, cache=True)
def _compare_four(y, out, at, x, cells, offsets, i, last):
    """Let four cells compete with the best so far; the last stands in for those beyond it.

    Four at a time, because the best so far is then read and written a fourth as often.
    """
    j, k, m = min(i + 1, last), min(i + 2, last), min(i + 3, last)
    i0, i1, i2, i3 = cells[i], cells[j], cells[k], cells[m]
    o0, o1, o2, o3 = offsets[i], offsets[j], offsets[k], offsets[m]
    for c in range(y.shape[1]):
        best = larger(y[out, c], at[c], x[i0, c], o0)
        best = larger(best[0], best[1], x[i1, c], o1)
        best = larger(best[0], best[1], x[i2, c], o2)
        y[out, c], at[c] = larger(best[0], best[1], x[i3, c], o3)


def max_dgrad(gy: np.ndarray, argmax: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    """Add up, for each input cell, what the windows send whose argmax it was."""
    gx = _empty(geometry.x, gy.dtype)
    gy, argmax = _channels_last(gy), _channels_last(argmax)
    readers = _readers(geometry)
    sizes = (geometry.y[2:], geometry.window)
    if readers is not None:
        loop, shape = rows.max_dgrad, geometry.x
        _over_lines(loop, shape, _lines(gx), _lines(gy), _lines(argmax), *readers, *sizes)
    else:
        tables = (*_covers(geometry), *sizes)
        _over_lines(_max_dgrad, geometry.x, _cells(gx), _cells(gy), _cells(argmax), *tables)
    return _logical(gx)


@njit(nogil=True, cache=True)
def _max_dgrad(begin, end, gx, gy, argmax, d_at, zs, ts, h_at, ps, rs, w_at, qs, ss, size, window):
    depth, height, width = len(d_at) - 1, len(h_at) - 1, len(w_at) - 1
    for line in range(begin, end):
        nd, h = divmod(line, height)
        n, d = divmod(nd, depth)
        for w in range(width):
            cell = line * width + w
            first = True  # writes instead of adding: gx holds nothing yet
            for i in range(d_at[d], d_at[d + 1]):
                for j in range(h_at[h], h_at[h + 1]):
                    row = ((n * size[0] + zs[i]) * size[1] + ps[j]) * size[2]
                    tr = (ts[i] * window[1] + rs[j]) * window[2]
                    for k in range(w_at[w], w_at[w + 1]):
                        out = row + qs[k]
                        offset = argmax.dtype.type(tr + ss[k])
                        if first:
                            for c in range(gx.shape[1]):
                                gx[cell, c] = gy[out, c] if argmax[out, c] == offset else 0
                            first = False
                        else:
                            for c in range(gx.shape[1]):
                                gx[cell, c] += gy[out, c] if argmax[out, c] == offset else 0
            if first:  # no window reads this cell
                for c in range(gx.shape[1]):
                    gx[cell, c] = 0


def max_gather(x: np.ndarray, argmax: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    """Read, for each window, the input cell at its argmax."""
    x, argmax = _channels_last(x), _channels_last(argmax)
    y = _empty(geometry.y, x.dtype)
    # How many cells after the window's start each offset lies.
    t, r, s = np.unravel_index(np.arange(np.prod(geometry.window)), geometry.window)
    t, r, s = (k * dilation for k, dilation in zip((t, r, s), geometry.dilation, strict=True))
    _, _, _, height, width = geometry.x
    ahead = (t * height + r) * width + s
    tables = (*_windows(geometry), ahead, geometry.x[2:])
    _over_lines(_max_gather, geometry.y, _cells(y), _cells(argmax), _cells(x), *tables)
    return _logical(y)


@njit(nogil=True, cache=True)
def _max_gather(begin, end, y, argmax, x, zs, ps, qs, ahead, size):
    for line in range(begin, end):
        nz, p = divmod(line, len(ps))
        n, z = divmod(nz, len(zs))
        row = ((n * size[0] + zs[z, 0]) * size[1] + ps[p, 0]) * size[2]
        for q in range(len(qs)):
            out = line * len(qs) + q
            for c in range(y.shape[1]):
                y[out, c] = x[row + qs[q, 0] + ahead[argmax[out, c]], c]


# ---------------------------------------------------------------- average pooling


def avg_fprop(
    x: np.ndarray, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> np.ndarray:
    """Add up the rows of each window, then its columns, and divide."""
    x = _channels_last(x)
    y = _empty(geometry.y, x.dtype)
    tables = (*_windows(geometry), *_divisors(geometry, count_include_pad, divisor_override))
    _over_lines(rows.avg_fprop, geometry.y, _lines(y), _lines(x), *tables, geometry.x[2:])
    return _logical(y)


def avg_dgrad(
    gy: np.ndarray, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> np.ndarray:
    """Add up, for each input cell, its share of every window that covers it."""
    gx = _empty(geometry.x, gy.dtype)
    z, p, q = _divisors(geometry, count_include_pad, divisor_override)
    divisor = z[:, None, None] * p[:, None] * q  # (Z, P, Q)
    shares = _channels_last(gy) / divisor[..., None].astype(gy.dtype)  # (N, Z, P, Q, C)
    tables = (*_covers(geometry), geometry.y[2:])
    _over_lines(rows.avg_dgrad, geometry.x, _lines(gx), _lines(shares), *tables)
    return _logical(gx)
