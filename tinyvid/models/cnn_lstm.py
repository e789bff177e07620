"""CNN + LSTM: what a CNN sees in each frame, read as a sequence."""

from __future__ import annotations

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

    def states(self, x: Tensor) -> Tensor:
        """Return the LSTM's output at each frame, `N T hidden`."""
        outputs, _ = self.lstm(self.frames(x))
        return outputs

    def steps(self, x: Tensor) -> Tensor:
        """Return the scores after each frame, `N T classes`: what it thinks so far."""
        return self.fc(self.drop(self.states(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.states(x)[:, -1]))
