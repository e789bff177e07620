"""The definition of 3-D pooling: a loop over windows and their cells.

With no consideration for performance but that N and C are taken at once. Every other variant
must agree with it. `_windows` says which cells a window has; all passes are loops over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from tinyvid.geometry import PoolGeometry
from tinyvid.kernels.pool3d import argmax_dtype

Place = tuple[int, int, int]


def max_fprop(x: np.ndarray, geometry: PoolGeometry) -> tuple[np.ndarray, np.ndarray]:
    """y[n,c,zpq] = max over trs of x[n,c,dhw], argmax[n,c,zpq] = the offset where it stands."""
    y = np.empty(geometry.y, x.dtype)
    argmax = np.empty(geometry.y, argmax_dtype(geometry))
    for (z, p, q), cells in _windows(geometry):
        for i, (offset, (d, h, w)) in enumerate(cells):
            cell, best, at = x[:, :, d, h, w], y[:, :, z, p, q], argmax[:, :, z, p, q]  # (N, C)
            # The first cell is taken as it is: all may be -inf. NaN is larger than everything.
            larger = (cell > best) | np.isnan(cell) | (i == 0)
            best[larger] = cell[larger]
            at[larger] = offset
    return y, argmax


def max_dgrad(gy: np.ndarray, argmax: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    """gx[n,c,dhw] = sum over zpq with argmax[n,c,zpq] at dhw of gy[n,c,zpq]."""
    gx = np.zeros(geometry.x, gy.dtype)
    for (z, p, q), cells in _windows(geometry):
        for offset, (d, h, w) in cells:
            gx[:, :, d, h, w] += np.where(argmax[:, :, z, p, q] == offset, gy[:, :, z, p, q], 0)
    return gx


def max_gather(x: np.ndarray, argmax: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    """y[n,c,zpq] = x[n,c,dhw] at the dhw that argmax[n,c,zpq] names."""
    y = np.zeros(geometry.y, x.dtype)
    for (z, p, q), cells in _windows(geometry):
        for offset, (d, h, w) in cells:
            chosen = argmax[:, :, z, p, q] == offset  # (N, C)
            y[:, :, z, p, q][chosen] = x[:, :, d, h, w][chosen]
    return y


def avg_fprop(
    x: np.ndarray, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> np.ndarray:
    """y[n,c,zpq] = sum over trs of x[n,c,dhw] / divisor[zpq]."""
    y = np.zeros(geometry.y, x.dtype)
    for (z, p, q), cells in _windows(geometry):
        for _, (d, h, w) in cells:
            y[:, :, z, p, q] += x[:, :, d, h, w]
        count = len(cells) if not count_include_pad else _padded_cells((z, p, q), geometry)
        y[:, :, z, p, q] /= count if divisor_override is None else divisor_override
    return y


def avg_dgrad(
    gy: np.ndarray, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> np.ndarray:
    """gx[n,c,dhw] = sum over the zpq that have the cell dhw of gy[n,c,zpq] / divisor[zpq]."""
    gx = np.zeros(geometry.x, gy.dtype)
    for (z, p, q), cells in _windows(geometry):
        count = len(cells) if not count_include_pad else _padded_cells((z, p, q), geometry)
        divisor = count if divisor_override is None else divisor_override
        for _, (d, h, w) in cells:
            gx[:, :, d, h, w] += gy[:, :, z, p, q] / divisor
    return gx


def _windows(geometry: PoolGeometry) -> Iterator[tuple[Place, list[tuple[int, Place]]]]:
    """Yield (z, p, q) and the window's cells as (offset in the window, (d, h, w)), in order.

    Cells outside the input are left out.
    """
    T, R, S = geometry.window
    for place in product(*map(range, geometry.y[2:])):
        cells = []
        for t, r, s in product(range(T), range(R), range(S)):
            d, h, w = (
                o * stride + k * dilation - low
                for o, k, stride, dilation, (low, _) in zip(
                    place,
                    (t, r, s),
                    geometry.stride,
                    geometry.dilation,
                    geometry.padding,
                    strict=True,
                )
            )
            if all(0 <= i < size for i, size in zip((d, h, w), geometry.x[2:], strict=True)):
                cells.append(((t * R + r) * S + s, (d, h, w)))
        yield place, cells  # type: ignore[misc]


def _padded_cells(place: Place, geometry: PoolGeometry) -> int:
    """Count the cells of a window that lie in the input or its padding."""
    count = 1
    for axis, o in enumerate(place):
        low, high = geometry.padding[axis]
        start = o * geometry.stride[axis] - low
        count *= min(start + geometry.window[axis], geometry.x[2 + axis] + high) - start
    return count
