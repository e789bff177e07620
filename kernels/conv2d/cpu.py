"""2-D convolution on the processor: `cpu/im2col`, by way of 3-D convolution.

A 2-D filter over a clip is a 3-D filter that spans all of its frames: seen as
`K C/groups T R S`, it gives an output of one frame, and the clip is read as it lies. Where a
group is not made of whole channels C, or these are so few that patches would be gathered from
runs of a few numbers, the `C*T` planes are first copied into one axis, last in memory; a batch
of images is a batch of clips of one frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv3d import cpu as conv3d
from tinyvid.kernels.threads import chunks_of, parallel_for

BLOCK = 2**14  # numbers to copy at a time, which stay in the cache while their order changes
FEW_CHANNELS = 16  # fewer are copied: a row of a filter then reads S*C*T numbers at once, not S*C


def fprop(x: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv2d`."""
    in_3d = _in_3d(geometry)
    return conv3d.fprop(_seen_as(x, in_3d), w.reshape(in_3d.w), in_3d)[:, :, 0]


def dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gx; see `tinyvid.kernels.conv2d`."""
    in_3d = _in_3d(geometry)
    gx = conv3d.dgrad(gy[:, :, None], w.reshape(in_3d.w), in_3d)
    # Planes that were one axis are put apart, into the order of a clip in memory.
    return gx[:, :, 0] if len(geometry.x) == 4 else _relaid(gx.reshape(geometry.x))


def wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv2d`."""
    in_3d = _in_3d(geometry)
    gw = conv3d.wgrad(gy[:, :, None], _seen_as(x, in_3d), in_3d)
    # (K, C, T, R, S) -> (K, C*T, 1, R, S) -> (K, C*T, R, S)
    gw = gw.reshape(*geometry.w[:2], 1, *geometry.w[2:])
    return _relaid(gw)[:, :, 0]


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
    y = fprop(_normalised(x, mean, std, w.dtype), w, geometry)
    if bias is not None:
        y += bias.reshape(-1, 1, 1)
    return np.maximum(y, 0, out=y) if relu else y


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

    rows = max(1, BLOCK // (C * T * W))
    parallel_for(copy, [(n, part) for n in range(N) for part in chunks_of(H, rows)])
    return planes.reshape(N, 1, H, W, C * T).transpose(0, 4, 1, 2, 3)


def _relaid(array: np.ndarray) -> np.ndarray:
    return conv3d.channels_first(conv3d.channels_last(array))


@lru_cache(maxsize=4096)
def _in_3d(geometry: ConvGeometry) -> ConvGeometry:
    """Return the geometry of the 3-D convolution that does the same."""
    N, H, W = geometry.x[0], *geometry.x[-2:]
    frames = 1
    if len(geometry.x) == 5 and geometry.x[1] >= FEW_CHANNELS:
        frames = geometry.x[2] if geometry.x[1] % geometry.groups == 0 else 1
    channels = geometry.channels // frames
    return ConvGeometry(
        x=(N, channels, frames, H, W),
        w=(geometry.w[0], channels // geometry.groups, frames, *geometry.w[2:]),
        y=(*geometry.y[:2], 1, *geometry.y[2:]),
        stride=(1, *geometry.stride),
        padding=((0, 0), *geometry.padding),
        dilation=(1, *geometry.dilation),
        groups=geometry.groups,
    )
