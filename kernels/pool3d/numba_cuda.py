"""3-D pooling in Python, for Numba: the launchers of `numba/*`, steps of the ladder to read.

Kernels are those of `naive.cu` in `numba_naive.py`, on arrays in the same order in memory.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

from tinyvid.errors import UserError
from tinyvid.geometry import PoolGeometry
from tinyvid.kernels import launch, numba_launch, pool3d
from tinyvid.kernels.operands import channels_first, channels_last, check_device_of, sizes_told
from tinyvid.kernels.pool3d import numba_naive
from tinyvid.kernels.pool3d.cuda import THREADS, members, unfit

# The members of `geometry.cuh`, in their order.
Geometry = namedtuple(
    "Geometry",
    "N C D H W T R S Z P Q stride_d stride_h stride_w padding_d padding_h padding_w "
    "dilation_d dilation_h dilation_w",
)

# The passes take the arguments of the kernels of the same names in `tinyvid.kernels.pool3d`, and
# `device`: `cuda`, with CuPy arrays, or `emulator`, with NumPy's, where Numba's simulator is on.
# Results are channels-last in memory. They raise UserError where arguments do not fit or there is
# not enough memory.


def naive_max_fprop(x: Any, geometry: PoolGeometry, *, device: str = "cuda") -> tuple[Any, Any]:
    """Return y and argmax, `N C Z P Q`, of x, `N C D H W`."""
    y, argmax = _run("max_fprop", (x,), geometry, device)
    return y, argmax


def naive_max_dgrad(gy: Any, argmax: Any, geometry: PoolGeometry, *, device: str = "cuda") -> Any:
    """Return gx, `N C D H W`, of gy and argmax, `N C Z P Q`."""
    return _run("max_dgrad", (gy, argmax), geometry, device)[0]


def naive_max_gather(x: Any, argmax: Any, geometry: PoolGeometry, *, device: str = "cuda") -> Any:
    """Return y, `N C Z P Q`: what stands in x, `N C D H W`, at argmax."""
    return _run("max_gather", (x, argmax), geometry, device)[0]


def naive_avg_fprop(
    x: Any,
    geometry: PoolGeometry,
    count_include_pad: bool,
    divisor_override: int | None,
    *,
    device: str = "cuda",
) -> Any:
    """Return y, `N C Z P Q`: the means of the windows of x, `N C D H W`."""
    return _run("avg_fprop", (x,), geometry, device, (count_include_pad, divisor_override))[0]


def naive_avg_dgrad(
    gy: Any,
    geometry: PoolGeometry,
    count_include_pad: bool,
    divisor_override: int | None,
    *,
    device: str = "cuda",
) -> Any:
    """Return gx, `N C D H W`, of gy, `N C Z P Q`."""
    return _run("avg_dgrad", (gy,), geometry, device, (count_include_pad, divisor_override))[0]


def _run(
    pass_: str,
    arrays: tuple[Any, ...],
    geometry: PoolGeometry,
    device: str,
    divisor: tuple[Any, ...] = (),
) -> list[Any]:
    kernel = getattr(pool3d, pass_)
    kernel.check(*arrays, geometry, *divisor)
    check_device_of(kernel.name, arrays, device)
    why = unfit("naive", pass_, geometry)
    if why is not None:
        raise UserError(f"{kernel.name}: 'numba/naive' cannot take this case: {why}")

    dtype = arrays[0].dtype
    N, C, *cells = geometry.x if pass_.endswith("dgrad") else geometry.y
    shape = (N, *cells, C)  # in memory
    dtypes = [dtype, pool3d.argmax_dtype(geometry)] if pass_ == "max_fprop" else [dtype]
    sizes = {
        "operands": [(array.shape, array.dtype) for array in arrays],
        "a result": [(shape, each) for each in dtypes],
    }
    with sizes_told(kernel.name, "numba/naive", sizes):
        operands = [channels_last(array, device) for array in arrays]
        results = [launch.empty(shape, each, device) for each in dtypes]
    if math.prod(shape):
        numbers = []
        if divisor:
            counts, given = divisor
            numbers = [given or 0, int(counts)]  # 0: count the cells
        numba_launch.run(
            getattr(numba_naive, f"pool3d_{pass_}_naive"),
            -(-math.prod(shape) // THREADS),
            THREADS,
            operands,
            results,
            Geometry(**members(geometry)),
            *numbers,
            device=device,
        )
    return [channels_first(result) for result in results]
