"""2-D convolution and early fusion in CUDA C++: `cuda/*`, by the kernels of 3-D convolution.

A filter that sees all frames of a clip is a 3-D filter with one place to stand along time, so the
ladder is that of 3-D convolution, and the clip is read as it lies (`over_time`). Not so where time
as an axis of taps would waste work; there the `C*T` planes are the channels (`planes`):

- dgrad: each cell of gx meets the one tap of its own frame, and would look at all the others. The
  planes of gx are its last axis in memory, and the clip `N C T H W` is a view of that.
- fprop and wgrad by the steps that multiply matrices, where a group has fewer channels than a
  stage of the sum has terms, as the colours of a clip: a stage begins anew with each tap, and most
  of its terms would be zeros. The clip is copied once, and 128 bits of planes load at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import conv2d
from tinyvid.kernels.conv2d.over_time import over_time, planes
from tinyvid.kernels.conv3d import cuda as conv3d
from tinyvid.kernels.conv3d.plan import OUTPUT
from tinyvid.kernels.operands import check_device_of, dense, sizes_told

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


def solid(step: str, pass_: str, geometry: ConvGeometry) -> ConvGeometry:
    """Return the geometry of the 3-D convolution that a step runs for a 2-D one."""
    lying = over_time(geometry)
    multiplies = step not in ("naive", "tiled")
    narrow = multiplies and lying.w[1] < FEW_CHANNELS
    return planes(geometry) if pass_ == "dgrad" or narrow else lying


def unfit(
    step: str, pass_: str, geometry: ConvGeometry, dtype: np.dtype | type = np.float64
) -> str | None:
    """Return why a step of the ladder cannot take a geometry, or None if it can."""
    return conv3d.unfit(step, pass_, solid(step, pass_, geometry), dtype)


_LETTERS = {"fprop": "xw", "dgrad": "yw", "wgrad": "yx"}  # operands, as a geometry names them


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
    of_3d = solid(step, pass_, geometry)
    sizes = {"operands": [(array.shape, array.dtype) for array in arrays]}
    with sizes_told(kernel, f"cuda/{step}", sizes):
        operands = [
            reshaped(array, getattr(of_3d, letter), device)
            for array, letter in zip(arrays, _LETTERS[pass_], strict=True)
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
    return out.reshape(getattr(geometry, OUTPUT[pass_]))


def reshaped(array: Any, shape: tuple[int, ...], device: str) -> Any:
    """Return the array in the shape of the 3-D convolution; planes lie last in memory."""
    if array.ndim == 5 and array.shape != shape:  # a clip N C T H W -> N C*T 1 H W
        N, planes_, _, H, W = shape
        last = dense(array.transpose(0, 3, 4, 1, 2), device).reshape(N, 1, H, W, planes_)
        return last.transpose(0, 4, 1, 2, 3)
    return array.reshape(shape)
