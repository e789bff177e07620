"""2-D convolution on the processor: `cpu/im2col`, by way of 3-D convolution.

A 2-D filter over a clip is a 3-D filter that spans all of its frames: seen as
`K C/groups T R S`, it gives an output of one frame, and the clip is read as it lies. Only
where a group is not made of whole channels C are the `C*T` planes copied into one axis; a
batch of images is a batch of clips of one frame.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv3d import cpu as conv3d


def fprop(x: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv2d`."""
    in_3d = _in_3d(geometry)
    return conv3d.fprop(x.reshape(in_3d.x), w.reshape(in_3d.w), in_3d)[:, :, 0]


def dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gx; see `tinyvid.kernels.conv2d`."""
    in_3d = _in_3d(geometry)
    gx = conv3d.dgrad(gy[:, :, None], w.reshape(in_3d.w), in_3d)
    # Planes that were one axis are put apart, into the order of a clip in memory.
    return gx[:, :, 0] if len(geometry.x) == 4 else _relaid(gx.reshape(geometry.x))


def wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv2d`."""
    in_3d = _in_3d(geometry)
    gw = conv3d.wgrad(gy[:, :, None], x.reshape(in_3d.x), in_3d)
    # (K, C, T, R, S) -> (K, C*T, 1, R, S) -> (K, C*T, R, S)
    gw = gw.reshape(*geometry.w[:2], 1, *geometry.w[2:])
    return _relaid(gw)[:, :, 0]


def _relaid(array: np.ndarray) -> np.ndarray:
    return conv3d.channels_first(conv3d.channels_last(array))


@lru_cache(maxsize=4096)
def _in_3d(geometry: ConvGeometry) -> ConvGeometry:
    """Return the geometry of the 3-D convolution that does the same."""
    N, H, W = geometry.x[0], *geometry.x[-2:]
    frames = 1
    if len(geometry.x) == 5 and geometry.x[1] % geometry.groups == 0:
        frames = geometry.x[2]
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
