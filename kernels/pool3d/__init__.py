"""3-D pooling: the maximum or the mean of each window.

    max  fprop   y[n,c,z,p,q], argmax = max and its offset over t,r,s of x[n,c,d,h,w]
         dgrad   gx[n,c,d,h,w] = sum over the windows z,p,q whose maximum stood there of gy
         gather  y[n,c,z,p,q]  = x at argmax
    avg  fprop   y[n,c,z,p,q]  = sum over t,r,s of x[n,c,d,h,w], divided by divisor[z,p,q]
         dgrad   gx[n,c,d,h,w] = sum over the windows z,p,q that see it of gy / divisor

    where d = z * stride + t * dilation - padding, likewise h of (p, r) and w of (q, s).

Given its argmax, max pooling is a gather; dgrad, a scatter, is its adjoint, and gather is the
adjoint of dgrad: <gather(x), gy> = <x, dgrad(gy)>. Average pooling is linear as it stands,
and fprop is the adjoint of its dgrad. So both are closed under differentiation.

An argmax is the offset (t * R + r) * S + s within its window, one byte where the window has no
more than 256 cells, int32 otherwise. Padding counts as -inf (max), so that no argmax ever
points into it, or as 0 (avg). The first of equal maxima wins; NaN beats every number, and the
last NaN every other, as in PyTorch.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import PoolGeometry
from tinyvid.kernels.registry import Kernel

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def argmax_dtype(geometry: PoolGeometry) -> np.dtype:
    """Return the dtype of the offsets in a window: one byte if they fit, else int32."""
    return np.dtype(np.uint8 if math.prod(geometry.window) <= 256 else np.int32)


def _check_geometry(name: str, geometry: Any, dilated: bool) -> None:
    if not isinstance(geometry, PoolGeometry):
        raise UserError(
            f"{name}: geometry must come from pool_geometry, not be a {type(geometry).__name__}"
        )
    if not dilated and geometry.dilation != (1, 1, 1):
        raise UserError(
            f"{name}: average pooling takes no dilation, but the geometry has {geometry.dilation}"
        )


def _check_floats(name: str, letter: str, array: Any, shape: tuple[int, ...]) -> None:
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise UserError(f"{name}: {letter} must be an array, not a {type(array).__name__}")
    if array.shape != shape:
        raise UserError(f"{name}: {letter} has shape {array.shape}, not {shape} of the geometry")
    if array.dtype not in _FLOATS:
        raise UserError(f"{name}: {letter} is {array.dtype}; it must be float32 or float64")


def _check_argmax(name: str, argmax: Any, geometry: PoolGeometry) -> None:
    dtype = argmax_dtype(geometry)
    got = (getattr(argmax, "shape", None), getattr(argmax, "dtype", None))
    if got != (geometry.y, dtype):
        raise UserError(
            f"{name}: argmax must be the {dtype} array of shape {geometry.y} that "
            f"max_pool3d_fprop returned with y, not {got[1]} of shape {got[0]}"
        )


def _check_max_fprop(x: Any, geometry: PoolGeometry) -> None:
    _check_geometry("max_pool3d_fprop", geometry, dilated=True)
    _check_floats("max_pool3d_fprop", "x", x, geometry.x)


def _check_max_dgrad(gy: Any, argmax: Any, geometry: PoolGeometry) -> None:
    _check_geometry("max_pool3d_dgrad", geometry, dilated=True)
    _check_floats("max_pool3d_dgrad", "gy", gy, geometry.y)
    _check_argmax("max_pool3d_dgrad", argmax, geometry)


def _check_max_gather(x: Any, argmax: Any, geometry: PoolGeometry) -> None:
    _check_geometry("max_pool3d_gather", geometry, dilated=True)
    _check_floats("max_pool3d_gather", "x", x, geometry.x)
    _check_argmax("max_pool3d_gather", argmax, geometry)


def _check_divisor(name: str, count_include_pad: Any, divisor_override: Any) -> None:
    if not isinstance(count_include_pad, bool):
        raise UserError(f"{name}: count_include_pad={count_include_pad!r} must be True or False")
    whole = isinstance(divisor_override, (int, np.integer))
    if divisor_override is not None and (not whole or divisor_override == 0):
        raise UserError(
            f"{name}: divisor_override={divisor_override!r} must be None or an int that is not 0"
        )


def _check_avg_fprop(
    x: Any, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> None:
    _check_geometry("avg_pool3d_fprop", geometry, dilated=False)
    _check_floats("avg_pool3d_fprop", "x", x, geometry.x)
    _check_divisor("avg_pool3d_fprop", count_include_pad, divisor_override)


def _check_avg_dgrad(
    gy: Any, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> None:
    _check_geometry("avg_pool3d_dgrad", geometry, dilated=False)
    _check_floats("avg_pool3d_dgrad", "gy", gy, geometry.y)
    _check_divisor("avg_pool3d_dgrad", count_include_pad, divisor_override)


max_fprop = Kernel(
    "max_pool3d",
    "fprop",
    """`max_pool3d_fprop(x, geometry) -> (y, argmax)`: the maximum of each window, and its place.

    Args: x `N C D H W`, geometry from `pool_geometry(x.shape, ...)`.
    Returns: y and argmax, `N C Z P Q`; argmax is uint8 or int32, an offset in the window.
    Raises UserError where shape or dtype do not fit.
    """,
    _check_max_fprop,
)
max_dgrad = Kernel(
    "max_pool3d",
    "dgrad",
    """`max_pool3d_dgrad(gy, argmax, geometry) -> gx`: add each gy where its maximum stood.

    Args: gy `N C Z P Q`, argmax and geometry as of fprop.
    Returns: gx `N C D H W`. Raises UserError where shapes or dtypes do not fit.
    """,
    _check_max_dgrad,
)
max_gather = Kernel(
    "max_pool3d",
    "gather",
    """`max_pool3d_gather(x, argmax, geometry) -> y`: read x at argmax; the adjoint of dgrad.

    Args: x `N C D H W`, argmax and geometry as of fprop.
    Returns: y `N C Z P Q`. Raises UserError where shapes or dtypes do not fit.
    """,
    _check_max_gather,
)
avg_fprop = Kernel(
    "avg_pool3d",
    "fprop",
    """`avg_pool3d_fprop(x, geometry, count_include_pad, divisor_override) -> y`: window means.

    Args: x `N C D H W`, geometry from `pool_geometry(x.shape, ...)` without dilation. The sum
        over a window is divided by `divisor_override`, or, where it is None, by the number of
        the window's cells, with or without those in the padding; cells that `ceil_mode` lets
        overhang beyond the padding never count.
    Returns: y `N C Z P Q`. Raises UserError where arguments do not fit.
    """,
    _check_avg_fprop,
)
avg_dgrad = Kernel(
    "avg_pool3d",
    "dgrad",
    """`avg_pool3d_dgrad(gy, geometry, count_include_pad, divisor_override) -> gx`.

    The gradient of <gy, y> with respect to x: each window's gy / divisor, spread over its cells.
    Args: gy `N C Z P Q`, the others as of fprop.
    Returns: gx `N C D H W`. Raises UserError where arguments do not fit.
    """,
    _check_avg_dgrad,
)


def _unfit(step: str, pass_: str) -> Callable[..., str | None]:
    def unfit(*args: Any) -> str | None:
        from tinyvid.kernels.pool3d import cuda  # only where a GPU or the emulator is asked for

        geometry = next(arg for arg in args if isinstance(arg, PoolGeometry))
        return cuda.unfit(step, pass_, geometry)

    return unfit


for _kernel in (max_fprop, max_dgrad, max_gather, avg_fprop, avg_dgrad):
    _function = f"{_kernel.op.removesuffix('_pool3d')}_{_kernel.pass_}"
    _kernel.add("cpu/channels_last", f"tinyvid.kernels.pool3d.cpu:{_function}")
    # Steps of the ladder in CUDA C++, the one to prefer first.
    _steps = ("four_channels", "naive")
    if _kernel.pass_ == "gather":
        _steps = ("naive", "four_channels")  # in the fewest sectors: see cuda.py
    for _step in ("disjoint_windows", *_steps) if _kernel.pass_ == "dgrad" else _steps:
        _kernel.add(
            f"cuda/{_step}",
            f"tinyvid.kernels.pool3d.cuda:{_step}_{_function}",
            unfit=_unfit(_step, _function),
        )
    _kernel.add(
        "numba/naive",
        f"tinyvid.kernels.pool3d.numba_cuda:naive_{_function}",
        unfit=_unfit("naive", _function),
    )
    _kernel.add("reference", f"tinyvid.kernels.pool3d.reference:{_function}")
