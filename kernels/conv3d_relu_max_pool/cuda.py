"""Convolution, bias, ReLU and max pooling in CUDA C++: the launcher of `cuda/implicit_gemm`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels import conv3d_relu_max_pool, launch
from tinyvid.kernels.conv3d import cuda as conv3d
from tinyvid.kernels.conv3d.plan import SLAB, Plan, tiles
from tinyvid.kernels.operands import (
    channels_first,
    channels_last,
    check_device_of,
    dense,
    pointer,
    sizes_told,
)

FILE = launch.KERNELS / "conv3d_relu_max_pool" / "implicit_gemm.cu"
_THREADS = 128


def plan(geometry: ConvGeometry, pool: PoolGeometry, dtype: np.dtype | type) -> Plan:
    """Return how the kernel is launched: a block for each tile of windows and channels."""
    chunk = 16 // np.dtype(dtype).itemsize
    rows_each, parts = 2 * chunk, 16  # as in product.cuh, and so are the numbers below
    columns = geometry.w[0] // geometry.groups
    # Totals of several slabs take registers of their own: then a thread has half as many columns.
    one_slab = math.prod(geometry.w[1:]) <= SLAB
    width = (16 if one_slab and columns > 8 * chunk else 8) * chunk
    windows = pool.y[0] * math.prod(pool.y[2:])
    row_tiles = tiles(windows, rows_each // math.prod(pool.window) * parts)
    T, R, S = pool.window
    return Plan(
        row_tiles * tiles(columns, width) * geometry.groups,
        _THREADS,
        constants={"TILE_COLUMNS": width, "WINDOW_T": T, "WINDOW_R": R, "WINDOW_S": S},
    )


def unfit(geometry: ConvGeometry, pool: PoolGeometry, dtype: np.dtype | type) -> str | None:
    """Return why the kernel cannot take the sizes, or None if it can."""
    if pool.stride != pool.window or any(low for low, _ in pool.padding):
        return "it takes windows side by side, with strides of their size and no padding"
    if pool.dilation != (1, 1, 1) or any(
        size * window > of_x
        for size, window, of_x in zip(pool.y[2:], pool.window, pool.x[2:], strict=True)
    ):
        return "it takes whole windows without dilation"
    most = 32 // np.dtype(dtype).itemsize
    if math.prod(pool.window) > most:
        return f"it takes windows of at most {most} cells in {np.dtype(dtype)}, not {pool.window}"
    return conv3d.unfit("naive", "fprop", geometry)  # the same limits of cells


def constants(
    geometry: ConvGeometry, pool: PoolGeometry, dtype: np.dtype | type, specialised: bool = True
) -> dict[str, object]:
    """Return what the kernel is compiled with: `-Dname=value`."""
    return conv3d.constants_of(plan(geometry, pool, dtype), geometry, np.dtype(dtype), specialised)


def fprop(
    x: Any,
    w: Any,
    bias: Any,
    geometry: ConvGeometry,
    pool: PoolGeometry,
    *,
    device: str = "cuda",
    specialised: bool | None = None,
) -> tuple[Any, Any]:
    """Return y and argmax; see `tinyvid.kernels.conv3d_relu_max_pool`.

    Args:
        device: `cuda`, with CuPy arrays, or `emulator`, with NumPy's.
        specialised: compile the sizes in; by default on a GPU only.

    Raises:
        UserError: shapes, dtypes or devices do not fit, the kernel cannot take the sizes, or
            there is not enough memory.
    """
    kernel = conv3d_relu_max_pool.fprop
    kernel.check(x, w, bias, geometry, pool)
    check_device_of(kernel.name, (x, w, bias), device)
    why = unfit(geometry, pool, x.dtype)
    if why is not None:
        raise UserError(f"{kernel.name}: 'cuda/implicit_gemm' cannot take this case: {why}")
    N, K, *sizes = pool.y
    shape = (N, *sizes, K)  # in memory
    told = {
        "operands": [(array.shape, array.dtype) for array in (x, w)],
        "a result": [(shape, x.dtype), (shape, np.uint8)],
    }
    with sizes_told(kernel.name, "cuda/implicit_gemm", told):
        operands = [channels_last(array, device) for array in (x, w)]
        y = launch.empty(shape, x.dtype, device)
        argmax = launch.empty(shape, np.uint8, device)
        finish = pointer(dense(bias, device), device)
    if math.prod(shape):
        if specialised is None:
            specialised = device == "cuda"
        module = launch.load(FILE, constants(geometry, pool, x.dtype, specialised), device)
        how = plan(geometry, pool, x.dtype)
        with launch.geometry_held(module, conv3d.members(geometry), specialised, device):
            module.get_function("conv3d_relu_max_pool_fprop")(
                (how.blocks,), (how.threads,), [*operands, finish, y, argmax]
            )
    return channels_first(y), channels_first(argmax)
