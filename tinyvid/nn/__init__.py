"""Modules: parts of networks that own their parameters.

Names, arguments, defaults and the keys of `state_dict` are those of `torch.nn`, so that
weights of the same network trained there load by name.
"""

from tinyvid.nn import init
from tinyvid.nn.containers import ModuleList, Sequential
from tinyvid.nn.conv import Conv2d, Conv3d
from tinyvid.nn.layers import (
    CrossEntropyLoss,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from tinyvid.nn.module import Buffer, Module, Parameter, RemovableHandle, shapes_only
from tinyvid.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, LayerNorm, LocalResponseNorm
from tinyvid.nn.pool import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool2d,
    AvgPool3d,
    MaxPool2d,
    MaxPool3d,
)
from tinyvid.nn.recurrent import LSTM

__all__ = [
    "LSTM",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Buffer",
    "Conv2d",
    "Conv3d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "LayerNorm",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "MaxPool3d",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "RemovableHandle",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "init",
    "shapes_only",
]
