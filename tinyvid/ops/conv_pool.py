"""A convolution with its ReLU and max pooling as one operation, which keeps nothing in between.

The gradient of y goes, where y > 0, to the cells of the convolution's output at argmax, and from
there through the passes of the convolution. Given argmax and the sign of y all of this is linear
in the gradient, and each step is a differentiable operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyvid import kernels
from tinyvid.device import one_device
from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry, PoolGeometry, conv_geometry, pool_geometry
from tinyvid.ops.conv import _dgrad, _fprop, _passes, _wgrad, cast_bias
from tinyvid.ops.pool import _gather, _scatter
from tinyvid.ops.reduce import sum
from tinyvid.tensor import Edge, Tensor, as_tensor, record, takes_arrays


@takes_arrays
def conv3d_relu_max_pool(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_size: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Return `max_pool3d(relu(conv3d(input, weight, bias, ...)), kernel_size)`.

    What is pooled, a network's largest array if this is its first layer, is not kept for the
    backward pass, and with `cuda/implicit_gemm` never written to memory.

    Args:
        input: x, `N C D H W`.
        weight: w, `K C/groups T R S`.
        bias: (K,).
        kernel_size: of the pooling, whose stride is the same: an int, or one for each of Z, P, Q.
        stride, padding, dilation, groups: of the convolution, as in `conv3d`.

    Returns:
        y, `N K Z P Q`.

    Raises:
        UserError: shapes, dtypes or devices do not fit each other, or, on a GPU, the window has
            more than 8 cells (4 in float64).
    """
    w = as_tensor(weight)
    if w.ndim != 5:
        raise UserError(
            f"conv3d_relu_max_pool: weight must be (K, C/groups, T, R, S), not of shape {w.shape}"
        )
    b = None if bias is None else cast_bias("conv3d_relu_max_pool", bias, w)
    arrays = [input.data, w.data] if b is None else [input.data, w.data, b.data]
    one_device("conv3d_relu_max_pool", *arrays)
    geometry = conv_geometry(input.shape, w.shape, stride, padding, dilation, groups)
    pool = pool_geometry(geometry.y, kernel_size)
    array, argmax = kernels.conv3d_relu_max_pool_fprop(
        *arrays, *([None] if b is None else []), geometry, pool, device=input.device
    )
    passes = _passes("conv3d")

    def rectified(gy: Tensor, y: Tensor) -> Tensor:
        return gy * (y > 0)

    def unpooled(gy: Tensor, y: Tensor) -> Tensor:
        return _scatter(rectified(gy, y), argmax, pool)

    def wgrad(gy: Tensor, y: Tensor) -> Tensor:
        if w.device == "cpu":
            return _wgrad_at(rectified(gy, y), argmax, input, geometry, pool)
        return _wgrad(unpooled(gy, y), input, geometry, passes)

    edges: list[Edge] = [
        (input, lambda gy, y: _dgrad(unpooled(gy, y), w, geometry, passes)),
        (w, wgrad),
    ]
    if b is not None:
        # Each gradient goes to one cell, and the bias was added to them all.
        edges.append((b, lambda gy, y: sum(rectified(gy, y), (0, 2, 3, 4))))
    return record(array, *edges, saved=(input, w))


def _wgrad_at(
    gy: Tensor, argmax: Any, x: Tensor, geometry: ConvGeometry, pool: PoolGeometry
) -> Tensor:
    """Return gw of what was pooled: as of `_wgrad(_scatter(gy, argmax, pool), x)`."""
    passes = _passes("conv3d")
    return record(
        kernels.conv3d_relu_max_pool_wgrad(gy.data, argmax, x.data, geometry, pool),
        (gy, lambda ggw, gw: _gather(_fprop(x, ggw, geometry, passes), argmax, pool)),
        (x, lambda ggw, gw: _dgrad(_scatter(gy, argmax, pool), ggw, geometry, passes)),
        saved=(gy, x),
    )
