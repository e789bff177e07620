"""Modules that follow each other and run as one operation.

    convolution, ReLU              the ReLU is taken while the sums are still in registers
    convolution, ReLU, max pool    what is pooled, a network's largest array, is never written

The second one is computed directly (`cpu/direct`), and runs where that is expected to take less
time than the fastest convolution, and then the pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyvid import kernels
from tinyvid.geometry import (
    ConvGeometry,
    PoolGeometry,
    conv_geometry,
    per_axis,
    pool_geometry,
)
from tinyvid.kernels.conv2d.over_time import planes
from tinyvid.kernels.conv3d_relu_max_pool import pays
from tinyvid.nn.conv import Conv2d, Conv3d
from tinyvid.nn.layers import ReLU
from tinyvid.nn.module import Module
from tinyvid.nn.pool import MaxPool2d, MaxPool3d
from tinyvid.ops.conv import conv2d, conv3d
from tinyvid.ops.conv_pool import conv3d_relu_max_pool
from tinyvid.tensor import Tensor, is_grad_enabled

# What their `forward` is as long as nobody has put another in its place.
_KINDS: tuple[Any, ...] = (Conv3d, Conv2d, ReLU, MaxPool3d, MaxPool2d)
_FORWARD = {kind: kind.forward for kind in _KINDS}
_CONVOLUTIONS = {Conv3d: (conv3d, MaxPool3d), Conv2d: (conv2d, MaxPool2d)}


def run_first(modules: Sequence[Module], x: Any) -> tuple[int, Any]:
    """Run the first of some modules, or the first two or three as one operation.

    Returns:
        How many ran, and what came out.
    """
    conv: Any = modules[0]
    kind = type(conv)
    if (
        kind not in _CONVOLUTIONS
        or not isinstance(x, Tensor)
        or len(modules) < 2
        or type(modules[1]) is not ReLU
        or not (_plain(conv) and _plain(modules[1]))
    ):
        return 1, conv(x)
    convolve, Pool = _CONVOLUTIONS[kind]
    if len(modules) > 2 and type(modules[2]) is Pool and _plain(modules[2]):
        y = _pooled(conv, modules[2], x)
        if y is not None:
            return 3, y
    sizes = conv.stride, conv.padding, conv.dilation, conv.groups
    return 2, convolve(x, conv.weight, conv.bias, *sizes, relu=True)


def _plain(module: Module) -> bool:
    """Return whether nobody looks at what a module puts out, or has changed what it does."""
    kind = type(module)
    changed = "forward" in vars(module) or kind.forward is not _FORWARD[kind]
    return not (module._forward_hooks or changed)


def _pooled(conv: Any, pool: Any, x: Tensor) -> Tensor | None:
    """Return a convolution's output, rectified and pooled, or None if that is not for here."""
    if x.device != "cpu" or pool.return_indices or pool.ceil_mode:
        return None
    rank = conv.rank
    window, stride, padding, dilation = (
        per_axis(name, getattr(pool, name), rank, 0)
        for name in ("kernel_size", "stride", "padding", "dilation")
    )
    if stride != window or any(padding) or set(dilation) != {1}:
        return None
    w = conv.weight
    sizes = conv.stride, conv.padding, conv.dilation, conv.groups
    geometry = conv_geometry(x.shape, w.shape, *sizes)
    if any(size < taps for size, taps in zip(geometry.y[2:], window, strict=True)):
        return None  # the pooling itself says why
    lifted, frames = (geometry, ()) if rank == 3 else (planes(geometry), (1,))
    if not _pays(x, w, geometry, lifted, pool_geometry(lifted.y, frames + window)):
        return None
    if rank == 3:
        return conv3d_relu_max_pool(x, w, conv.bias, window, *sizes)
    # Images are clips of one frame, and the planes of a clip are its channels.
    K, C, R, S = w.shape
    pads = conv.padding if isinstance(conv.padding, str) else (0, *conv.padding)
    y = conv3d_relu_max_pool(
        x.reshape(len(x), geometry.channels, 1, *x.shape[-2:]),
        w.reshape(K, C, 1, R, S),
        conv.bias,
        (1, *window),
        (1, *conv.stride),
        pads,
        (1, *conv.dilation),
        conv.groups,
    )
    return y.reshape(*y.shape[:2], *y.shape[3:])


def _pays(
    x: Tensor, w: Tensor, geometry: ConvGeometry, lifted: ConvGeometry, pool: PoolGeometry
) -> bool:
    """Return whether a convolution is expected to take less time with its pooling than without.

    Args:
        geometry: of the convolution. lifted: of the 3-D convolution that does the same.
    """
    op = f"conv{geometry.rank}d"
    passes = [getattr(kernels, f"{op}_fprop")]
    joined = pays.fprop(lifted)
    if w.requires_grad and is_grad_enabled():
        passes.append(getattr(kernels, f"{op}_wgrad"))
        joined += pays.wgrad(lifted, pool)
    return joined < pays.apart(passes, x.data, w.data, geometry)
