"""The full-size streams of Simonyan and Zisserman (2014): what is seen, and how it moves.

"Two-stream convolutional networks for action recognition in videos", NeurIPS 2014, figure 1. Both
are the network CNN-M-2048 of Chatfield et al., "Return of the devil in the details", BMVC 2014:

    conv1 96 7×7/2 - norm1 - pool1 - conv2 256 5×5/2 - norm2 - pool2
    - conv3, conv4, conv5 512 3×3 - pool5 - fc6 4096 - fc7 2048 - classes

    spatial     one frame of 224×224, 3 channels
    temporal    the flow of ten pairs of frames, 20 channels; without norm2, to save memory

ReLU after every layer but the last, dropout of 1/2 after fc6 and fc7, pools 2×2. Local response
normalisation is that of Krizhevsky et al., "ImageNet classification with deep convolutional neural
networks", NeurIPS 2012: k = 2, n = 5, α = 1e-4, β = 0.75. Padding is not told in the first paper,
and is Chatfield's: none in conv1, 1 in all others. Then 224 -> 109 -> 54 -> 26 -> 13 -> 6 cells.
"""

from __future__ import annotations

from tinyvid import nn
from tinyvid.models.karpathy import head
from tinyvid.models.parts import AverageOfFrames, Network, PerFrame, features, relu_init
from tinyvid.models.single_frame import SingleFrameModel
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]

# (filters for each unit of width, filter size, stride, padding)
FILTERS = ((3, 7, 2, 0), (8, 5, 2, 1), (16, 3, 1, 1), (16, 3, 1, 1), (16, 3, 1, 1))


def cnn_m_layers(channels: int, width: int, norms: int) -> dict[str, nn.Module]:
    """Return conv1 to pool5; `channels` is what conv1 takes, `norms` how many of the two norms
    there are."""
    layers: dict[str, nn.Module] = {}
    for i, (factor, size, stride, padding) in enumerate(FILTERS, 1):
        conv = nn.Conv2d(channels, factor * width, size, stride, padding)
        layers[f"conv{i}"] = relu_init(conv)
        layers[f"relu{i}"] = nn.ReLU()
        if i <= norms:  # this layer's alpha is divided by n, Krizhevsky's is not
            layers[f"norm{i}"] = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        if i in (1, 2, 5):
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        channels = factor * width
    return layers


class CnnMSpatial(SingleFrameModel):
    """The spatial stream: see the module's docstring.

    Takes `N C T H W` of any T: one random frame in training, and in evaluation the average
    of the predictions for all frames.

    Args:
        num_classes: the number of scores.
        clip: `C T H W`; every clip must have this C, H and W.
        width: a 32nd of the filters of conv1; 32 is the paper's.
        hidden: units of fc6, and twice those of fc7.
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
        layers = cnn_m_layers(clip[0], width, norms=2)
        size = features(nn.Sequential(layers), (clip[0], *clip[2:]))
        ends = head(size, hidden, num_classes, dropout, hidden // 2)
        self.frames = PerFrame(layers | ends)
        self.average = AverageOfFrames()


class CnnMTemporal(Network):
    """The temporal stream: see the module's docstring.

    Args:
        clip: `C T H W`, C = 2 for flow; every clip must have these sizes.
        num_classes, width, hidden, dropout: as in `CnnMSpatial`.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        width: int = 32,
        hidden: int = 4096,
        dropout: float = 0.5,
    ):
        self.trunk = nn.Sequential(cnn_m_layers(clip[0] * clip[1], width, norms=1))
        ends = head(features(self.trunk, clip), hidden, num_classes, dropout, hidden // 2)
        self.head = nn.Sequential(ends)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))
