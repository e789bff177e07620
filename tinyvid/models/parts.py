"""What the networks are built from: layers run on each frame, and the trunks they share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from tinyvid import nn
from tinyvid.errors import UserError
from tinyvid.ops.elementwise import exp, log
from tinyvid.ops.loss import log_softmax
from tinyvid.ops.reduce import mean
from tinyvid.ops.shape import cat, narrow
from tinyvid.tensor import Tensor
from tinyvid.trace import Axis, LayerWindows, size, trace

Layer = TypeVar("Layer", nn.Conv2d, nn.Conv3d, nn.Linear)

ALONE: Axis = (1, 1, 0, 1)


class Network(nn.Module):
    """A network of this package: takes clips `N C T H W`, gives scores `N classes`.

    Attributes:
        config: the arguments of `tinyvid.models.build` that make another one like it.
    """

    config: Mapping[str, Any] = MappingProxyType({})


class PerFrame(nn.Sequential):
    """Layers run on each frame alone: a clip becomes a batch of frames and back.

    N C T H W -> N·T C H W -> layers -> N·T K P Q -> N K T P Q
                                     -> N·T F     -> N T F      where they end in features
    """

    per_frame = True

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, h, w = clip_shape(x)
        y = super().forward(x.permute(0, 2, 1, 3, 4).reshape(n * t, c, h, w))
        y = y.reshape(n, t, *y.shape[1:])  # (N, T, K, P, Q) or (N, T, F)
        return y.permute(0, 2, 1, 3, 4) if y.ndim == 5 else y


def clip_shape(x: Tensor) -> tuple[int, int, int, int, int]:
    """Return N, C, T, H, W of a batch of clips.

    Raises:
        UserError: it is none.
    """
    if x.ndim != 5:
        raise UserError(f"input of shape {x.shape}: clips (N, C, T, H, W) are taken")
    return x.shape


class FirstAndLastFrame(nn.Module):
    """`N C T H W` -> `N C 2 H W`: the two frames of a clip that are farthest apart."""

    def forward(self, x: Tensor) -> Tensor:
        last = x.shape[2] - 1
        return cat([narrow(x, 2, 0, 1), narrow(x, 2, last, 1)], 2)

    def windows(self, positions: Sequence[int]) -> LayerWindows:
        t, h, w = positions
        return LayerWindows(((1, t - 1, 0, 1), ALONE, ALONE), (2, h, w))


class AverageOfFrames(nn.Module):
    """`N T K` -> `N K`: the logarithm of the frames' mean probability.

    Its softmax is the average of the frames' softmaxes. Worked out relative to the largest
    frame of each class, so that a small probability does not become log 0.
    """

    def forward(self, logits: Tensor) -> Tensor:
        y = log_softmax(logits, 2)
        largest = Tensor(y.data.max(1, keepdims=True))  # a constant: it cancels
        return log(mean(exp(y - largest), 1)) + largest[:, 0]

    def windows(self, positions: Sequence[int]) -> LayerWindows:
        t, h, w = positions
        return LayerWindows(((t, t, 0, 1), ALONE, ALONE), (1, h, w))


def frame_layers(channels: int, width: int) -> dict[str, nn.Module]:
    """Return the 2-D trunk that the small networks share; `channels` is what conv1 takes.

        conv1 w, stride 2 - pool1 2 - conv2 2w - pool2 2 - conv3 4w - pool3 2 - conv4 4w

    Every convolution is 3×3 with batch normalisation and ReLU. 64×64 becomes 4×4.
    """
    widths = (channels, width, 2 * width, 4 * width, 4 * width)
    layers: dict[str, nn.Module] = {}
    for i in range(1, 5):
        stride = 2 if i == 1 else 1
        layers[f"conv{i}"] = relu_init(
            nn.Conv2d(widths[i - 1], widths[i], 3, stride, padding=1, bias=False)
        )
        layers[f"bn{i}"] = nn.BatchNorm2d(widths[i])
        layers[f"relu{i}"] = nn.ReLU()
        if i < 4:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
    return layers


def clip_layers(channels: int, width: int, frames: int) -> dict[str, nn.Module]:
    """Return the same trunk in three dimensions: 3×3×3 filters, and pools over time as well.

    Time keeps its resolution in conv1 and is halved by each pool as long as two frames are
    left: 16×64×64 becomes 2×4×4, and clips of a single frame fit too.
    """
    widths = (channels, width, 2 * width, 4 * width, 4 * width)
    layers: dict[str, nn.Module] = {}
    for i in range(1, 5):
        stride = (1, 2, 2) if i == 1 else 1
        layers[f"conv{i}"] = relu_init(
            nn.Conv3d(widths[i - 1], widths[i], 3, stride, padding=1, bias=False)
        )
        layers[f"bn{i}"] = nn.BatchNorm3d(widths[i])
        layers[f"relu{i}"] = nn.ReLU()
        if i < 4:
            over_time = min(frames, 2)
            layers[f"pool{i}"] = nn.MaxPool3d((over_time, 2, 2))
            frames //= over_time
    return layers


def relu_init(layer: Layer) -> Layer:
    """Draw a layer's weights for a ReLU behind it (He et al., ICCV 2015); its bias becomes 0."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def features(layers: nn.Module, clip: Sequence[int]) -> int:
    """Return how many features a clip `C T H W` has when it leaves `layers`.

    Raises:
        UserError: the clip does not fit.
    """
    last = trace(layers, clip)[-1]
    return math.prod(size(last.y, last.per_frame))
