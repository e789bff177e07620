"""Optical flow in CUDA C++: the launchers of `cuda/*`.

All pairs of a batch run in the same launches. What the steps of TV-L1's ladder share is in
`levels.cu`, their iterations in files of their own:

    naive   two launches an iteration; 22 numbers of a pixel move through global memory
    tiled   four iterations a launch, on tiles in shared memory: 6 numbers an iteration

The number of iterations is that of the settings always, so that two runs are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.kernels import flow, launch
from tinyvid.kernels.flow import levels
from tinyvid.kernels.flow.pyramid import DERIVATIVE, SMOOTHING
from tinyvid.kernels.flow.settings import DEFAULT, TVL1
from tinyvid.kernels.operands import check_device_of, dense, sizes_told
from tinyvid.kernels.registry import Kernel

BLOCK = (32, 8)  # threads along x and y, each with a pixel, or of `tiled` with four
TOGETHER = 4  # iterations of a launch of `tiled`
INNER = 32 - 2 * TOGETHER  # pixels of a side that such a block writes
MOST_PAIRS = 65535 // 2  # a grid's third axis counts planes of flows
FILES = {
    "flow_horn_schunck_linear": "horn_schunck.cu",
    "flow_horn_schunck_iterate": "horn_schunck.cu",
    "flow_halve": "levels.cu",
    "flow_gradient": "levels.cu",
    "flow_enlarge": "levels.cu",
    "flow_linearise": "levels.cu",
    "flow_median": "levels.cu",
    "flow_primal_naive": "naive.cu",
    "flow_dual_naive": "naive.cu",
    "flow_iterate_tiled": "tiled.cu",
}
_REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


def constants(dtype: np.dtype | type) -> dict[str, object]:
    """Return what every kernel is compiled with: `-Dname=value`."""
    return {
        "REAL": _REAL[np.dtype(dtype)],
        "DERIVATIVE": ",".join(map(repr, map(float, DERIVATIVE))),
        "SMOOTHING": ",".join(map(repr, SMOOTHING)),
        "TOGETHER": TOGETHER,
    }


def unfit(first: Any, *_: Any) -> str | None:
    """Return why a GPU cannot take these frames, or None if it can."""
    pairs, height, width = first.shape
    if pairs > MOST_PAIRS:
        return f"it takes up to {MOST_PAIRS} pairs at a time, not {pairs}"
    if height * width >= 2**31 or height > 65535 * INNER:
        return f"it takes frames of up to 2^31 pixels, not {height} × {width}"
    return None


@contextmanager
def operands(
    kernel: Kernel, variant: str, arguments: tuple[Any, ...], planes: int, device: str
) -> Iterator[tuple[Any, Any]]:
    """Check the arguments of a kernel; inside the block the frames, without gaps in memory.

    Args:
        planes: of a pair's size that are held at a time, to tell where memory does not suffice.

    Raises:
        UserError: arguments do not fit, or there is not enough memory.
    """
    kernel.check(*arguments)
    first, second = arguments[:2]
    check_device_of(kernel.name, (first, second), device)
    why = unfit(first)
    if why is not None:
        raise UserError(f"{kernel.name}: {variant!r} cannot take this case: {why}")
    pairs, height, width = first.shape
    sizes = {
        "frames": [(first.shape, first.dtype)] * 2,
        "scratch space of about": [((pairs, planes, height, width), first.dtype)],
    }
    with sizes_told(kernel.name, variant, sizes):
        yield dense(first, device), dense(second, device)


class Device:
    """The kernels of the folder on one device, for frames of one dtype."""

    def __init__(self, dtype: np.dtype, device: str):
        self.dtype, self.device = dtype, device

    def run(
        self,
        kernel: str,
        arrays: tuple[Any, ...],
        numbers: tuple[Any, ...],
        images: int,
        size: tuple[int, int],
        written: tuple[int, int] | None = None,
        inner: tuple[int, int] = BLOCK,
    ) -> None:
        """Launch a kernel that takes (arrays, numbers, H, W).

        Args:
            numbers: floats are cast to the dtype.
            images: that blockIdx.z counts. size: H and W that the kernel is told.
            written: H and W of what it writes, where they differ from `size`.
            inner: pixels along x and y that a block writes.
        """
        module = launch.load(
            launch.KERNELS / "flow" / FILES[kernel], constants(self.dtype), self.device
        )
        height, width = written or size
        grid = (-(-width // inner[0]), -(-height // inner[1]), images)
        cast = [self.dtype.type(n) if isinstance(n, float) else np.int32(n) for n in numbers]
        sizes = [np.int32(n) for n in size]
        module.get_function(kernel)(grid, BLOCK, [*arrays, *cast, *sizes])

    def empty(self, *shape: int) -> Any:
        """Return a new array that a kernel is to fill."""
        return launch.empty(shape, self.dtype, self.device)


class Levels(Device):
    """What the steps of TV-L1's ladder share; `tinyvid.kernels.flow.levels.Passes` tells of it."""

    def halve(self, image: Any) -> Any:
        n, *size = image.shape
        height, width = ((side + 1) // 2 for side in size)
        half = self.empty(n, height, width)
        self.run("flow_halve", (image, half), (), n, tuple(size), (height, width))
        return half

    def gradient(self, image: Any) -> Any:
        n, *size = image.shape
        planes = self.empty(n, 3, *size)
        self.run("flow_gradient", (image, planes), (), n, tuple(size))
        return planes

    def zeros(self, image: Any, planes: int) -> Any:
        n, *size = image.shape
        return launch.zeros((n, planes, *size), self.dtype, self.device)

    def enlarge(self, u: Any, image: Any) -> Any:
        n, *size = image.shape
        larger = self.empty(n, 2, *size)
        self.run("flow_enlarge", (u, larger), (), 2 * n, tuple(size))
        return larger

    def linearise(self, image: Any, planes: Any, u: Any) -> Any:
        n, *size = image.shape
        linear = self.empty(n, 4, *size)
        self.run("flow_linearise", (image, planes, u, linear), (), n, tuple(size))
        return linear

    def median(self, u: Any) -> Any:
        n, _, *size = u.shape
        filtered = self.empty(*u.shape)
        self.run("flow_median", (u, filtered), (), 2 * n, tuple(size))
        return filtered


class Naive(Levels):
    """Two launches an iteration."""

    def iterate(self, u: Any, p: Any, linear: Any, settings: TVL1) -> tuple[Any, Any]:
        n, _, *size = u.shape
        limit, theta = settings.weight * settings.theta, settings.theta
        for _ in range(settings.iterations):
            self.run("flow_primal_naive", (u, p, linear), (limit, theta), n, tuple(size))
            self.run("flow_dual_naive", (u, p), (settings.tau / theta,), 2 * n, tuple(size))
        return u, p


class Tiled(Levels):
    """A launch for several iterations."""

    def iterate(self, u: Any, p: Any, linear: Any, settings: TVL1) -> tuple[Any, Any]:
        n, _, *size = u.shape
        next_u, next_p = self.empty(*u.shape), self.empty(*p.shape)
        by = (settings.weight * settings.theta, settings.theta, settings.tau / settings.theta)
        for done in range(0, settings.iterations, TOGETHER):
            count = min(TOGETHER, settings.iterations - done)
            arrays = u, p, linear, next_u, next_p
            inner = INNER, INNER
            self.run("flow_iterate_tiled", arrays, (*by, count), n, tuple(size), inner=inner)
            u, next_u, p, next_p = next_u, u, next_p, p
        return u, p


STEPS: Mapping[str, Callable[..., Any]] = {"naive": Naive, "tiled": Tiled}


# ---- the passes ----------------------------------------------------------------------------------
# They take the arguments of the kernels of the same names in `tinyvid.kernels.flow`, and `device`:
# `cuda`, with CuPy arrays, or `emulator`, with NumPy's. They raise UserError where arguments do not
# fit or there is not enough memory.


def tvl1(
    first: Any,
    second: Any,
    settings: TVL1 = DEFAULT,
    *,
    step: str = "tiled",
    device: str = "cuda",
) -> Any:
    """Return the flow, N 2 H W, of frames N H W by TV-L1, with a step of the ladder, of `STEPS`."""
    if step not in STEPS:
        raise UserError(f"step={step!r}: the steps of the ladder are {', '.join(STEPS)}")
    arguments = first, second, settings
    with operands(flow.tvl1, f"cuda/{step}", arguments, 24, device) as (first, second):
        if not len(first):
            return launch.zeros((0, 2, *first.shape[1:]), first.dtype, device)
        return levels.run(STEPS[step](first.dtype, device), first, second, settings)


naive_tvl1 = partial(tvl1, step="naive")
tiled_tvl1 = partial(tvl1, step="tiled")


def naive_horn_schunck(
    first: Any, second: Any, alpha: float = 15.0, iterations: int = 200, *, device: str = "cuda"
) -> Any:
    """Return the flow, N 2 H W, of frames N H W by Horn and Schunck's method."""
    arguments = first, second, alpha, iterations
    with operands(flow.horn_schunck, "cuda/naive", arguments, 8, device) as (first, second):
        n, *size = first.shape
        on = Device(first.dtype, device)
        u, next_u = launch.zeros((n, 2, *size), first.dtype, device), on.empty(n, 2, *size)
        if not n:
            return u
        linear = on.empty(n, 4, *size)
        arrays = first, second, linear
        on.run("flow_horn_schunck_linear", arrays, (float(alpha) ** 2,), n, tuple(size))
        for _ in range(iterations):
            on.run("flow_horn_schunck_iterate", (u, linear, next_u), (), n, tuple(size))
            u, next_u = next_u, u
        return u
