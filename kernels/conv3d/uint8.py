"""The first layer of a network: 3-D convolution of clips that are still bytes.

    fprop   y  = conv3d_fprop(u, w) + bias, with the ReLU taken where it is asked for
    wgrad   gw = conv3d_wgrad(gy, u)              u = (x / 255 - mean) / std, channel by channel

The padding is zero after u is worked out: not (0 - mean) / std. There is no dgrad.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv3d import check_bias, checker
from tinyvid.kernels.conv3d.costs import costs, directly, im2col
from tinyvid.kernels.registry import Kernel

Floats = Sequence[float]


def checks(op: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return the checks of fprop and of wgrad, of `conv3d_uint8` or `conv2d_uint8`."""
    check_xw, check_gyx = checker(op, "fprop", "x", "w"), checker(op, "wgrad", "gy", "x")

    def check_fprop(
        x: Any,
        w: Any,
        mean: Floats,
        std: Floats,
        geometry: ConvGeometry,
        bias: Any = None,
        relu: bool = False,
    ) -> None:
        name = f"{op}_fprop"
        check_xw(_as_floats(name, x, w), w, geometry)
        _check_normalisation(name, mean, std, geometry)
        if bias is not None:
            check_bias(name, w, bias)

    def check_wgrad(gy: Any, x: Any, mean: Floats, std: Floats, geometry: ConvGeometry) -> None:
        name = f"{op}_wgrad"
        check_gyx(gy, _as_floats(name, x, gy), geometry)
        _check_normalisation(name, mean, std, geometry)

    return check_fprop, check_wgrad


class _Floats:
    """An array of another dtype, for the check that looks at shape and dtype alone."""

    def __init__(self, shape: Any, dtype: Any):
        self.shape, self.dtype = shape, dtype


def _as_floats(kernel: str, x: Any, like: Any) -> _Floats:
    if getattr(x, "dtype", None) != np.uint8:
        found = getattr(x, "dtype", type(x).__name__)
        raise UserError(f"{kernel}: x must be an array of uint8, not {found}")
    return _Floats(x.shape, getattr(like, "dtype", None))


def _check_normalisation(kernel: str, mean: Floats, std: Floats, geometry: ConvGeometry) -> None:
    C = geometry.x[1]
    numbers = [*mean, *std]
    if not len(mean) == len(std) == C or not all(map(math.isfinite, numbers)) or 0 in std:
        raise UserError(
            f"{kernel}: mean={mean!r} and std={std!r} must have a number for each of "
            f"the {C} channels, as shares of 255, and no std may be 0"
        )


_check_fprop, _check_wgrad = checks("conv3d_uint8")

fprop = Kernel(
    "conv3d_uint8",
    "fprop",
    """`conv3d_uint8_fprop(x, w, mean, std, geometry, bias=None, relu=False) -> y`.

    Args: x `N C D H W` of uint8, w `K C/groups T R S`, mean and std C numbers each, as shares of
    255, geometry from `conv_geometry(x.shape, w.shape, ...)`, bias `K`.
    Returns: y `N K Z P Q` of w's dtype. Raises UserError where shapes or dtypes do not fit.
    """,
    _check_fprop,
)
wgrad = Kernel(
    "conv3d_uint8",
    "wgrad",
    """`conv3d_uint8_wgrad(gy, x, mean, std, geometry) -> gw`: the gradient of <gy, y>.

    Args: gy `N K Z P Q`, x `N C D H W` of uint8, mean, std and geometry as of fprop.
    Returns: gw `K C/groups T R S` of gy's dtype. Raises UserError as fprop.
    """,
    _check_wgrad,
)


def _unfit_fprop(x: Any, w: Any, mean: Any, std: Any, geometry: ConvGeometry, *rest: Any):
    from tinyvid.kernels.conv3d import first_layer  # only where a GPU or the emulator is used

    return first_layer.unfit(geometry)


def _unfit_wgrad(gy: Any, x: Any, mean: Any, std: Any, geometry: ConvGeometry):
    return _unfit_fprop(x, gy, mean, std, geometry)


for _kernel, _unfit in ((fprop, _unfit_fprop), (wgrad, _unfit_wgrad)):
    _pass = _kernel.pass_
    for _name, _module, _formula in (("im2col", "cpu", im2col), ("direct", "direct", directly)):
        _kernel.add(
            f"cpu/{_name}",
            f"tinyvid.kernels.conv3d.{_module}:uint8_{_pass}",
            cost=costs(_formula, _pass),
        )
    _kernel.add("cuda/first_layer", f"tinyvid.kernels.conv3d.first_layer:{_pass}", unfit=_unfit)
    _kernel.add("reference", f"tinyvid.kernels.conv3d.reference:uint8_{_pass}")
