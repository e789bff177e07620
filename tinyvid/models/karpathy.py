"""The full-size networks of Karpathy et al. (2014), which named the fusions.

"Large-scale video classification with convolutional neural networks", CVPR 2014, section 3.1.
C(d, f, s) is a convolution of d filters of f×f at stride s, N local response normalisation,
P a 2×2 max pool, FC(n) a fully connected layer. All four networks are

    C(96,11,3)-N-P-C(256,5,1)-N-P-C(384,3,1)-C(384,3,1)-C(256,3,1)-P-FC(4096)-FC(4096)-classes

on frames of 170×170, and differ in how their filters reach through time:

    single frame   1 frame    C(96) 11×11×3
    early fusion   10 frames  C(96) 11×11×3×10: all frames at once
    late fusion    2 frames   the single-frame network up to the last P on two frames 15 apart,
                              with shared weights; the first FC sees both
    slow fusion    10 frames  C(96) reaches through 4 frames at stride 2, C(256) and C(384)
                              through 2 at stride 2: 10 -> 4 -> 2 -> 1 responses in time

N is that of Krizhevsky et al., "ImageNet classification with deep convolutional neural
networks", NeurIPS 2012, with k = 2, n = 5, α = 1e-4, β = 0.5 as the paper has it.

What the paper leaves open, and what we take from Krizhevsky et al.: ReLU after every layer but
the last, before N; dropout of 1/2 after both FC(4096); padding that keeps the size ("same") of
every convolution but the first, which has none. Then 170 -> 54 -> 27 -> 13 -> 6 cells, and
the first FC sees 256×6×6 as theirs does. Filters are not split into groups.
"""

from __future__ import annotations

from tinyvid import nn
from tinyvid.models.parts import (
    AverageOfFrames,
    FirstAndLastFrame,
    Network,
    PerFrame,
    features,
    relu_init,
)
from tinyvid.models.single_frame import SingleFrameModel
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]

# (filters for each unit of width, filter size, stride)
FILTERS = ((3, 11, 3), (8, 5, 1), (12, 3, 1), (12, 3, 1), (8, 3, 1))


def _norm() -> nn.LocalResponseNorm:
    # This layer's alpha is divided by n, the paper's is not.
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.5, k=2.0)


