"""A 3-D convolution with the max pooling that follows it, so that what lies between is not kept.

    fprop   y, argmax = max_pool3d_fprop(relu(conv3d_fprop(x, w) + bias))

Of a network's activations, those before its first pooling are the largest: in C3D they take 51 MB
a clip, four times what they are pooled to. A pass that has only y and argmax left can
go back: the gradient of what was pooled is that of y where y > 0, at argmax
(`max_pool3d_dgrad`), and zero elsewhere.

    wgrad   gw[k,c,t,r,s] = sum over n and windows of gy[n,k,window] * x[n,c,d,h,v]

where (d, h, v) is what tap (t, r, s) reads for the cell that argmax[n,k,window] names: so only one
cell of each window is multiplied at all.
"""

from __future__ import annotations

from typing import Any

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels.conv3d import check_bias, checker
from tinyvid.kernels.conv3d.costs import costs, directly, im2col
from tinyvid.kernels.pool3d import argmax_dtype
from tinyvid.kernels.registry import Kernel

_check_xw = checker("conv3d_relu_max_pool", "fprop", "x", "w")


def _check(x: Any, w: Any, bias: Any, geometry: ConvGeometry, pool: PoolGeometry) -> None:
    _check_xw(x, w, geometry)
    if bias is not None:
        check_bias("conv3d_relu_max_pool_fprop", w, bias)
    if not isinstance(pool, PoolGeometry) or pool.x != geometry.y:
        other = pool.x if isinstance(pool, PoolGeometry) else type(pool).__name__
        raise UserError(
            f"conv3d_relu_max_pool_fprop: pool must be the pool_geometry of {geometry.y}, "
            f"which the convolution puts out, not of {other}"
        )


fprop = Kernel(
    "conv3d_relu_max_pool",
    "fprop",
    """`conv3d_relu_max_pool_fprop(x, w, bias, geometry, pool) -> (y, argmax)`.

    Args: x `N C D H W`, w `K C/groups T R S`, bias `K` or None, geometry from
    `conv_geometry(x.shape, w.shape, ...)`, pool from `pool_geometry(geometry.y, ...)`.
    Returns: y and argmax of the shape `pool.y`, as `max_pool3d_fprop` does.
    Raises UserError where shapes or dtypes do not fit.
    """,
    _check,
)


def _check_wgrad(gy: Any, argmax: Any, x: Any, geometry: ConvGeometry, pool: PoolGeometry) -> None:
    name = "conv3d_relu_max_pool_wgrad"
    if not isinstance(pool, PoolGeometry) or pool.x != geometry.y or x.shape != geometry.x:
        raise UserError(f"{name}: x of shape {x.shape} does not fit {geometry} and {pool}")
    if gy.shape != pool.y or argmax.shape != pool.y:
        raise UserError(
            f"{name}: gy of shape {gy.shape} and argmax of shape {argmax.shape} must be {pool.y}"
        )
    if gy.dtype != x.dtype or argmax.dtype != argmax_dtype(pool):
        raise UserError(
            f"{name}: gy of {gy.dtype} and x of {x.dtype} must be the same, and argmax of "
            f"{argmax.dtype} must be of {argmax_dtype(pool)}"
        )


wgrad = Kernel(
    "conv3d_relu_max_pool",
    "wgrad",
    """`conv3d_relu_max_pool_wgrad(gy, argmax, x, geometry, pool) -> gw`.

    Args: gy, of the shape `pool.y`: zero where the ReLU let nothing through; argmax as of fprop;
    x, geometry and pool as of fprop, with windows side by side.
    Returns: gw `K C/groups T R S`. Raises UserError where shapes or dtypes do not fit.
    """,
    _check_wgrad,
)


def _unfit(x: Any, w: Any, bias: Any, geometry: ConvGeometry, pool: PoolGeometry) -> str | None:
    # Only where a GPU or the emulator is asked for.
    from tinyvid.kernels.conv3d_relu_max_pool import cuda

    return cuda.unfit(geometry, pool, x.dtype)


def why_no_bands(pool: PoolGeometry) -> str | None:
    """Return why what is pooled cannot be cut into bands of whole windows, or None."""
    if pool.stride != pool.window or any(low for low, _ in pool.padding):
        return "it takes windows side by side, with strides of their size and no padding"
    if pool.dilation != (1, 1, 1) or any(
        size * window > of_x
        for size, window, of_x in zip(pool.y[2:], pool.window, pool.x[2:], strict=True)
    ):
        return "it takes whole windows without dilation"
    return None


_FOLDER = "tinyvid.kernels.conv3d_relu_max_pool"
fprop.add("cpu/im2col", f"{_FOLDER}.cpu:fprop", cost=costs(im2col, "fprop"))
fprop.add(
    "cpu/direct",
    f"{_FOLDER}.direct:fprop",
    unfit=lambda x, w, bias, geometry, pool: why_no_bands(pool),
    cost=costs(directly, "fprop"),
)
fprop.add("cuda/implicit_gemm", f"{_FOLDER}.cuda:fprop", unfit=_unfit)
fprop.add("reference", f"{_FOLDER}.reference:fprop")
wgrad.add(
    "cpu/direct",
    f"{_FOLDER}.direct:wgrad",
    unfit=lambda gy, argmax, x, geometry, pool: why_no_bands(pool),
)
wgrad.add("reference", f"{_FOLDER}.reference:wgrad")
