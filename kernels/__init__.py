"""Kernels: functions on arrays that know nothing of gradients, each defined by a reference."""

from tinyvid.kernels.conv2d import dgrad as conv2d_dgrad
from tinyvid.kernels.conv2d import fprop as conv2d_fprop
from tinyvid.kernels.conv2d import wgrad as conv2d_wgrad
from tinyvid.kernels.conv3d import dgrad as conv3d_dgrad
from tinyvid.kernels.conv3d import fprop as conv3d_fprop
from tinyvid.kernels.conv3d import wgrad as conv3d_wgrad
from tinyvid.kernels.registry import Kernel, Variant, kernels, use

__all__ = [
    "Kernel",
    "Variant",
    "conv2d_dgrad",
    "conv2d_fprop",
    "conv2d_wgrad",
    "conv3d_dgrad",
    "conv3d_fprop",
    "conv3d_wgrad",
    "kernels",
    "use",
]