def layers_2d(channels: int, width: int) -> dict[str, nn.Module]:
    """Return the layers of a frame, conv1 to pool5; `channels` is what conv1 takes."""
    layers: dict[str, nn.Module] = {}
    for i, (factor, size, stride) in enumerate(FILTERS, 1):
        conv = nn.Conv2d(channels, factor * width, size, stride, 0 if i == 1 else size // 2)
        layers[f"conv{i}"] = relu_init(conv)
        layers[f"relu{i}"] = nn.ReLU()
        if i <= 2:
            layers[f"norm{i}"] = _norm()
        if i in (1, 2, 5):
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        channels = factor * width
    return layers


def head(
    size: int, hidden: int, num_classes: int, dropout: float, last: int | None = None
) -> dict[str, nn.Module]:
    """Return the fully connected layers, for so many features; fc7 has `last` units, or as many as
    fc6."""
    last = hidden if last is None else last
    return {
        "flatten": nn.Flatten(),
        "fc6": relu_init(nn.Linear(size, hidden)),
        "relu6": nn.ReLU(),
        "drop6": nn.Dropout(dropout),
        "fc7": relu_init(nn.Linear(hidden, last)),
        "relu7": nn.ReLU(),
        "drop7": nn.Dropout(dropout),
        "fc8": nn.Linear(last, num_classes),
    }


class KarpathySingleFrame(SingleFrameModel):
    """One frame at a time: see the module's docstring.

        170×170 - conv1 96×54×54 - pool1 96×27×27 - conv2 256×27×27 - pool2 256×13×13
        - conv3, conv4 384×13×13 - conv5 256×13×13 - pool5 256×6×6 - fc6, fc7 4096 - fc8

    Takes `N C T H W` of any T: one random frame in training, and in evaluation the average
    of the predictions for all frames.

    Args:
        num_classes: the number of scores.
        clip: `C T H W`; every clip must have this C, H and W.
        width: a 32nd of the filters of conv1; 32 is the paper's.
        hidden: units of fc6 and fc7.
        dropout: probability of dropping a unit of fc6 and fc7.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        width: int = 32,
        hidden: int = 4096,
        dropout: float = 0.5,
    ):
        layers = layers_2d(clip[0], width)
        size = features(nn.Sequential(layers), (clip[0], *clip[2:]))
        self.frames = PerFrame(layers | head(size, hidden, num_classes, dropout))
        self.average = AverageOfFrames()


class KarpathyEarlyFusion(Network):
    """All frames in the first convolution: see the module's docstring.

        3×10×170×170 - conv1 11×11 over 3·10 channels: 96×54×54 - then as the single frame

    Args:
        clip: `C T H W`; every clip must have these sizes.
        num_classes, width, hidden, dropout: as in `KarpathySingleFrame`.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        width: int = 32,
        hidden: int = 4096,
        dropout: float = 0.5,
    ):
        self.trunk = nn.Sequential(layers_2d(clip[0] * clip[1], width))
        size = features(self.trunk, clip)
        self.head = nn.Sequential(head(size, hidden, num_classes, dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


class KarpathyLateFusion(Network):
    """Two frames far apart, each alone up to the first FC: see the module's docstring.

        3×16×170×170 - frames 0 and 15 - single-frame layers up to pool5 on each: 2 × 256×6×6
        - fc6 sees both - fc7 - fc8

    Takes the first and the last frame of the clip, so that 16 frames put them 15 apart.

    Args:
        clip: `C T H W`, T at least 2; every clip must have this C, H and W.
        num_classes, width, hidden, dropout: as in `KarpathySingleFrame`.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        width: int = 32,
        hidden: int = 4096,
        dropout: float = 0.5,
    ):
        self.select = FirstAndLastFrame()
        self.frames = PerFrame(layers_2d(clip[0], width))
        size = features(nn.Sequential(self.select, self.frames), clip)
        self.head = nn.Sequential(head(size, hidden, num_classes, dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frames(self.select(x)))


class KarpathySlowFusion(Network):
    """Filters that reach a little through time in each of three layers.

        clip                         3×10×170×170
        conv1 4×11×11, stride 2×3×3  96×4×54×54
        pool1 1×2×2                  96×4×27×27
        conv2 2×5×5, stride 2×1×1    256×2×27×27
        pool2 1×2×2                  256×2×13×13
        conv3 2×3×3, stride 2×1×1    384×1×13×13     sees all 10 frames
        conv4, conv5 1×3×3           384×1×13×13, 256×1×13×13
        pool5 1×2×2                  256×1×6×6
        fc6, fc7, fc8

    See the module's docstring. Convolutions are not padded in time ("valid").

    Args:
        clip: `C T H W`, T at least 10; every clip must have these sizes.
        num_classes, width, hidden, dropout: as in `KarpathySingleFrame`.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        width: int = 32,
        hidden: int = 4096,
        dropout: float = 0.5,
    ):
        channels = clip[0]
        layers: dict[str, nn.Module] = {}
        for i, (factor, size, stride) in enumerate(FILTERS, 1):
            extent, step = {1: (4, 2), 2: (2, 2), 3: (2, 2)}.get(i, (1, 1))
            same = 0 if i == 1 else size // 2
            conv = nn.Conv3d(
                channels,
                factor * width,
                (extent, size, size),
                (step, stride, stride),
                (0, same, same),
            )
            layers[f"conv{i}"] = relu_init(conv)
            layers[f"relu{i}"] = nn.ReLU()
            if i <= 2:
                layers[f"norm{i}"] = _norm()
            if i in (1, 2, 5):
                layers[f"pool{i}"] = nn.MaxPool3d((1, 2, 2))
            channels = factor * width
        self.trunk = nn.Sequential(layers)
        self.head = nn.Sequential(head(features(self.trunk, clip), hidden, num_classes, dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))
