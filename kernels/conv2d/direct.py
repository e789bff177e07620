"""Direct 2-D convolution on the processor: `cpu/direct`, by way of 3-D convolution.

A clip is read as it lies: its `C*T` planes, one axis of its memory, are the channels of images, of
which bands are copied with the planes last (`tinyvid.kernels.conv3d.direct`). Where the planes
are no single axis in memory, as in a channels-last clip, fprop and wgrad let the filter move over
time instead, at whose one place it stands. dgrad writes all planes of a cell at once, then copies
them into the order of a clip. Errors are those of the 3-D convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv2d.over_time import over_time, planes
from tinyvid.kernels.conv3d import direct as conv3d


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv2d`."""
    x, solid = lifted(x, geometry)
    return conv3d.fprop(x, w.reshape(solid.w), solid, bias, relu)[:, :, 0]


def dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gx; see `tinyvid.kernels.conv2d`."""
    solid = planes(geometry)
    gx = conv3d.dgrad(gy[:, :, None], w.reshape(solid.w), solid)
    return gx[:, :, 0] if len(geometry.x) == 4 else relaid(gx.reshape(geometry.x))


def wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv2d`."""
    x, solid = lifted(x, geometry)
    return flattened(conv3d.wgrad(gy[:, :, None], x, solid), geometry)


def uint8_fprop(
    x: np.ndarray,
    w: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv2d.uint8`. Bytes are normalised as they are copied."""
    x, solid = lifted(x, geometry)
    mean, std = (of_planes(numbers, geometry, solid) for numbers in (mean, std))
    return conv3d.uint8_fprop(x, w.reshape(solid.w), mean, std, solid, bias, relu)[:, :, 0]


def uint8_wgrad(
    gy: np.ndarray,
    x: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv2d.uint8`. Bytes are normalised as they are copied."""
    x, solid = lifted(x, geometry)
    mean, std = (of_planes(numbers, geometry, solid) for numbers in (mean, std))
    return flattened(conv3d.uint8_wgrad(gy[:, :, None], x, mean, std, solid), geometry)


def lifted(x: np.ndarray, geometry: ConvGeometry) -> tuple[np.ndarray, ConvGeometry]:
    """Return images or clips, and the geometry, as a 3-D convolution takes them."""
    solid = planes(geometry)
    one_axis = x.ndim == 4 or x.strides[1] == x.shape[2] * x.strides[2]
    if not one_axis and geometry.x[1] % geometry.groups == 0:
        solid = over_time(geometry)
    return x.reshape(solid.x), solid


def flattened(gw: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return the gradient of a 3-D filter in the shape of the 2-D one, channels last in memory."""
    return relaid(gw.reshape(*geometry.w[:2], 1, *geometry.w[2:]))[:, :, 0]


def of_planes(
    numbers: Sequence[float], geometry: ConvGeometry, solid: ConvGeometry
) -> Sequence[float]:
    """Return a number for each channel of the 3-D convolution, which may be one of the planes."""
    frames = solid.x[1] // geometry.x[1]
    return np.repeat(np.asarray(numbers, np.float64), frames).tolist()


def relaid(array: np.ndarray) -> np.ndarray:
    """Return N C D H W with the channels last in memory."""
    return conv3d.channels_first(conv3d.channels_last(array))
