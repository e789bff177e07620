"""Convolution, bias, ReLU and max pooling on the processor, at once: `cpu/direct`.

What is pooled is never written but to the cache: see `tinyvid.kernels.conv3d_relu_max_pool.bands`.
Errors are those of `tinyvid.kernels.conv3d.direct`; in wgrad n is the number of windows.
"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels.conv3d.band_product import ROWS
from tinyvid.kernels.conv3d.bands import Sizes
from tinyvid.kernels.conv3d.cpu import channels_first, channels_last, windows
from tinyvid.kernels.conv3d.direct import (
    ITEMS,
    WGRAD_CELLS,
    band_count,
    filters_and_start,
    normalisation,
    of_group,
    padded,
    readable,
    sized,
    tap_places,
)
from tinyvid.kernels.conv3d_relu_max_pool import bands
from tinyvid.kernels.conv3d_relu_max_pool.pays import MANY_CELLS
from tinyvid.kernels.memory import empty
from tinyvid.kernels.pool3d import argmax_dtype
from tinyvid.kernels.threads import chunks_of, parallel_for

HELD = 1 << 15  # numbers of a band before it is pooled, about
PATCH_CELLS = 4096  # of a band where wgrad goes from patch to patch, and holds no cells


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    pool: PoolGeometry,
) -> tuple[np.ndarray, np.ndarray]:
    """Return y and argmax; see `tinyvid.kernels.conv3d_relu_max_pool`."""
    N, all_k, *cells = pool.y
    y = empty((N, *cells, all_k), x.dtype)
    argmax = empty(y.shape, argmax_dtype(pool))
    columns = padded(all_k // geometry.groups, x.dtype)
    _, sizes = _sizes(geometry, pool, HELD // columns)
    taps = tap_places(windows(geometry), sizes)
    filters = channels_last(w).reshape(geometry.groups, sizes.K, -1).transpose(0, 2, 1)
    packed, start = filters_and_start(filters, bias)
    loop = bands.fprop(y.dtype.name, argmax.dtype.name)
    source, results = readable(x), (y.reshape(-1), argmax.reshape(-1))
    window, none = bands.Window(*pool.window), normalisation((), (), y.dtype)

    def write(item: tuple[int, slice]) -> None:
        group, part = item
        given = source, packed[group].reshape(-1), taps, start[group], window
        loop(part.start, part.stop, *results, *given, of_group(sizes, group), *none)

    if y.size:
        parts = _parts(N, sizes)
        parallel_for(write, list(product(range(geometry.groups), parts)))
    return channels_first(y), channels_first(argmax)


def wgrad(
    gy: np.ndarray,
    argmax: np.ndarray,
    x: np.ndarray,
    geometry: ConvGeometry,
    pool: PoolGeometry,
) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv3d_relu_max_pool`."""
    K, C, *window = geometry.w
    many = prod(pool.window) >= MANY_CELLS
    axes, sizes = _sizes(geometry, pool, PATCH_CELLS if many else WGRAD_CELLS)
    taps = tap_places(axes, sizes)
    run = 0
    if many:
        # Taps that are neighbours along the last axis lie side by side, with all their channels.
        run = C * (window[2] if geometry.dilation[2] == 1 else 1)
        lanes = padded(1, gy.dtype)
        shape: tuple[int, ...] = (sizes.K, taps.size // run, -(-run // lanes) * lanes)
        rows = taps[::run].copy()
    else:
        shape = (taps.size, padded(sizes.K, gy.dtype))
        rows = np.resize(taps, max(ROWS, taps.size))
    loop = bands.wgrad(gy.dtype.name, argmax.dtype.name)
    given = channels_last(gy).reshape(-1), channels_last(argmax).reshape(-1), readable(x), rows, run
    parts = _parts(geometry.x[0], sizes)
    sums = np.zeros((geometry.groups, len(parts), prod(shape)), gy.dtype)
    none = normalisation((), (), gy.dtype)

    def add(item: tuple[int, int]) -> None:
        group, part = item
        bounds = parts[part].start, parts[part].stop
        more = bands.Window(*pool.window), of_group(sizes, group), *none
        loop(*bounds, sums[group, part], *given, *more)

    if gy.size:
        parallel_for(add, list(product(range(geometry.groups), range(len(parts)))))
    total = sums.sum(1).reshape(geometry.groups, *shape)
    if run:
        total = total[..., :run]  # (groups, K of a group, runs, taps and channels of each)
    else:
        total = total[:, :, : sizes.K].transpose(0, 2, 1)
    return channels_first(np.ascontiguousarray(total.reshape(K, *window, C)))


def _sizes(geometry: ConvGeometry, pool: PoolGeometry, cells: int):
    """Return how the convolution meets x, and the sizes of bands of whole windows."""
    whole = [size * window for size, window in zip(pool.y[2:], pool.window, strict=True)]
    axes = [axis._replace(size=size) for axis, size in zip(windows(geometry), whole, strict=True)]
    T, R, _ = pool.window
    rows = R * max(1, min(pool.y[3], cells // max(1, T * R * whole[2])))
    K = geometry.w[0]
    return axes, sized(axes, geometry.w[1], K // geometry.groups, K, T, rows)


def _parts(clips: int, sizes: Sizes) -> list[slice]:
    count = band_count((clips, sizes.all_k, sizes.Z, sizes.P, sizes.Q), sizes)
    return chunks_of(count, max(1, -(-count // ITEMS)))
