"""The first layer of a 2-D network: convolution of images and clips that are still bytes.

    fprop   y  = conv2d_fprop(u, w) + bias, with the ReLU taken where it is asked for
    wgrad   gw = conv2d_wgrad(gy, u)              u = (x / 255 - mean) / std, channel by channel

The padding is zero after u is worked out: not (0 - mean) / std. There is no dgrad. The frames of a
clip share the mean and std of their channel, though each plane is a channel of the convolution.
"""

from __future__ import annotations

from typing import Any

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv2d.over_time import planes
from tinyvid.kernels.conv3d.costs import costs, directly, im2col
from tinyvid.kernels.conv3d.uint8 import checks
from tinyvid.kernels.registry import Kernel

_check_fprop, _check_wgrad = checks("conv2d_uint8")

fprop = Kernel(
    "conv2d_uint8",
    "fprop",
    """`conv2d_uint8_fprop(x, w, mean, std, geometry, bias=None, relu=False) -> y`.

    Args: x `N C H W` or `N C T H W` of uint8, w `K C/groups R S` (`K C*T/groups R S` for clips),
    mean and std C numbers each, as shares of 255, geometry from `conv_geometry(x.shape, w.shape,
    ...)`, bias `K`.
    Returns: y `N K P Q` of w's dtype. Raises UserError where shapes or dtypes do not fit.
    """,
    _check_fprop,
)
wgrad = Kernel(
    "conv2d_uint8",
    "wgrad",
    """`conv2d_uint8_wgrad(gy, x, mean, std, geometry) -> gw`: the gradient of <gy, y>.

    Args: gy `N K P Q`, x, mean, std and geometry as of fprop.
    Returns: gw, of the shape of w and gy's dtype. Raises UserError as fprop.
    """,
    _check_wgrad,
)


def _unfit_fprop(x: Any, w: Any, mean: Any, std: Any, geometry: ConvGeometry, *rest: Any):
    from tinyvid.kernels.conv2d import first_layer  # only where a GPU or the emulator is used

    return first_layer.unfit(geometry)


def _unfit_wgrad(gy: Any, x: Any, mean: Any, std: Any, geometry: ConvGeometry):
    return _unfit_fprop(x, gy, mean, std, geometry)


for _kernel, _unfit in ((fprop, _unfit_fprop), (wgrad, _unfit_wgrad)):
    _pass = _kernel.pass_
    for _name, _module, _formula in (("im2col", "cpu", im2col), ("direct", "direct", directly)):
        _kernel.add(
            f"cpu/{_name}",
            f"tinyvid.kernels.conv2d.{_module}:uint8_{_pass}",
            cost=costs(_formula, _pass, planes),
        )
    _kernel.add("cuda/first_layer", f"tinyvid.kernels.conv2d.first_layer:{_pass}", unfit=_unfit)
    _kernel.add("reference", f"tinyvid.kernels.conv2d.reference:uint8_{_pass}")
