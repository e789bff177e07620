"""2-D convolution on the processor, by way of 3-D convolution: `cpu/im2col` and `cpu/winograd`.

A 2-D filter over a clip is a 3-D filter that spans all of its frames: seen as
`K C/groups T R S`, it gives an output of one frame, and the clip is read as it lies. Where a
group is not made of whole channels C, or these are so few that patches would be gathered from
runs of a few numbers, the `C*T` planes are first copied into one axis, last in memory; a batch
of images is a batch of clips of one frame.

`cpu/winograd` sees all planes as channels of one frame, which it transforms along two axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv2d.over_time import by_frames, planes
from tinyvid.kernels.conv3d import cpu as conv3d
from tinyvid.kernels.conv3d import cpu_winograd
from tinyvid.kernels.threads import chunks_of, parallel_for

BLOCK = 2**14  # numbers to copy at a time, which stay in the cache while their order changes


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
    by: ModuleType = conv3d,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv2d`. The 3-D convolution is done by a module."""
    in_3d = _in_3d(geometry, by)
    return by.fprop(_seen_as(x, in_3d), w.reshape(in_3d.w), in_3d, bias, relu)[:, :, 0]


def dgrad(
    gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry, by: ModuleType = conv3d
) -> np.ndarray:
    """Return gx; see `tinyvid.kernels.conv2d`."""
    in_3d = planes(geometry)  # over time, each of its T places would meet one tap of T
    gx = by.dgrad(gy[:, :, None], w.reshape(in_3d.w), in_3d)
    # Planes that were one axis are put apart, into the order of a clip in memory.
    return gx[:, :, 0] if len(geometry.x) == 4 else _relaid(gx.reshape(geometry.x))


def wgrad(
    gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry, by: ModuleType = conv3d
) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv2d`."""
    in_3d = _in_3d(geometry, by)
    gw = by.wgrad(gy[:, :, None], _seen_as(x, in_3d), in_3d)
    # (K, C, T, R, S) -> (K, C*T, 1, R, S) -> (K, C*T, R, S)
    gw = gw.reshape(*geometry.w[:2], 1, *geometry.w[2:])
    return _relaid(gw)[:, :, 0]


winograd_fprop, winograd_dgrad, winograd_wgrad = (
    partial(f, by=cpu_winograd) for f in (fprop, dgrad, wgrad)
)


def uint8_fprop(
    x: np.ndarray,
    w: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv2d.uint8`. It makes a copy of the clip in floats."""
    return fprop(_normalised(x, mean, std, w.dtype), w, geometry, bias, relu)


def uint8_wgrad(
    gy: np.ndarray,
    x: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv2d.uint8`. It makes a copy of the clip in floats."""
    return wgrad(gy, _normalised(x, mean, std, gy.dtype), geometry)


def _normalised(
    x: np.ndarray, mean: Sequence[float], std: Sequence[float], dtype: np.dtype
) -> np.ndarray:
    if x.ndim == 4:  # images are clips of one frame
        return conv3d.normalised(x[:, :, None], mean, std, dtype)[:, :, 0]
    return conv3d.normalised(x, mean, std, dtype)


def _seen_as(x: np.ndarray, in_3d: ConvGeometry) -> np.ndarray:
    """Return x in the shape of the 3-D convolution; planes put into one axis lie last in memory."""
    if x.ndim == 4 or x.shape == in_3d.x:
        return x.reshape(in_3d.x)
    N, C, T, H, W = x.shape
    planes = np.empty((N, H, W, C, T), x.dtype)

    def copy(part: tuple[int, slice]) -> None:
        n, rows = part
        planes[n, rows] = x[n, :, :, rows].transpose(2, 3, 0, 1)

    rows = max(1, BLOCK // max(1, C * T * W))
    parallel_for(copy, [(n, part) for n in range(N) for part in chunks_of(H, rows)])
    return planes.reshape(N, 1, H, W, C * T).transpose(0, 4, 1, 2, 3)


def _relaid(array: np.ndarray) -> np.ndarray:
    return conv3d.channels_first(conv3d.channels_last(array))


def _in_3d(geometry: ConvGeometry, by: ModuleType) -> ConvGeometry:
    return by_frames(geometry) if by is conv3d else planes(geometry)
