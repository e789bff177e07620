"""Slow fusion: a 3-D CNN, which fuses time as it fuses space, layer by layer."""

from __future__ import annotations

from tinyvid import nn
from tinyvid.models.parts import Network, clip_layers
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]


class SlowFusion(Network):
    """A small 3-D CNN.

        N C T H W                          3 × 16 × 64 × 64
          |
        conv1 3×3×3, stride 1×2×2          w  × 16 × 32 × 32
        pool1 2×2×2                        w  × 8 × 16 × 16
        conv2 3×3×3                        2w × 8 × 16 × 16
        pool2 2×2×2                        2w × 4 × 8 × 8
        conv3 3×3×3                        4w × 4 × 8 × 8
        pool3 2×2×2                        4w × 2 × 4 × 4
        conv4 3×3×3                        4w × 2 × 4 × 4
          | GAP, dropout, fc
        N classes

    Batch normalisation and ReLU follow every convolution. "Slow fusion" is the name of
    Karpathy et al., "Large-scale video classification with convolutional neural networks",
    CVPR 2014, section 3.1; the 3×3×3 filters are those of Tran et al., "Learning
    spatiotemporal features with 3D convolutional networks", ICCV 2015.

    Args:
        num_classes: the number of scores.
        clip: `C T H W`; other H and W may follow later, and other T of at least 8.
        width: channels of conv1.
        dropout: probability of dropping a feature before fc.
        pool_time: whether the pools halve time as well; without, all of it is kept up to GAP, and
            what the network says changes little when an action comes earlier or later.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        width: int = 16,
        dropout: float = 0.3,
        pool_time: bool = True,
    ):
        self.trunk = nn.Sequential(clip_layers(clip[0], width, clip[1] if pool_time else 1))
        self.gap = nn.GlobalAvgPool()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.gap(self.trunk(x))))
