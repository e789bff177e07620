"""Single-frame CNN: the baseline that does not see time at all."""

from __future__ import annotations

import numpy as np

from tinyvid import nn
from tinyvid.models.parts import AverageOfFrames, Network, PerFrame, clip_shape, frame_layers
from tinyvid.random import generator
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]


class SingleFrameModel(Network):
    """What every single-frame network does with time, whatever its 2-D CNN.

    In training one random frame of each clip is classified; its index is drawn from the
    generator that `tinyvid.manual_seed` seeds. In evaluation all frames are, and their
    probabilities averaged.
    """

    frames: PerFrame
    average: AverageOfFrames

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            n, _, t, _, _ = clip_shape(x)
            chosen = generator().integers(t, size=n)
            x = x[np.arange(n), :, chosen].unsqueeze(2)  # (N, C, 1, H, W)
            return self.frames(x)[:, 0]
        return self.average(self.frames(x))


class SingleFrame(SingleFrameModel):
    """A small 2-D CNN on each frame; predictions averaged over all frames at test.

        N C T H W
          | each frame alone; in training one random frame of each clip
        conv1 - pool1 - conv2 - pool2 - conv3 - pool3 - conv4     4w × H/16 × W/16
          | GAP over space, dropout, fc
        N T classes
          | log of the mean over T of the softmax
        N classes

    The single-frame baseline of Karpathy et al., "Large-scale video classification with
    convolutional neural networks", CVPR 2014, section 3.1, at a size for small data.

    Args:
        num_classes: the number of scores.
        clip: `C T H W`; other T, H and W may follow later.
        width: channels of conv1; see `frame_layers`.
        dropout: probability of dropping a feature before fc.
    """

    def __init__(self, num_classes: int, clip: Clip, width: int = 16, dropout: float = 0.3):
        self.frames = PerFrame(
            frame_layers(clip[0], width)
            | {
                "gap": nn.GlobalAvgPool(),
                "drop": nn.Dropout(dropout),
                "fc": nn.Linear(4 * width, num_classes),
            }
        )
        self.average = AverageOfFrames()
