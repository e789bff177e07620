"""3-D convolution in Python, for Numba: the launchers of `numba/*`, steps of the ladder to read.

Kernels are those of `naive.cu` in `numba_naive.py`, of `tiled.cu` in `numba_tiled.py`. They are
launched by the same plans, on arrays in the same order in memory.
"""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from typing import Any

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import conv3d, launch, numba_launch
from tinyvid.kernels.conv3d import numba_naive, numba_tiled
from tinyvid.kernels.conv3d.cuda import STEPS, members, unfit
from tinyvid.kernels.conv3d.plan import OUTPUT, tiles
from tinyvid.kernels.operands import (
    channels_first,
    channels_last,
    check_device_of,
    dense,
    sizes_told,
)

# The members of `geometry.cuh`, in their order; kernels take one as their last argument.
Geometry = namedtuple(
    "Geometry",
    "N C D H W K T R S Z P Q stride_d stride_h stride_w padding_d padding_h padding_w "
    "dilation_d dilation_h dilation_w groups",
)
KERNELS: dict[str, Any] = {"naive": numba_naive, "tiled": numba_tiled}


def run(
    pass_: str,
    first: Any,
    second: Any,
    geometry: ConvGeometry,
    bias: Any = None,
    relu: bool = False,
    *,
    step: str = "naive",
    device: str = "cuda",
    op: str = "conv3d",
) -> Any:
    """Return the result of a pass, channels-last in memory.

    Args:
        pass_: fprop, dgrad or wgrad. first, second: the arrays that it takes, `N C ...` or
            `K C/groups T R S`, and bias `K`, or None, which is for fprop. All of one dtype,
            float32 or float64, CuPy arrays for a GPU and NumPy arrays for the simulator.
        geometry: from `tinyvid.geometry.conv_geometry`. relu: whether fprop takes the ReLU.
        step: of the ladder, a key of `KERNELS`.
        device: `cuda`, or `emulator` where Numba's simulator is on.
        op: what the operation is called in messages.

    Raises:
        UserError: shapes, dtypes or devices do not fit, the step cannot take the geometry, or
            there is not enough memory.
    """
    arrays, kernel = (first, second), f"{op}_{pass_}"
    getattr(conv3d, pass_).check(*arrays, geometry)
    if bias is not None:
        conv3d.check_bias(kernel, arrays[1], bias)
    if step not in KERNELS:
        raise UserError(f"step={step!r}: the steps for Numba are {', '.join(KERNELS)}")
    check_device_of(kernel, (*arrays, bias), device)
    dtype = arrays[0].dtype
    why = unfit(step, pass_, geometry, dtype)
    if why is not None:
        raise UserError(f"{kernel}: 'numba/{step}' cannot take this case: {why}")

    plan = STEPS[step].plan(pass_, geometry, dtype)
    N, channels, *sizes = getattr(geometry, OUTPUT[pass_])
    shape = (N, *sizes, channels)  # in memory
    slices = (plan.slices, *shape)
    taken = {
        "operands": [(array.shape, dtype) for array in arrays],
        "a result": [(shape, dtype)],
        "a workspace": [(slices, dtype)] if plan.slices > 1 else [],
    }
    with sizes_told(kernel, f"numba/{step}", taken):
        operands = [channels_last(array, device) for array in arrays]
        if pass_ == "fprop":
            operands.append(_dense_bias(bias, channels, dtype, device))
        out = launch.empty(shape, dtype, device)
        target = launch.empty(slices, dtype, device) if plan.slices > 1 else out
    if not geometry.x[0]:  # no clips: an empty result, or sums of nothing
        out[...] = 0
        return channels_first(out)
    numba_launch.run(
        getattr(KERNELS[step], f"conv3d_{pass_}_{step}"),
        plan.blocks,
        plan.threads,
        operands,
        [target.reshape(slices) if (step, pass_) == ("tiled", "wgrad") else target],
        Geometry(**members(geometry)),
        *plan.args,
        *([int(relu)] if pass_ == "fprop" else []),
        device=device,
        shared=plan.shared,
    )
    if plan.slices > 1:
        numba_launch.run(
            numba_tiled.conv3d_sum_slices,
            tiles(out.size, plan.threads),
            plan.threads,
            [target.reshape(plan.slices, -1)],
            [out.reshape(-1)],
            device=device,
        )
    return channels_first(out)


def _dense_bias(bias: Any, K: int, dtype: Any, device: str) -> Any:
    """Return the bias as kernels take it; zeros where there is none."""
    if bias is not None:
        return dense(bias, device)
    zeros = launch.empty((K,), dtype, device)
    zeros[...] = 0
    return zeros


PASSES = ("fprop", "dgrad", "wgrad")
# What the registry names: a pass at a step.
naive_fprop, naive_dgrad, naive_wgrad = (partial(run, each, step="naive") for each in PASSES)
tiled_fprop, tiled_dgrad, tiled_wgrad = (partial(run, each, step="tiled") for each in PASSES)
