"""Launches `first_layer.cu`: convolution of clips of bytes, `cuda/first_layer`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import cuda
from tinyvid.kernels.conv3d.plan import BLOCKS, SLICE, Plan, lost, product_columns, tiles
from tinyvid.kernels.operands import (
    channels_first,
    channels_last,
    check_device_of,
    dense,
    pointer,
    sizes_told,
)

CHANNELS = 3
_FILE = launch.KERNELS / "conv3d" / "first_layer.cu"


def unfit(geometry: ConvGeometry) -> str | None:
    """Return why the kernels cannot take a geometry, or None if they can."""
    if geometry.x[1] != CHANNELS or geometry.groups != 1:
        return (
            f"it takes clips of {CHANNELS} channels in one group, not of {geometry.x[1]} in "
            f"{geometry.groups}"
        )
    return cuda.unfit("naive", "fprop", geometry)  # the same limits of cells


def plan(pass_: str, geometry: ConvGeometry, dtype: np.dtype) -> Plan:
    """Return how a pass is launched."""
    chunk = 16 // dtype.itemsize
    rows, K = 32 * chunk, geometry.w[0]  # rows of a block's tile
    width = product_columns(K, chunk)
    cells = geometry.x[0] * math.prod(geometry.y[2:])
    of_rows = cells if pass_ == "fprop" else math.prod(geometry.w[1:])
    blocks = tiles(of_rows, rows) * tiles(K, width * chunk)
    if pass_ == "fprop":  # as many taps in a stage as there is room for
        slices, terms = 1, tiles(math.prod(geometry.w[2:]), 4 * chunk // CHANNELS) * 4 * chunk
    else:
        slices, terms = max(1, min(BLOCKS // blocks, tiles(cells, SLICE))), cells
    return Plan(
        blocks * slices,
        256 if width == 32 else 128,
        slices=slices,
        constants={"TILE_COLUMNS": width * chunk},
        workspace=(lost(pass_, geometry, terms, slices),),
    )


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
    kernel: str = "conv3d_uint8_fprop",
) -> Any:
    """Return y, `N K Z P Q`, channels-last in memory; see `tinyvid.kernels.conv3d.uint8`.

    Args:
        device: `cuda` or `emulator`. specialised: compile the sizes in; by default on a GPU only.
        kernel: what it is called in messages.

    Raises:
        UserError: shapes, dtypes or devices do not fit, or there is not enough memory.
    """
    from tinyvid.kernels.conv3d import uint8

    uint8.fprop.check(x, w, mean, std, geometry, bias, relu)
    return _run("fprop", kernel, (x, w), mean, std, geometry, (bias, relu), device, specialised)


def wgrad(
    gy: Any,
    x: Any,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    *,
    device: str = "cuda",
    specialised: bool | None = None,
    kernel: str = "conv3d_uint8_wgrad",
) -> Any:
    """Return gw, `K 3 T R S`, channels-last in memory; otherwise as `fprop`."""
    from tinyvid.kernels.conv3d import uint8

    uint8.wgrad.check(gy, x, mean, std, geometry)
    return _run("wgrad", kernel, (gy, x), mean, std, geometry, (), device, specialised)


def _run(
    pass_: str,
    kernel: str,
    arrays: tuple[Any, Any],
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    finish: tuple[Any, ...],
    device: str,
    specialised: bool | None,
) -> Any:
    check_device_of(kernel, (*arrays, *finish[:1]), device)
    why = unfit(geometry)
    if why is not None:
        raise UserError(f"{kernel}: 'cuda/first_layer' cannot take this case: {why}")
    dtype = arrays[1 if pass_ == "fprop" else 0].dtype
    how = plan(pass_, geometry, dtype)
    if specialised is None:
        specialised = device == "cuda"
    constants = cuda.constants_of(how, geometry, dtype, specialised)
    module = launch.load(_FILE, constants, device)
    N, channels, *cells = geometry.y if pass_ == "fprop" else geometry.w
    shape = (N, *cells, channels)  # in memory
    slices = [(how.slices, *shape)] if how.slices > 1 else []
    sizes = {
        "operands": [(array.shape, array.dtype) for array in arrays],
        "a result": [(shape, dtype)],
        "a workspace": [(size, dtype) for size in (*slices, *how.workspace)],
    }
    with sizes_told(kernel, "cuda/first_layer", sizes):
        operands = [channels_last(array, device) for array in arrays]
        out = launch.empty(shape, dtype, device)
        target = launch.empty(slices[0], dtype, device) if slices else out
        workspace = [launch.empty(size, dtype, device) for size in how.workspace]
        if finish:
            bias, relu = finish
            finish = pointer(dense(bias, device), device), np.int32(relu)
    # u = x * scale + shift
    scale = [dtype.type(1 / (255 * s)) for s in std]
    shift = [dtype.type(-m / s) for m, s in zip(mean, std, strict=True)]
    if not geometry.x[0]:
        out[...] = 0  # no example
    else:
        with launch.geometry_held(module, cuda.members(geometry), specialised, device):
            run = module.get_function(f"conv3d_uint8_{pass_}")
            args = [*operands, *scale, *shift, *finish, target, *workspace]
            run((how.blocks,), (how.threads,), args)
    if how.slices > 1:
        no_finish = [pointer(None, device), np.int32(0), np.int32(1)]
        module.get_function("conv3d_sum_slices")(
            (tiles(out.size, 256),),
            (256,),
            [target, np.int32(how.slices), *no_finish, out, np.int64(out.size)],
        )
    return channels_first(out)
