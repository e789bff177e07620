"""2-D convolution and early fusion in Python, for Numba: the launchers of `numba/*`.

The kernels are those of 3-D convolution, which takes a clip as it lies: see `over_time.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import conv2d
from tinyvid.kernels.conv2d.over_time import over_time
from tinyvid.kernels.conv3d import numba_cuda as conv3d
from tinyvid.kernels.operands import check_device_of


def fprop(
    x: Any, w: Any, geometry: ConvGeometry, *, step: str = "naive", device: str = "cuda"
) -> Any:
    """Return y, `N K P Q`, channels-last in memory.

    Args:
        x: `N C H W`, or a clip `N C T H W`. w: `K C/groups R S`, for clips `K C*T/groups R S`. Both
            float32 or both float64, CuPy arrays for a GPU and NumPy arrays for the simulator.
        geometry: from `tinyvid.geometry.conv_geometry`.
        step: of the ladder of 3-D convolution, `naive` or `tiled`.
        device: `cuda`, or `emulator` where Numba's simulator is on.

    Raises:
        UserError: shapes, dtypes or devices do not fit, the step cannot take the geometry, or
            there is not enough memory.
    """
    return _run("fprop", (x, w), "xw", "y", geometry, step, device)


def dgrad(
    gy: Any, w: Any, geometry: ConvGeometry, *, step: str = "naive", device: str = "cuda"
) -> Any:
    """Return gx, of the shape of x, from gy, `N K P Q`, and w; otherwise as `fprop`."""
    return _run("dgrad", (gy, w), "yw", "x", geometry, step, device)


def wgrad(
    gy: Any, x: Any, geometry: ConvGeometry, *, step: str = "naive", device: str = "cuda"
) -> Any:
    """Return gw, of the shape of w, from gy, `N K P Q`, and x; otherwise as `fprop`."""
    return _run("wgrad", (gy, x), "yx", "w", geometry, step, device)


# What the registry names: a pass at a step.
naive_fprop, naive_dgrad, naive_wgrad = (partial(f, step="naive") for f in (fprop, dgrad, wgrad))
tiled_fprop, tiled_dgrad, tiled_wgrad = (partial(f, step="tiled") for f in (fprop, dgrad, wgrad))


def _run(
    pass_: str,
    arrays: tuple[Any, Any],
    letters: str,
    result: str,
    geometry: ConvGeometry,
    step: str,
    device: str,
) -> Any:
    getattr(conv2d, pass_).check(*arrays, geometry)
    check_device_of(f"conv2d_{pass_}", arrays, device)
    solid = over_time(geometry)
    shapes = [getattr(solid, letter) for letter in letters]
    operands = [array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]
    out = getattr(conv3d, pass_)(*operands, solid, step=step, device=device)
    return out.reshape(getattr(geometry, result))
