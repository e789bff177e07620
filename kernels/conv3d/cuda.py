"""3-D convolution in CUDA C++: the launchers of `cuda/*`, one for all steps of the ladder.

A step is a `.cu` file with a kernel for each pass, `conv3d_<pass>_<step>`, and a plan: how many
blocks of how many threads it takes, and what is compiled in. Everything else is common: arrays
are checked and brought into channels-last order, the kernel is compiled and launched, and where
the sum was cut into slices their parts are added up.

Sizes are compiled into the kernel on a GPU, a build for each geometry; on the emulator, where a
build takes seconds, one build serves all sizes (`geometry.cuh`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import simt, tensor_core, winograd
from tinyvid.kernels.conv3d.plan import OUTPUT, Plan, tiles
from tinyvid.kernels.operands import (
    channels_first,
    channels_last,
    check_device_of,
    dense,
    pointer,
    sizes_told,
)

_THREADS = 256

_REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}

Planner = Callable[[str, ConvGeometry, np.dtype], Plan]


@dataclass(frozen=True)
class Step:
    """A step of the ladder.

    Attributes:
        file: the kernels. plan: for (pass, geometry, dtype); UserError where it cannot take them.
        launch: of a step that takes several kernels for a pass: launches them, given (module,
            pass, geometry, plan, operands, [bias, relu] for fprop, output or its slices,
            workspace).
        dtypes: the names of those that it takes.
    """

    file: str
    plan: Planner
    launch: Callable[..., None] | None = None
    dtypes: tuple[str, ...] = ("float32", "float64")


STEPS = {
    "naive": Step("naive.cu", simt.naive),
    "tiled": Step("tiled.cu", simt.tiled),
    "implicit_gemm": Step("implicit_gemm.cu", simt.implicit_gemm),
    "winograd": Step("winograd.cu", winograd.plan, winograd.launch),
    **{
        number: Step(
            "tensor_core.cu",
            partial(tensor_core.plan, number),
            partial(tensor_core.launch, number),
            ("float32",),
        )
        for number in ("tf32", "bf16")
    },
}


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
    kernel: str = "conv3d_fprop",
) -> Any:
    """Return y, with the bias added and the ReLU taken on its way out where they are asked for.

    Args:
        x: `N C D H W`. w: `K C/groups T R S`. bias: `K`, or None. All of one dtype, float32 or
            float64, NumPy arrays for the emulator and CuPy arrays for a GPU.
        geometry: from `tinyvid.geometry.conv_geometry`.
        step: of the ladder, a key of `STEPS`. device: `cuda` or `emulator`.
        specialised: compile the sizes in; by default on a GPU only.
        kernel: what it is called in messages.

    Returns:
        y, `N K Z P Q`, channels-last in memory.

    Raises:
        UserError: shapes, dtypes or devices do not fit, the step cannot take the geometry, or
            there is not enough memory.
    """
    return _run("fprop", kernel, (x, w), geometry, step, device, specialised, bias, relu)


def dgrad(
    gy: Any,
    w: Any,
    geometry: ConvGeometry,
    *,
    step: str = "implicit_gemm",
    device: str = "cuda",
    specialised: bool | None = None,
    kernel: str = "conv3d_dgrad",
) -> Any:
    """Return gx, `N C D H W`, from gy, `N K Z P Q`, and w; otherwise as `fprop`."""
    return _run("dgrad", kernel, (gy, w), geometry, step, device, specialised)


def wgrad(
    gy: Any,
    x: Any,
    geometry: ConvGeometry,
    *,
    step: str = "implicit_gemm",
    device: str = "cuda",
    specialised: bool | None = None,
    kernel: str = "conv3d_wgrad",
) -> Any:
    """Return gw, `K C/groups T R S`, from gy, `N K Z P Q`, and x; otherwise as `fprop`."""
    return _run("wgrad", kernel, (gy, x), geometry, step, device, specialised)


def _passes(step: str) -> tuple[Callable[..., Any], ...]:
    return tuple(partial(pass_, step=step) for pass_ in (fprop, dgrad, wgrad))


# What the registry names: a pass at a step.
naive_fprop, naive_dgrad, naive_wgrad = _passes("naive")
tiled_fprop, tiled_dgrad, tiled_wgrad = _passes("tiled")
implicit_gemm_fprop, implicit_gemm_dgrad, implicit_gemm_wgrad = _passes("implicit_gemm")
winograd_fprop, winograd_dgrad, winograd_wgrad = _passes("winograd")
tf32_fprop, tf32_dgrad, tf32_wgrad = _passes("tf32")
bf16_fprop, bf16_dgrad, bf16_wgrad = _passes("bf16")


def unfit(
    step: str, pass_: str, geometry: ConvGeometry, dtype: np.dtype | type = np.float64
) -> str | None:
    """Return why a step of the ladder cannot take a geometry, or None if it can."""
    if not geometry.x[0]:
        return None  # no clips, no launch
    # Kernels count cells with 32 bits, padding among them; elements with 64.
    padded = [
        size + low + high
        for size, (low, high) in zip(geometry.x[2:], geometry.padding, strict=True)
    ]
    filter_rows = math.prod(geometry.w[1:]) + 8 * math.prod(geometry.w[2:])
    if max(geometry.x[0] * math.prod(padded), filter_rows) >= 2**30:
        return f"it has more cells than 2**30: x {geometry.x}, w {geometry.w}"
    try:
        plan = STEPS[step].plan(pass_, geometry, np.dtype(dtype))
    except UserError as error:
        return str(error)
    return f"it takes {plan.blocks} blocks" if plan.blocks >= 2**31 else None


def constants(
    step: str, pass_: str, geometry: ConvGeometry, dtype: np.dtype, specialised: bool = True
) -> dict[str, object]:
    """Return what a kernel is compiled with: `-Dname=value`."""
    plan = STEPS[step].plan(pass_, geometry, np.dtype(dtype))
    return constants_of(plan, geometry, dtype, specialised)


def constants_of(
    plan: Plan, geometry: ConvGeometry, dtype: np.dtype, specialised: bool
) -> dict[str, object]:
    """Return what a kernel of this plan is compiled with."""
    found: dict[str, object] = {"REAL": _REAL[np.dtype(dtype)], **plan.constants}
    if specialised:
        found["GEOMETRY_CONSTANTS"] = 1
        found.update((f"GEOMETRY_{name}", size) for name, size in members(geometry).items())
    return found


def members(geometry: ConvGeometry) -> dict[str, int]:
    """Return the members of `geometry.cuh`, in their order."""
    names = [*"NCDHWKTRSZPQ"]
    sizes = [*geometry.x, geometry.w[0], *geometry.w[2:], *geometry.y[2:]]
    for name, values in (
        ("stride", geometry.stride),
        ("padding", [low for low, _ in geometry.padding]),
        ("dilation", geometry.dilation),
    ):
        names += [f"{name}_{axis}" for axis in "dhw"]
        sizes += values
    return dict(zip([*names, "groups"], [*sizes, geometry.groups], strict=True))


def _run(
    pass_: str,
    kernel: str,
    arrays: tuple[Any, Any],
    geometry: ConvGeometry,
    step: str,
    device: str,
    specialised: bool | None,
    bias: Any = None,
    relu: bool = False,
) -> Any:
    _check(pass_, kernel, arrays, geometry, step, device, bias)
    dtype = arrays[0].dtype
    if not geometry.x[0]:  # no clips: an empty result, or sums of nothing
        nothing = launch.empty(getattr(geometry, OUTPUT[pass_]), dtype, device)
        nothing[...] = 0
        return nothing
    plan = STEPS[step].plan(pass_, geometry, dtype)
    if specialised is None:
        specialised = device == "cuda"
    module = launch.load(
        launch.KERNELS / "conv3d" / STEPS[step].file,
        constants(step, pass_, geometry, dtype, specialised),
        device,
    )
    N, channels, *sizes = getattr(geometry, OUTPUT[pass_])
    shape = (N, *sizes, channels)  # in memory
    slices = [(plan.slices, *shape)] if plan.slices > 1 else []
    sizes = {
        "operands": [(array.shape, dtype) for array in arrays],
        "a result": [(shape, dtype)],
        "a workspace": [(size, dtype) for size in (*slices, *plan.workspace)],
    }
    with sizes_told(kernel, f"cuda/{step}", sizes):
        operands = [channels_last(array, device) for array in arrays]
        out = launch.empty(shape, dtype, device)
        target = launch.empty(slices[0], dtype, device) if slices else out
        workspace = [launch.empty(size, dtype, device) for size in plan.workspace]
        finish = [pointer(dense(bias, device), device), np.int32(relu)]
    with launch.geometry_held(module, members(geometry), specialised, device):
        of_pass = finish if pass_ == "fprop" else []
        several = STEPS[step].launch
        if several is not None:
            several(module, pass_, geometry, plan, operands, of_pass, target, workspace)
        else:
            args = [*operands, *of_pass, target, *workspace, *map(np.int32, plan.args)]
            run = launch.with_shared(module.get_function(f"conv3d_{pass_}_{step}"), plan.shared)
            run((plan.blocks,), (plan.threads,), args, shared_mem=plan.shared)
    if plan.slices > 1:
        module.get_function("conv3d_sum_slices")(
            (tiles(out.size, _THREADS),),
            (_THREADS,),
            [target, np.int32(plan.slices), *finish, np.int32(channels), out, np.int64(out.size)],
        )
    return channels_first(out)


def _check(
    pass_: str,
    kernel: str,
    arrays: tuple[Any, Any],
    geometry: ConvGeometry,
    step: str,
    device: str,
    bias: Any,
) -> None:
    from tinyvid.kernels import conv3d

    getattr(conv3d, pass_).check(*arrays, geometry)
    if step not in STEPS:
        raise UserError(f"step={step!r}: the steps of the ladder are {', '.join(STEPS)}")
    if bias is not None:
        conv3d.check_bias(kernel, arrays[1], bias)
    check_device_of(kernel, (*arrays, bias), device)
    why = unfit(step, pass_, geometry, arrays[0].dtype)
    if arrays[0].dtype.name not in STEPS[step].dtypes:
        why = f"it takes {' and '.join(STEPS[step].dtypes)}, not {arrays[0].dtype}"
    if why is not None:
        raise UserError(f"{kernel}: 'cuda/{step}' cannot take this case: {why}")
