"""Kernels: functions on arrays that know nothing of gradients, each defined by a reference."""

from tinyvid.kernels.accuracy import get_precision, precision, set_precision
from tinyvid.kernels.conv2d import dgrad as conv2d_dgrad
from tinyvid.kernels.conv2d import fprop as conv2d_fprop
from tinyvid.kernels.conv2d import wgrad as conv2d_wgrad
from tinyvid.kernels.conv2d.uint8 import fprop as conv2d_uint8_fprop
from tinyvid.kernels.conv2d.uint8 import wgrad as conv2d_uint8_wgrad
from tinyvid.kernels.conv3d import dgrad as conv3d_dgrad
from tinyvid.kernels.conv3d import fprop as conv3d_fprop
from tinyvid.kernels.conv3d import wgrad as conv3d_wgrad
from tinyvid.kernels.conv3d.uint8 import fprop as conv3d_uint8_fprop
from tinyvid.kernels.conv3d.uint8 import wgrad as conv3d_uint8_wgrad
from tinyvid.kernels.conv3d_relu_max_pool import fprop as conv3d_relu_max_pool_fprop
from tinyvid.kernels.conv3d_relu_max_pool import wgrad as conv3d_relu_max_pool_wgrad
from tinyvid.kernels.flow import horn_schunck_flow, tvl1_flow
from tinyvid.kernels.lstm import bprop as lstm_bprop
from tinyvid.kernels.lstm import fprop as lstm_fprop
from tinyvid.kernels.pool3d import avg_dgrad as avg_pool3d_dgrad
from tinyvid.kernels.pool3d import avg_fprop as avg_pool3d_fprop
from tinyvid.kernels.pool3d import max_dgrad as max_pool3d_dgrad
from tinyvid.kernels.pool3d import max_fprop as max_pool3d_fprop
from tinyvid.kernels.pool3d import max_gather as max_pool3d_gather
from tinyvid.kernels.registry import Kernel, Variant, kernels, use

__all__ = [
    "Kernel",
    "Variant",
    "avg_pool3d_dgrad",
    "avg_pool3d_fprop",
    "conv2d_dgrad",
    "conv2d_fprop",
    "conv2d_uint8_fprop",
    "conv2d_uint8_wgrad",
    "conv2d_wgrad",
    "conv3d_dgrad",
    "conv3d_fprop",
    "conv3d_relu_max_pool_fprop",
    "conv3d_relu_max_pool_wgrad",
    "conv3d_uint8_fprop",
    "conv3d_uint8_wgrad",
    "conv3d_wgrad",
    "get_precision",
    "horn_schunck_flow",
    "kernels",
    "lstm_bprop",
    "lstm_fprop",
    "max_pool3d_dgrad",
    "max_pool3d_fprop",
    "max_pool3d_gather",
    "precision",
    "set_precision",
    "tvl1_flow",
    "use",
]
