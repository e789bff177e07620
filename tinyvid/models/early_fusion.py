"""Early fusion: the first layer sees all frames, and no layer after it sees time."""

from __future__ import annotations

from tinyvid import nn
from tinyvid.models.parts import Network, frame_layers
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]


class EarlyFusion(Network):
    """A small 2-D CNN whose first convolution takes all frames as channels.

        N C T H W = N (C·T) H W
          |
        conv1 3×3 over C·T channels     w × H/2 × W/2: one layer of temporal processing
          |
        pool1 - conv2 - pool2 - conv3 - pool3 - conv4     4w × H/16 × W/16
          | GAP, dropout, fc
        N classes

    Karpathy et al., "Large-scale video classification with convolutional neural networks",
    CVPR 2014, section 3.1, at a size for small data.

    Args:
        num_classes: the number of scores.
        clip: `C T H W`; every clip must have this C and T.
        width: channels of conv1; see `frame_layers`.
        dropout: probability of dropping a feature before fc.
    """

    def __init__(self, num_classes: int, clip: Clip, width: int = 16, dropout: float = 0.3):
        self.trunk = nn.Sequential(frame_layers(clip[0] * clip[1], width))
        self.gap = nn.GlobalAvgPool()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.gap(self.trunk(x))))
