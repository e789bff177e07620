"""Optical flow: how far each pixel moves from one frame to the next.

    u[n, 0, y, x], u[n, 1, y, x] = the displacement along x and along y, in pixels, for which
        second[n, y + u1, x + u0] shows what first[n, y, x] does

    tvl1          |grad u1| + |grad u2| + lambda |rho(u)| least: motions keep their edges
    horn_schunck  alpha² (|grad u1|² + |grad u2|²) + rho(u)² least: short, for small motions

`reference.py` defines both, by their papers. Both work for a fixed number of iterations, so that
two runs are equal to the bit. Neither has a derivative: flow is an input of networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.kernels.flow.settings import DEFAULT, TVL1
from tinyvid.kernels.registry import Kernel

__all__ = ["TVL1", "horn_schunck", "horn_schunck_flow", "tvl1", "tvl1_flow"]

LEAST = 2  # pixels of a side


def tvl1_flow(
    first: np.ndarray, second: np.ndarray, settings: TVL1 | None = None, device: str = "cpu"
) -> np.ndarray:
    """Return the flow from `first` to `second` by TV-L1, which keeps the edges of motions sharp.

    Args:
        first: N H W, float32 or float64, grey values from 0 to 255.
        second: the same of the frames that follow.
        settings: the default is good for most videos.
        device: where it is computed: `cpu`, `cuda` or `emulator`.

    Returns:
        N 2 H W in pixels, along x and y. It does not depend on the number of threads.

    Raises:
        UserError: shapes or dtypes differ, a side has less than 2 pixels, a number is not
            finite, or there is no such device.
    """
    return _on(device, tvl1, first, second, settings or DEFAULT)


def horn_schunck_flow(
    first: np.ndarray,
    second: np.ndarray,
    alpha: float = 15.0,
    iterations: int = 200,
    device: str = "cpu",
) -> np.ndarray:
    """Return the flow from `first` to `second` by Horn and Schunck's method, for small motions.

    Args:
        first, second: as those of `tvl1_flow`.
        alpha: the weight of smoothness; larger is smoother.
        iterations: each carries what is known to the neighbours of a pixel.
        device: as that of `tvl1_flow`.

    Returns:
        N 2 H W, as `tvl1_flow`.

    Raises:
        UserError: as `tvl1_flow`, or `alpha` or `iterations` is not above 0.
    """
    return _on(device, horn_schunck, first, second, alpha, iterations)


def _on(device: str, kernel: Kernel, first: Any, second: Any, *rest: Any) -> Any:
    """Run a kernel on a device, of frames that are elsewhere."""
    from tinyvid.device import to_device

    if device == "cpu":
        return kernel(first, second, *rest)
    kernel.check(first, second, *rest)
    there = (to_device(frames, device) for frames in (first, second))
    return to_device(kernel(*there, *rest, device=device), "cpu")


def _check(name: str, first: Any, second: Any) -> None:
    for letter, frames in (("first", first), ("second", second)):
        if getattr(frames, "dtype", None) not in (np.float32, np.float64):
            raise UserError(
                f"{name}: {letter} must be a float32 or float64 array, not "
                f"{getattr(frames, 'dtype', type(frames).__name__)}"
            )
        if frames.ndim != 3 or min(frames.shape[1:]) < LEAST:
            raise UserError(
                f"{name}: {letter} has shape {frames.shape}: it must be N H W, with sides of at "
                f"least {LEAST} pixels"
            )
        if not (abs(frames) <= np.finfo(frames.dtype).max).all():  # NaN is not, either
            raise UserError(f"{name}: {letter} has values that are not finite")
    if first.shape != second.shape or first.dtype != second.dtype:
        raise UserError(
            f"{name}: first is {first.dtype} of shape {first.shape} and second {second.dtype} of "
            f"shape {second.shape}: frames must be of one size"
        )


def _check_tvl1(first: Any, second: Any, settings: Any) -> None:
    _check("tvl1_flow", first, second)
    if not isinstance(settings, TVL1):
        raise UserError(f"tvl1_flow: settings must be a TVL1, not a {type(settings).__name__}")


def _check_horn_schunck(first: Any, second: Any, alpha: float, iterations: int) -> None:
    _check("horn_schunck_flow", first, second)
    if not alpha > 0 or iterations < 1:
        raise UserError(
            f"horn_schunck_flow: alpha={alpha} and iterations={iterations} must be above 0"
        )


def _unfit(first: Any, *_: Any) -> str | None:
    from tinyvid.kernels.flow import cuda  # only where a GPU or the emulator is asked for

    return cuda.unfit(first)


tvl1 = Kernel(
    "tvl1",
    "flow",
    """`tvl1_flow(first, second, settings) -> u`: the flow by TV-L1, see `reference.py`.

    Args: frames `N H W` with values from 0 to 255, of one dtype; settings, a `TVL1`.
    Returns: u `N 2 H W` in pixels, along x and y. Raises UserError where arguments do not fit.
    """,
    _check_tvl1,
)
horn_schunck = Kernel(
    "horn_schunck",
    "flow",
    """`horn_schunck_flow(first, second, alpha, iterations) -> u`: by Horn and Schunck's method.

    Args: frames as of `tvl1_flow`; alpha, the weight of smoothness, above 0.
    Returns: u `N 2 H W` in pixels, along x and y. Raises UserError where arguments do not fit.
    """,
    _check_horn_schunck,
)
for _kernel, _module, _steps in (
    (tvl1, "cpu", ("tiled", "naive")),
    (horn_schunck, "cpu_horn_schunck", ("naive",)),
):
    _kernel.add("cpu/bands", f"tinyvid.kernels.flow.{_module}:{_kernel.op}")
    for _step in _steps:  # of the ladder in CUDA C++, the one to prefer first
        _path = f"tinyvid.kernels.flow.cuda:{_step}_{_kernel.op}"
        _kernel.add(f"cuda/{_step}", _path, unfit=_unfit)
    for _step in _steps:
        _path = f"tinyvid.kernels.flow.numba_cuda:{_step}_{_kernel.op}"
        _kernel.add(f"numba/{_step}", _path, unfit=_unfit)
    _kernel.add("reference", f"tinyvid.kernels.flow.reference:{_kernel.op}")
