"""3-D pooling in CUDA C++: the launchers of `cuda/*`, one for all steps of the ladder.

A step is a `.cu` file with a kernel for each pass that it takes, `pool3d_<pass>_<step>`. Each is
launched with a thread for each element of the result (`naive`), for four channels of it, or for
four channels of a window and all its cells (`disjoint_windows`). None needs atomics or shared
memory, and sums have a fixed order.

Global memory is moved in 32-byte sectors, of eight floats. With channels a multiple of eight,
every kernel but gather moves only sectors that it uses whole. fprop of windows that do not
overlap reads x once and writes y and argmax once; `disjoint_windows` reads gy and argmax once and
writes gx once. Where windows overlap, a number is loaded once for each window that has it, from
the cache but for the first time.

With C a multiple of four but not of eight, a cell of x begins or ends within a sector, whose other
half is a neighbour's that another tap of the loop takes: for a cell of C / 8 sectors
(C + 4) / 8 are asked for, and one more where a cell that begins within a sector falls into two
warps. That is twice the fewest for 4 channels, and at most (C + 12) / C for more.

gather reads one cell of x for each window and channel, where argmax says. The fewest sectors for
the eight channels of a window that share a sector are as many as they have different argmaxes.
`naive` asks for just these, as eight neighbouring threads in one load; `four_channels` takes two
of the eight at a load, so that they ask for a sector up to four times. So `naive` is preferred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import Ints, PoolGeometry
from tinyvid.kernels import launch, pool3d
from tinyvid.kernels.operands import channels_first, channels_last, check_device_of, sizes_told

THREADS = 256
PASSES = ("max_fprop", "max_dgrad", "max_gather", "avg_fprop", "avg_dgrad")
_REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


@dataclass(frozen=True)
class Step:
    """A step of the ladder.

    Attributes:
        file: the kernels. channels: that a thread takes; the number of channels is a multiple.
        passes: those that it takes, of `PASSES`.
        disjoint: windows must not overlap, and a thread takes one with all its cells.
    """

    file: str
    channels: int = 4
    passes: Sequence[str] = PASSES
    disjoint: bool = False


STEPS = {
    "naive": Step("naive.cu", 1),
    "four_channels": Step("four_channels.cu"),
    "disjoint_windows": Step("disjoint_windows.cu", 4, ("max_dgrad", "avg_dgrad"), True),
}


def unfit(step: str, pass_: str, geometry: PoolGeometry) -> str | None:
    """Return why a step of the ladder cannot take a pass of a geometry, or None if it can."""
    taken = STEPS[step]
    if pass_ not in taken.passes:
        return f"it is for {' and '.join(taken.passes)}"
    if geometry.x[1] % taken.channels:
        return f"it takes channels in multiples of {taken.channels}, not {geometry.x[1]}"
    if taken.disjoint:
        extents = _extents(geometry)
        if any(map(int.__gt__, extents, geometry.stride)):
            return f"windows over {extents} cells with strides of {geometry.stride} overlap"
    blocks = _blocks(step, pass_, geometry)
    return f"it takes {blocks} blocks" if blocks >= 2**31 else None


def _extents(geometry: PoolGeometry) -> Ints:
    """Return how many cells a window extends over, along each axis."""
    axes = zip(geometry.window, geometry.dilation, strict=True)
    return tuple((taps - 1) * dilation + 1 for taps, dilation in axes)


def _blocks(step: str, pass_: str, geometry: PoolGeometry) -> int:
    N, C, *sizes = geometry.x if pass_.endswith("dgrad") else geometry.y
    if STEPS[step].disjoint:  # boxes of a stride each, from the padding on
        axes = zip(sizes, geometry.padding, geometry.stride, strict=True)
        sizes = [-(-(size + low) // stride) for size, (low, _), stride in axes]
    return -(-N * math.prod(sizes) * C // STEPS[step].channels // THREADS)


def constants(
    geometry: PoolGeometry, dtype: np.dtype | type, specialised: bool = True
) -> dict[str, object]:
    """Return what a kernel is compiled with: `-Dname=value`."""
    found: dict[str, object] = {"REAL": _REAL[np.dtype(dtype)]}
    if pool3d.argmax_dtype(geometry).itemsize > 1:
        found["WIDE_OFFSETS"] = 1
    if specialised:
        found["GEOMETRY_CONSTANTS"] = 1
        found.update((f"GEOMETRY_{name}", size) for name, size in members(geometry).items())
    return found


def members(geometry: PoolGeometry) -> dict[str, int]:
    """Return the members of `geometry.cuh`, in their order."""
    names = [*"NCDHWTRSZPQ"]
    sizes = [*geometry.x, *geometry.window, *geometry.y[2:]]
    for name, values in (
        ("stride", geometry.stride),
        ("padding", [low for low, _ in geometry.padding]),
        ("dilation", geometry.dilation),
    ):
        names += [f"{name}_{axis}" for axis in "dhw"]
        sizes += values
    return dict(zip(names, sizes, strict=True))


# ---- the passes ----------------------------------------------------------------------------------
# They take the arguments of the kernels of the same names in `tinyvid.kernels.pool3d`, and
#     step: of the ladder, a key of `STEPS`.
#     device: `cuda`, with CuPy arrays, or `emulator`, with NumPy's.
#     specialised: compile the sizes in; by default on a GPU only.
# Results are channels-last in memory. They raise UserError where arguments do not fit, the step
# cannot take them, or there is not enough memory.


def max_fprop(x: Any, geometry: PoolGeometry, **how: Any) -> tuple[Any, Any]:
    """Return y and argmax, `N C Z P Q`, of x, `N C D H W`."""
    y, argmax = _run("max_fprop", (x,), geometry, **how)
    return y, argmax


def max_dgrad(gy: Any, argmax: Any, geometry: PoolGeometry, **how: Any) -> Any:
    """Return gx, `N C D H W`, of gy and argmax, `N C Z P Q`."""
    return _run("max_dgrad", (gy, argmax), geometry, **how)[0]


def max_gather(x: Any, argmax: Any, geometry: PoolGeometry, **how: Any) -> Any:
    """Return y, `N C Z P Q`: what stands in x, `N C D H W`, at argmax."""
    return _run("max_gather", (x, argmax), geometry, **how)[0]


def avg_fprop(
    x: Any,
    geometry: PoolGeometry,
    count_include_pad: bool,
    divisor_override: int | None,
    **how: Any,
) -> Any:
    """Return y, `N C Z P Q`: the means of the windows of x, `N C D H W`."""
    return _run("avg_fprop", (x,), geometry, (count_include_pad, divisor_override), **how)[0]


def avg_dgrad(
    gy: Any,
    geometry: PoolGeometry,
    count_include_pad: bool,
    divisor_override: int | None,
    **how: Any,
) -> Any:
    """Return gx, `N C D H W`, of gy, `N C Z P Q`."""
    return _run("avg_dgrad", (gy,), geometry, (count_include_pad, divisor_override), **how)[0]


# What the registry names: a pass at a step.
naive_max_fprop = partial(max_fprop, step="naive")
naive_max_dgrad = partial(max_dgrad, step="naive")
naive_max_gather = partial(max_gather, step="naive")
naive_avg_fprop = partial(avg_fprop, step="naive")
naive_avg_dgrad = partial(avg_dgrad, step="naive")
four_channels_max_fprop = partial(max_fprop, step="four_channels")
four_channels_max_dgrad = partial(max_dgrad, step="four_channels")
four_channels_max_gather = partial(max_gather, step="four_channels")
four_channels_avg_fprop = partial(avg_fprop, step="four_channels")
four_channels_avg_dgrad = partial(avg_dgrad, step="four_channels")
disjoint_windows_max_dgrad = partial(max_dgrad, step="disjoint_windows")
disjoint_windows_avg_dgrad = partial(avg_dgrad, step="disjoint_windows")


def _run(
    pass_: str,
    arrays: tuple[Any, ...],
    geometry: PoolGeometry,
    divisor: tuple[Any, ...] = (),
    *,
    step: str = "four_channels",
    device: str = "cuda",
    specialised: bool | None = None,
) -> list[Any]:
    kernel = getattr(pool3d, pass_)
    kernel.check(*arrays, geometry, *divisor)
    if step not in STEPS:
        raise UserError(f"step={step!r}: the steps of the ladder are {', '.join(STEPS)}")
    check_device_of(kernel.name, arrays, device)
    why = unfit(step, pass_, geometry)
    if why is not None:
        raise UserError(f"{kernel.name}: 'cuda/{step}' cannot take this case: {why}")

    dtype = arrays[0].dtype
    N, C, *cells = geometry.x if pass_.endswith("dgrad") else geometry.y
    shape = (N, *cells, C)  # in memory
    dtypes = [dtype, pool3d.argmax_dtype(geometry)] if pass_ == "max_fprop" else [dtype]
    sizes = {
        "operands": [(array.shape, array.dtype) for array in arrays],
        "a result": [(shape, each) for each in dtypes],
    }
    with sizes_told(kernel.name, f"cuda/{step}", sizes):
        operands = [channels_last(array, device) for array in arrays]
        results = [launch.empty(shape, each, device) for each in dtypes]
    if math.prod(shape):
        numbers = []
        if divisor:
            counts, given = divisor
            numbers = [dtype.type(given or 0), np.int32(counts)]  # 0: count the cells
        if specialised is None:
            specialised = device == "cuda"
        file = launch.KERNELS / "pool3d" / STEPS[step].file
        module = launch.load(file, constants(geometry, dtype, specialised), device)
        with launch.geometry_held(module, members(geometry), specialised, device):
            module.get_function(f"pool3d_{pass_}_{step}")(
                (_blocks(step, pass_, geometry),), (THREADS,), [*operands, *results, *numbers]
            )
    return [channels_first(result) for result in results]
