"""2-D convolution and early fusion in Python, for Numba: the launchers of `numba/*`.

The kernels are those of 3-D convolution, which takes a clip as it lies: see `over_time.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import conv2d
from tinyvid.kernels.conv2d.cuda import LETTERS
from tinyvid.kernels.conv2d.over_time import over_time
from tinyvid.kernels.conv3d import numba_cuda as conv3d
from tinyvid.kernels.conv3d.plan import OUTPUT
from tinyvid.kernels.operands import check_device_of


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
) -> Any:
    """Return the result of a pass, channels-last in memory.

    Args:
        pass_, bias, relu, step, device: as of `tinyvid.kernels.conv3d.numba_cuda.run`.
        first, second: the arrays that the pass takes: images `N C ...`, clips `N C T H W`, filters
            `K C/groups R S`, for clips `K C*T/groups R S`.
        geometry: from `tinyvid.geometry.conv_geometry`.

    Raises:
        UserError: shapes, dtypes or devices do not fit, the step cannot take the geometry, or
            there is not enough memory.
    """
    arrays = first, second
    getattr(conv2d, pass_).check(*arrays, geometry)
    check_device_of(f"conv2d_{pass_}", arrays, device)
    solid = over_time(geometry)
    shapes = [getattr(solid, letter) for letter in LETTERS[pass_]]
    a, b = (array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True))
    out = conv3d.run(pass_, a, b, solid, bias, relu, step=step, device=device, op="conv2d")
    return out.reshape(getattr(geometry, OUTPUT[pass_]))


# What the registry names: a pass at a step.
naive_fprop, naive_dgrad, naive_wgrad = (partial(run, each, step="naive") for each in LETTERS)
tiled_fprop, tiled_dgrad, tiled_wgrad = (partial(run, each, step="tiled") for each in LETTERS)
