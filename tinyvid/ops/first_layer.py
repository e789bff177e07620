"""The first layer of a network: convolution of clips and images that are still bytes.

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
from tinyvid.kernels import Kernel
from tinyvid.ops.conv import cast_bias, record_finished
from tinyvid.tensor import Tensor, as_tensor, record


class _Clip(NamedTuple):
    x: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: ConvGeometry


class _Passes(NamedTuple):
    fprop: Kernel
    wgrad: Kernel


_CONV2D = _Passes(kernels.conv2d_uint8_fprop, kernels.conv2d_uint8_wgrad)
_CONV3D = _Passes(kernels.conv3d_uint8_fprop, kernels.conv3d_uint8_wgrad)


def _fprop(
    clip: _Clip, w: Tensor, passes: _Passes, bias: Tensor | None = None, relu: bool = False
) -> Tensor:
    b = None if bias is None else bias.data
    return record_finished(
        passes.fprop(clip.x, w.data, *clip[1:], b, relu, device=w.device),
        (w, lambda gy, y: _wgrad(gy, clip, passes)),
        saved=(),
        bias=bias,
        relu=relu,
    )


def _wgrad(gy: Tensor, clip: _Clip, passes: _Passes) -> Tensor:
    return record(
        passes.wgrad(gy.data, *clip, device=gy.device),
        (gy, lambda ggw, gw: _fprop(clip, ggw, passes)),
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
    sizes = stride, padding, dilation, groups
    return _convolve("conv3d_uint8", input, weight, bias, mean, std, sizes, relu)


def conv2d_uint8(
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
    """Normalise images of bytes and correlate them with 2-D filters; of clips, with all frames.

    Equal to `conv2d((input / 255 - mean) / std, weight, bias, ...)`: the padding is zero. The
    kernel adds the bias and takes the ReLU on its way out.

    Args:
        input: x, `N C H W` of uint8, or clips `N C T H W` as they lie, of which all `C · T` planes
            are taken as channels (early fusion; Karpathy et al., CVPR 2014).
        weight: w, `K C/groups R S`, with `C · T` in place of C for clips, on the same device.
        bias: (K,).
        mean, std: a number for each of the C channels, as shares of 255; frames share them.
        stride, padding, dilation, groups: as in `conv2d`.
        relu: whether to return max(y, 0); its gradient at 0 is 0.

    Returns:
        y, `N K P Q`, of the weight's dtype.

    Raises:
        UserError: shapes, dtypes or devices do not fit each other.
    """
    sizes = stride, padding, dilation, groups
    return _convolve("conv2d_uint8", input, weight, bias, mean, std, sizes, relu)


def _convolve(op, input, weight, bias, mean, std, sizes, relu) -> Tensor:
    passes, wanted = {
        "conv2d_uint8": (_CONV2D, "(K, C/groups, R, S)"),
        "conv3d_uint8": (_CONV3D, "(K, C/groups, T, R, S)"),
    }[op]
    x, w = as_tensor(input), as_tensor(weight)
    if w.ndim != wanted.count(",") + 1:
        raise UserError(f"{op}: weight must be {wanted}, not {w.shape}")
    one_device(op, x.data, w.data)
    clip = _Clip(x.data, tuple(mean), tuple(std), conv_geometry(x.shape, w.shape, *sizes))
    b = None if bias is None else cast_bias(op, bias, w)
    return _fprop(clip, w, passes, b, relu)
