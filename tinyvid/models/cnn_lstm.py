"""CNN + LSTM: what a CNN sees in each frame, read as a sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyvid import nn
from tinyvid.models.parts import Network, PerFrame, frame_layers
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]


class CnnLstm(Network):
    """A small 2-D CNN on each frame, and an LSTM over the features of the frames.

        N C T H W
          | each frame alone
        conv1 - pool1 - conv2 - pool2 - conv3 - pool3 - conv4     4w × H/16 × W/16
          | GAP over space
        N T 4w
          | LSTM over time
        N T hidden
          | dropout, fc at each step
        N T classes            steps(x)
          | the last step
        N classes

    `frames` is the part before the LSTM, `read` the part behind it, for whoever keeps the features
    of frames or reads a whole video.

    The long-term recurrent convolutional network (LRCN) of Donahue et al., "Long-term
    recurrent convolutional networks for visual recognition and description", CVPR 2015, at a
    size for small data. The paper averages the predictions of all steps; here the last one,
    which has seen the whole clip, decides.

    Args:
        num_classes: the number of scores.
        clip: `C T H W`; other T, H and W may follow later.
        width: channels of conv1; see `frame_layers`.
        hidden: units of the LSTM.
        dropout: probability of dropping a feature before fc.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        width: int = 16,
        hidden: int = 64,
        dropout: float = 0.3,
    ):
        self.frames = PerFrame(frame_layers(clip[0], width) | {"gap": nn.GlobalAvgPool()})
        self.lstm = nn.LSTM(4 * width, hidden, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden, num_classes)

    def read(self, features: Tensor) -> Tensor:
        """Return the scores after each frame, `N T classes`, of the frames' features, `N T 4w`."""
        outputs, _ = self.lstm(features)
        return self.fc(self.drop(outputs))

    def steps(self, x: Tensor) -> Tensor:
        """Return the scores after each frame, `N T classes`: what it thinks so far."""
        return self.read(self.frames(x))

    def forward(self, x: Tensor, lengths: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Return the scores of clips, `N classes`.

        Args:
            x: clips `N C T H W`.
            lengths: how many frames of each clip count, from 1 to T; all by default. The last of
                them decides, and those behind it change nothing.
        """
        if lengths is None:
            outputs, _ = self.lstm(self.frames(x))
            return self.fc(self.drop(outputs[:, -1]))
        outputs, _ = self.lstm(self.frames(x), lengths=lengths)
        last = outputs[np.arange(len(lengths)), np.asarray(lengths) - 1]
        return self.fc(self.drop(last))
