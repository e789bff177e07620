"""The definition of convolution, bias, ReLU and max pooling as one: each after the other."""

from __future__ import annotations

import numpy as np

from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels.conv3d import reference as conv3d
from tinyvid.kernels.pool3d import reference as pool3d


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    pool: PoolGeometry,
) -> tuple[np.ndarray, np.ndarray]:
    """y[n,k,zpq], argmax = max and its offset over the window of max(0, conv(x, w) + bias[k])."""
    y = conv3d.fprop(x, w, geometry)
    if bias is not None:
        y = y + bias.reshape(-1, 1, 1, 1)
    return pool3d.max_fprop(np.maximum(y, y.dtype.type(0)), pool)


def wgrad(
    gy: np.ndarray, argmax: np.ndarray, x: np.ndarray, geometry: ConvGeometry, pool: PoolGeometry
) -> np.ndarray:
    """gw[k,c,trs] = sum over n,zpq of gy[n,k,zpq] times what x[n,c] is for tap trs at argmax."""
    C, K = geometry.w[1], geometry.w[0] // geometry.groups
    padding = [(0, 0), (0, 0), *((low, high) for low, high in geometry.padding)]
    padded = np.pad(x, padding)
    gw = np.zeros(geometry.w, gy.dtype)
    for n, k, *place in np.ndindex(*pool.y):
        at_place = (n, k, *place)
        offset = np.unravel_index(argmax[at_place], pool.window)
        cell = [at * size + o for at, size, o in zip(place, pool.stride, offset, strict=True)]
        corner = [at * step for at, step in zip(cell, geometry.stride, strict=True)]
        patch = tuple(
            slice(start, start + dilation * taps, dilation)
            for start, dilation, taps in zip(corner, geometry.dilation, geometry.w[2:], strict=True)
        )
        first = k // K * C
        window = (n, slice(first, first + C), *patch)
        gw[k] += gy[at_place] * padded[window]
    return gw
