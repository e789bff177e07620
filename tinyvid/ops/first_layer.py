"""The first layer of a network: convolution of clips that are still bytes.

It is linear in the filter: fprop is the gradient of <gy, conv(u, w)> with respect to gy, wgrad the
one with respect to w, and so each is the other's derivative. The clip has no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinyvid import kernels
from tinyvid.device import one_device
from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry, conv_geometry
from tinyvid.ops.elementwise import cast, scale
from tinyvid.ops.reduce import sum
from tinyvid.tensor import Edge, Tensor, as_tensor, record


class _Clip(NamedTuple):
    x: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: ConvGeometry


def _fprop(clip: _Clip, w: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    x, mean, std, geometry = clip

    def before_relu(gy: Tensor, y: Tensor) -> Tensor:
        return scale(gy, y.data > 0) if relu else gy

    edges: list[Edge] = [(w, lambda gy, y: _wgrad(before_relu(gy, y), clip))]
    if bias is not None:
        edges.append((bias, lambda gy, y: sum(before_relu(gy, y), (0, 2, 3, 4))))
    b = None if bias is None else bias.data
    array = kernels.conv3d_uint8_fprop(x, w.data, mean, std, geometry, b, relu, device=w.device)
    return record(array, *edges)


def _wgrad(gy: Tensor, clip: _Clip) -> Tensor:
    return record(
        kernels.conv3d_uint8_wgrad(gy.data, *clip, device=gy.device),
        (gy, lambda ggw, gw: _fprop(clip, ggw)),
    )


def conv3d_uint8(
    input: Tensor | np.ndarray,
    weight: Tensor,
    bias: Tensor | None = None,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """Normalise clips of bytes and correlate them with 3-D filters, without a copy in floats.

    Equal to `conv3d((input / 255 - mean) / std, weight, bias, ...)`: the padding is zero. The
    kernel adds the bias and takes the ReLU on its way out.

    Args:
        input: x, `N C D H W` of uint8.
        weight: w, `K C/groups T R S`, on the same device.
        bias: (K,).
        mean, std: a number for each channel, as shares of 255.
        stride, padding, dilation, groups: as in `conv3d`.
        relu: whether to return max(y, 0); its gradient at 0 is 0.

    Returns:
        y, `N K Z P Q`, of the weight's dtype.

    Raises:
        UserError: shapes, dtypes or devices do not fit each other.
    """
    x, w = as_tensor(input), as_tensor(weight)
    if w.ndim != 5:
        raise UserError(f"conv3d_uint8: weight must be (K, C/groups, T, R, S), not {w.shape}")
    one_device("conv3d_uint8", x.data, w.data)
    geometry = conv_geometry(x.shape, w.shape, stride, padding, dilation, groups)
    clip = _Clip(x.data, tuple(mean), tuple(std), geometry)
    if bias is None:
        return _fprop(clip, w, None, relu)
    b = cast(bias, w.dtype)
    if b.shape != w.shape[:1]:
        raise UserError(f"bias of shape {b.shape} for {w.shape[0]} output channels")
    one_device("conv3d_uint8", w.data, b.data)
    return _fprop(clip, w, b, relu)
