"""Optical flow in Python, for Numba: the launchers of `numba/*`, to read.

Kernels are those of `levels.cu`, `naive.cu` and `horn_schunck.cu` in `numba_naive.py`, and that of
`tiled.cu` in `numba_tiled.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinyvid.device import to_device
from tinyvid.kernels import flow, launch, numba_launch
from tinyvid.kernels.flow import levels, numba_naive, numba_tiled
from tinyvid.kernels.flow.cuda import operands
from tinyvid.kernels.flow.pyramid import DERIVATIVE, SMOOTHING
from tinyvid.kernels.flow.settings import DEFAULT, TVL1

THREADS = 64


class Naive:
    """The kernels on one device; `tinyvid.kernels.flow.levels.Passes` tells of its methods."""

    def __init__(self, dtype: np.dtype, device: str):
        self.dtype, self.device = dtype, device
        self.derivative, self.smoothing = self.array(DERIVATIVE), self.array(SMOOTHING)

    def array(self, values: Any) -> Any:
        """Return numbers on the device."""
        host = np.array(values, self.dtype)
        return to_device(host, self.device) if self.device == "cuda" else host

    def run(self, kernel: Any, inputs: list[Any], outputs: list[Any], threads: int) -> None:
        """Launch a kernel with at least so many threads."""
        blocks = -(-threads // THREADS)
        numba_launch.run(kernel, blocks, THREADS, inputs, outputs, device=self.device)

    def made(self, kernel: Any, inputs: list[Any], *shape: int, planes: int = 1) -> Any:
        """Return a new array that a kernel has filled, a thread for so many planes of it."""
        made = launch.empty(shape, self.dtype, self.device)
        self.run(kernel, inputs, [made], made.size // planes)
        return made

    def zeros(self, image: Any, planes: int) -> Any:
        n, *size = image.shape
        return launch.zeros((n, planes, *size), self.dtype, self.device)

    def halve(self, image: Any) -> Any:
        n, height, width = image.shape
        half = n, (height + 1) // 2, (width + 1) // 2
        return self.made(numba_naive.flow_halve, [image, self.smoothing], *half)

    def gradient(self, image: Any) -> Any:
        n, *size = image.shape
        inputs = [image, self.derivative]
        return self.made(numba_naive.flow_gradient, inputs, n, 3, *size, planes=3)

    def enlarge(self, u: Any, image: Any) -> Any:
        n, *size = image.shape
        return self.made(numba_naive.flow_enlarge, [u], n, 2, *size)

    def linearise(self, image: Any, planes: Any, u: Any) -> Any:
        n, *size = image.shape
        inputs = [image, planes, u]
        return self.made(numba_naive.flow_linearise, inputs, n, 4, *size, planes=4)

    def median(self, u: Any) -> Any:
        return self.made(numba_naive.flow_median, [u], *u.shape)

    def iterate(self, u: Any, p: Any, linear: Any, settings: TVL1) -> tuple[Any, Any]:
        s = settings
        by = self.array([s.weight * s.theta, s.theta, s.tau / s.theta])
        for _ in range(s.iterations):
            self.run(numba_naive.flow_primal_naive, [p, linear, by], [u], u.size // 2)
            self.run(numba_naive.flow_dual_naive, [u, by], [p], u.size)
        return u, p


class Tiled(Naive):
    """A launch for several iterations."""

    def iterate(self, u: Any, p: Any, linear: Any, settings: TVL1) -> tuple[Any, Any]:
        n, _, height, width = u.shape
        next_u, next_p = (launch.empty(a.shape, self.dtype, self.device) for a in (u, p))
        by = self.array(
            [settings.weight * settings.theta, settings.theta, settings.tau / settings.theta]
        )
        inner, together = numba_tiled.INNER, numba_tiled.TOGETHER
        blocks = n * -(-height // inner) * -(-width // inner)
        threads = numba_tiled.SIDE**2
        for done in range(0, settings.iterations, together):
            numba_launch.run(
                numba_tiled.flow_iterate_tiled,
                blocks,
                threads,
                [u, p, linear, by],
                [next_u, next_p],
                min(together, settings.iterations - done),
                device=self.device,
                shared=numba_tiled.PLANES * threads * self.dtype.itemsize,
            )
            u, next_u, p, next_p = next_u, u, next_p, p
        return u, p


STEPS = {"naive": Naive, "tiled": Tiled}


def tvl1(
    first: Any,
    second: Any,
    settings: TVL1 = DEFAULT,
    *,
    step: str = "tiled",
    device: str = "cuda",
) -> Any:
    """Return the flow, N 2 H W, of frames N H W by TV-L1, as `cuda.tvl1`."""
    arguments = first, second, settings
    with operands(flow.tvl1, f"numba/{step}", arguments, 24, device) as (first, second):
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
    with operands(flow.horn_schunck, "numba/naive", arguments, 8, device) as (first, second):
        n, *size = first.shape
        on = Naive(first.dtype, device)
        u = on.zeros(first, 2)
        if not n:
            return u
        inputs = [first, second, on.derivative, on.array([alpha**2])]
        linear = on.made(numba_naive.flow_horn_schunck_linear, inputs, n, 4, *size, planes=4)
        next_u = launch.empty(u.shape, u.dtype, device)
        for _ in range(iterations):
            iterate = numba_naive.flow_horn_schunck_iterate
            on.run(iterate, [u, linear], [next_u], u.size // 2)
            u, next_u = next_u, u
        return u
