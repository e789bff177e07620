"""Convolution, bias, ReLU and max pooling on the CPU, a clip at a time (`cpu/im2col`).

What is pooled is kept for one clip only, and often still lies in the cache when it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels.conv3d import cpu as conv3d
from tinyvid.kernels.pool3d import argmax_dtype
from tinyvid.kernels.pool3d import cpu as pool3d


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    pool: PoolGeometry,
) -> tuple[np.ndarray, np.ndarray]:
    """Convolve, rectify and pool each clip by the kernels of these operations."""
    N, K, *sizes = pool.y
    y = np.empty((N, *sizes, K), x.dtype)
    argmax = np.empty(y.shape, argmax_dtype(pool))
    one = replace(geometry, x=(1, *geometry.x[1:]), y=(1, *geometry.y[1:]))
    one_pool = replace(pool, x=(1, *pool.x[1:]), y=(1, *pool.y[1:]))
    for n in range(N):
        pooled = conv3d.fprop(x[n : n + 1], w, one, bias, True)
        for whole, part in zip((y, argmax), pool3d.max_fprop(pooled, one_pool), strict=True):
            whole[n] = part[0].transpose(1, 2, 3, 0)
    return y.transpose(0, 4, 1, 2, 3), argmax.transpose(0, 4, 1, 2, 3)
