"""Convolutions: one trilinear form, whose three passes are each other's derivatives.

With T(gy, x, w) = <gy, conv(x, w)>, fprop is the gradient of T with respect to gy, dgrad the
one with respect to x, and wgrad the one with respect to w. Each is linear in its two
arguments, so that the rule of each pass is made of the other two, for any order of derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tinyvid import kernels
from tinyvid.device import one_device
from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry, conv_geometry
from tinyvid.kernels import Kernel
from tinyvid.ops.elementwise import cast, through_relu
from tinyvid.ops.reduce import sum
from tinyvid.tensor import Edge, Tensor, as_tensor, record, takes_arrays


class _Passes(NamedTuple):
    fprop: Kernel
    dgrad: Kernel
    wgrad: Kernel


@lru_cache
def _passes(op: str) -> _Passes:
    return _Passes(*(getattr(kernels, f"{op}_{name}") for name in _Passes._fields))


def _fprop(
    x: Tensor,
    w: Tensor,
    geometry: ConvGeometry,
    passes: _Passes,
    bias: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    finish = () if bias is None and not relu else (None if bias is None else bias.data, relu)
    return record_finished(
        passes.fprop(x.data, w.data, geometry, *finish, device=x.device),
        (x, lambda gy, y: _dgrad(gy, w, geometry, passes)),
        (w, lambda gy, y: _wgrad(gy, x, geometry, passes)),
        saved=(x, w),
        bias=bias,
        relu=relu,
    )


def _dgrad(gy: Tensor, w: Tensor, geometry: ConvGeometry, passes: _Passes) -> Tensor:
    return record(
        passes.dgrad(gy.data, w.data, geometry, device=gy.device),
        (gy, lambda ggx, gx: _fprop(ggx, w, geometry, passes)),
        (w, lambda ggx, gx: _wgrad(gy, ggx, geometry, passes)),
        saved=(gy, w),
    )


def _wgrad(gy: Tensor, x: Tensor, geometry: ConvGeometry, passes: _Passes) -> Tensor:
    return record(
        passes.wgrad(gy.data, x.data, geometry, device=gy.device),
        (gy, lambda ggw, gw: _fprop(x, ggw, geometry, passes)),
        (x, lambda ggw, gw: _dgrad(gy, ggw, geometry, passes)),
        saved=(gy, x),
    )


def record_finished(
    array: Any, *edges: Edge, saved: Sequence[Tensor], bias: Tensor | None, relu: bool
) -> Tensor:
    """Record a convolution whose kernel has added the bias and taken the ReLU, where given.

    Args:
        array: its result. edges, saved: as of `record`, for the convolution alone.
    """
    if bias is not None:
        all_but_K = (0, *range(2, array.ndim))
        edges = (*edges, (bias, lambda gy, y: sum(gy, all_but_K)))
    y = record(array, *edges, saved=saved)
    # The same array under another name: so what the ReLU lets through of a gradient is worked out
    # once for all inputs. Rules of `y` above do not look at its values, which the ReLU has changed.
    return record(array, (y, lambda gy, y: through_relu(gy, y))) if relu else y


def cast_bias(op: str, bias: Any, w: Tensor) -> Tensor:
    """Return a bias as a tensor of the filters' dtype.

    Raises:
        UserError: it has another shape than (K,), or is on another device.
    """
    b = cast(bias, w.dtype)
    if b.shape != w.shape[:1]:
        raise UserError(f"bias of shape {b.shape} for {w.shape[0]} output channels")
    one_device(op, w.data, b.data)
    return b


@takes_arrays
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """Correlate a batch of clips with 3-D filters.

    Args:
        input: x, `N C D H W`.
        weight: w, `K C/groups T R S`.
        bias: (K,).
        stride, padding, dilation: an int, or one for each of D, H, W; padding may be "same"
            or "valid".
        groups: the channels fall into this many groups that do not see each other.
        relu: whether to return max(y, 0), taken by the kernel on its way out; its gradient at 0
            is 0.

    Returns:
        y, `N K Z P Q`.

    Raises:
        UserError: shapes, dtypes or devices do not fit each other.
    """
    return _convolve(input, weight, bias, stride, padding, dilation, groups, relu, 3)


@takes_arrays
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """Correlate a batch of images with 2-D filters; of clips, with all frames at once.

    Args:
        input: x, `N C H W`, or clips `N C T H W` as they lie, of which all `C · T` planes
            are taken as channels (early fusion; Karpathy et al., CVPR 2014).
        weight: w, `K C/groups R S`, with `C · T` in place of C for clips.
        bias, stride, padding, dilation, groups, relu: as in `conv3d`, with two axes.

    Returns:
        y, `N K P Q`.

    Raises:
        UserError: shapes, dtypes or devices do not fit each other.
    """
    return _convolve(input, weight, bias, stride, padding, dilation, groups, relu, 2)


def _convolve(input, weight, bias, stride, padding, dilation, groups, relu, rank: int) -> Tensor:
    weight = as_tensor(weight)
    if weight.ndim != rank + 2:
        wanted = "(K, C/groups, T, R, S)" if rank == 3 else "(K, C/groups, R, S)"
        raise UserError(f"conv{rank}d: weight must be {wanted}, not of shape {weight.shape}")
    op = f"conv{rank}d"
    one_device(op, input.data, weight.data)
    geometry = conv_geometry(input.shape, weight.shape, stride, padding, dilation, groups)
    b = None if bias is None else cast_bias(op, bias, weight)
    return _fprop(input, weight, geometry, _passes(op), b, relu)
