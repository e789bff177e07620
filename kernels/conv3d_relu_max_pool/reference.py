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
