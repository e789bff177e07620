"""A 3-D convolution with the max pooling that follows it, so that what lies between is not kept.

    fprop   y, argmax = max_pool3d_fprop(relu(conv3d_fprop(x, w) + bias))

Of a network's activations, those before its first pooling are the largest: in C3D they take 51 MB
a clip, four times what they are pooled to. A pass that has only y and argmax left can
go back: the gradient of what was pooled is that of y where y > 0, at argmax
(`max_pool3d_dgrad`), and zero elsewhere.
"""

from typing import Any

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels.conv3d import checker
from tinyvid.kernels.registry import Kernel

_check_xw = checker("conv3d_relu_max_pool", "fprop", "x", "w")


def _check(x: Any, w: Any, bias: Any, geometry: ConvGeometry, pool: PoolGeometry) -> None:
    _check_xw(x, w, geometry)
    if bias is not None:
        got = f"a {type(bias).__name__}"
        if hasattr(bias, "shape") and hasattr(bias, "dtype"):
            got = f"{bias.shape} of {bias.dtype}"
        wanted = f"{geometry.w[:1]} of {w.dtype}"
        if got != wanted:
            raise UserError(f"conv3d_relu_max_pool_fprop: bias must be {wanted}, not {got}")
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


def _unfit(x: Any, w: Any, bias: Any, geometry: ConvGeometry, pool: PoolGeometry) -> str | None:
    # Only where a GPU or the emulator is asked for.
    from tinyvid.kernels.conv3d_relu_max_pool import cuda

    return cuda.unfit(geometry, pool, x.dtype)


_FOLDER = "tinyvid.kernels.conv3d_relu_max_pool"
fprop.add("cpu/im2col", f"{_FOLDER}.cpu:fprop")
fprop.add("cuda/implicit_gemm", f"{_FOLDER}.cuda:fprop", unfit=_unfit)
fprop.add("reference", f"{_FOLDER}.reference:fprop")
