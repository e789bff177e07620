"""2-D convolution of bytes in CUDA C++: `cuda/first_layer`, by the kernels of 3-D convolution.

A stage of these takes as many taps as it has room for, so that a clip is read as it lies, frame by
frame (`over_time`), and no stage is filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv2d import uint8
from tinyvid.kernels.conv2d.over_time import over_time
from tinyvid.kernels.conv3d import first_layer as conv3d


def unfit(geometry: ConvGeometry) -> str | None:
    """Return why the kernels cannot take a geometry, or None if they can."""
    if geometry.x[1] != conv3d.CHANNELS or geometry.groups != 1:
        return (
            f"it takes images and clips of {conv3d.CHANNELS} channels in one group, not of "
            f"{geometry.x[1]} in {geometry.groups}"
        )
    return conv3d.unfit(over_time(geometry))


def fprop(
    x: Any,
    w: Any,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    bias: Any = None,
    relu: bool = False,
    *,
    device: str = "cuda",
    specialised: bool | None = None,
) -> Any:
    """Return y, `N K P Q`, channels-last in memory; see `tinyvid.kernels.conv2d.uint8`.

    Args:
        device: `cuda` or `emulator`. specialised: compile the sizes in; by default on a GPU only.

    Raises:
        UserError: shapes, dtypes or devices do not fit, or there is not enough memory.
    """
    uint8.fprop.check(x, w, mean, std, geometry, bias, relu)
    of_3d = over_time(geometry)
    y = conv3d.fprop(
        x.reshape(of_3d.x),
        w.reshape(of_3d.w),
        mean,
        std,
        of_3d,
        bias,
        relu,
        device=device,
        specialised=specialised,
        kernel=uint8.fprop.name,
    )
    return y.reshape(geometry.y)


def wgrad(
    gy: Any,
    x: Any,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    *,
    device: str = "cuda",
    specialised: bool | None = None,
) -> Any:
    """Return gw, of the shape of w; otherwise as `fprop`."""
    uint8.wgrad.check(gy, x, mean, std, geometry)
    of_3d = over_time(geometry)
    gw = conv3d.wgrad(
        gy.reshape(of_3d.y),
        x.reshape(of_3d.x),
        mean,
        std,
        of_3d,
        device=device,
        specialised=specialised,
        kernel=uint8.wgrad.name,
    )
    return gw.reshape(geometry.w)
