"""2-D convolution and early fusion in CUDA C++: `cuda/*`, by the kernels of 3-D convolution.

A filter that sees all frames of a clip is a 3-D filter with one place to stand along time, so the
ladder is that of 3-D convolution, and the clip is read as it lies (`over_time`). Not so where time
as an axis of taps would waste work; there the `C*T` planes are the channels (`planes`):

- dgrad: each cell of gx meets the one tap of its own frame, and would look at all the others. The
  planes of gx are its last axis in memory, and the clip `N C T H W` is a view of that.
- fprop and wgrad by the steps that multiply matrices, where a group has fewer channels than a
  stage of the sum has terms, as the colours of a clip: a stage begins anew with each tap, and 13 of
  its 16 terms would be zeros. The clip is copied once, filled up with planes of zeros to whole
  chunks, and 128 bits of planes load at a time. As it lies, frame by frame, only 32 bits could:
  windows and taps begin a cell apart, 128 bits at each fourth. For bytes, which are to be taken
  apart and normalised anyway, `first_layer` does so.
- fprop and wgrad by tiles in shared memory, where a whole filter's depth of a clip has no room.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import conv2d, launch
from tinyvid.kernels.conv2d.over_time import over_time, planes
from tinyvid.kernels.conv3d import cuda as conv3d
from tinyvid.kernels.conv3d.plan import OUTPUT
from tinyvid.kernels.operands import channels_first, check_device_of, sizes_told

STEPS = ("naive", "tiled", "implicit_gemm", "tf32", "bf16")  # those of `conv3d.STEPS` taken here
FEW_CHANNELS = 16  # of a group: fewer do not fill a stage of `conv3d/operands.cuh`


def fprop(
    x: Any,
    w: Any,
    geometry: ConvGeometry,
    bias: Any = None,
    relu: bool = False,
    *,
    step: str = "implicit_gemm",
    device: str = "cuda",
    specialised: bool | None = None,
) -> Any:
    """Return y, with the bias added and the ReLU taken on its way out where they are asked for.

    Args:
        x: `N C H W`, or a clip `N C T H W`. w: `K C/groups R S`, for clips `K C*T/groups R S`.
            bias: `K`, or None. All of one dtype, float32 or float64 (tf32 and bf16: float32),
            NumPy arrays for the emulator and CuPy arrays for a GPU.
        geometry: from `tinyvid.geometry.conv_geometry`.
        step: of the ladder, one of `STEPS`. device: `cuda` or `emulator`.
        specialised: compile the sizes in; by default on a GPU only.

    Returns:
        y, `N K P Q`, channels-last in memory.

    Raises:
        UserError: shapes, dtypes or devices do not fit, the step cannot take the geometry, or
            there is not enough memory.
    """
    return _run("fprop", (x, w), geometry, step, device, specialised, bias, relu)


def dgrad(
    gy: Any,
    w: Any,
    geometry: ConvGeometry,
    *,
    step: str = "implicit_gemm",
    device: str = "cuda",
    specialised: bool | None = None,
) -> Any:
    """Return gx, of the shape of x, from gy, `N K P Q`, and w; otherwise as `fprop`.

    In memory the planes of gx are its last axis: `N H W C T`.
    """
    return _run("dgrad", (gy, w), geometry, step, device, specialised)


def wgrad(
    gy: Any,
    x: Any,
    geometry: ConvGeometry,
    *,
    step: str = "implicit_gemm",
    device: str = "cuda",
    specialised: bool | None = None,
) -> Any:
    """Return gw, of the shape of w, from gy, `N K P Q`, and x; otherwise as `fprop`."""
    return _run("wgrad", (gy, x), geometry, step, device, specialised)


def _passes(step: str) -> tuple[Callable[..., Any], ...]:
    return tuple(partial(pass_, step=step) for pass_ in (fprop, dgrad, wgrad))


# What the registry names: a pass at a step.
naive_fprop, naive_dgrad, naive_wgrad = _passes("naive")
tiled_fprop, tiled_dgrad, tiled_wgrad = _passes("tiled")
implicit_gemm_fprop, implicit_gemm_dgrad, implicit_gemm_wgrad = _passes("implicit_gemm")
tf32_fprop, tf32_dgrad, tf32_wgrad = _passes("tf32")
bf16_fprop, bf16_dgrad, bf16_wgrad = _passes("bf16")


def solid(step: str, pass_: str, geometry: ConvGeometry, dtype: Any) -> ConvGeometry:
    """Return the geometry of the 3-D convolution that a step runs for a 2-D one.

    It may have more channels than the clip has planes: the rest are zeros.
    """
    lying = over_time(geometry)
    if pass_ == "dgrad":
        return planes(geometry)
    if lying.w[1] >= FEW_CHANNELS or lying.w[2] == 1 or step == "naive":
        return lying
    if step == "tiled":
        return planes(geometry) if conv3d.unfit(step, pass_, lying, dtype) else lying
    chunk = 16 // (2 if step == "bf16" else np.dtype(dtype).itemsize)
    return planes(geometry, chunk if geometry.groups == 1 else 1)


def unfit(
    step: str, pass_: str, geometry: ConvGeometry, dtype: np.dtype | type = np.float64
) -> str | None:
    """Return why a step of the ladder cannot take a geometry, or None if it can."""
    return conv3d.unfit(step, pass_, solid(step, pass_, geometry, dtype), dtype)


LETTERS = {"fprop": "xw", "dgrad": "yw", "wgrad": "yx"}  # operands, as a geometry names them


def _run(
    pass_: str,
    arrays: tuple[Any, Any],
    geometry: ConvGeometry,
    step: str,
    device: str,
    specialised: bool | None,
    bias: Any = None,
    relu: bool = False,
) -> Any:
    kernel = f"conv2d_{pass_}"
    getattr(conv2d, pass_).check(*arrays, geometry)
    check_device_of(kernel, (*arrays, bias), device)
    of_3d = solid(step, pass_, geometry, arrays[0].dtype)
    told = {"operands": [(array.shape, array.dtype) for array in arrays]}
    with sizes_told(kernel, f"cuda/{step}", told):
        operands = [
            _in_3d(array, getattr(of_3d, letter), device)
            for array, letter in zip(arrays, LETTERS[pass_], strict=True)
        ]
    finish = {"bias": bias, "relu": relu} if pass_ == "fprop" else {}
    out = getattr(conv3d, pass_)(
        *operands,
        of_3d,
        **finish,
        step=step,
        device=device,
        specialised=specialised,
        kernel=kernel,
    )
    if pass_ == "wgrad" and of_3d.w[1] > geometry.w[1]:
        out = out[:, : geometry.w[1]]
    return out.reshape(getattr(geometry, OUTPUT[pass_]))


def _in_3d(array: Any, shape: tuple[int, ...], device: str) -> Any:
    """Return an operand in the shape of the 3-D convolution.

    Where that puts the planes of a clip into one axis, or fills up channels with zeros, it is a
    copy, channels-last in memory.
    """
    if array.size == math.prod(shape) and (array.ndim == 4 or array.shape == shape):
        return array.reshape(shape)
    N, channels, _, H, W = shape
    last = launch.empty((N, 1, H, W, channels), array.dtype, device)
    last[..., math.prod(array.shape[1:-2]) :] = 0
    # (N, C, T, H, W) as it is, or a filter's (K, C*T, R, S) as (K, 1, C*T, R, S)
    of_channel = array.reshape(N, 1, *array.shape[-3:]) if array.ndim == 4 else array
    T = of_channel.shape[2]
    for c in range(of_channel.shape[1]):
        last[:, 0, ..., c * T : (c + 1) * T] = of_channel[:, c].transpose(0, 2, 3, 1)
    return channels_first(last)
