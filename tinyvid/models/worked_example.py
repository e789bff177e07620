"""The lecture's worked example: one tiny network, fused late, early or slowly.

                      late fusion            early fusion        3-D CNN (slow fusion)
    clip              3×20×64×64             3×20×64×64          3×20×64×64
    conv1 3 per axis  12×20×64×64 per frame  12×64×64            12×20×64×64
    pool1 4 per axis  12×20×16×16 per frame  12×16×16            12×5×16×16
    conv2 3 per axis  24×20×16×16 per frame  24×16×16            24×5×16×16
    gap               24×1×1×1               24×1×1×1            24×1×1×1
    fc                classes                classes             classes

Convolutions have stride 1 and keep the size ("same"), a ReLU follows each; pools take the
maximum. The fully connected layer at the end is ours, so that they can be trained. The
networks are sketches of those of Karpathy et al., "Large-scale video classification with
convolutional neural networks", CVPR 2014.
"""

from __future__ import annotations

from tinyvid import nn
from tinyvid.models.parts import Network, PerFrame, relu_init
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]
WIDTHS = (12, 24)


class _Worked(Network):
    trunk: nn.Module

    def __init__(self, num_classes: int):
        self.gap = nn.GlobalAvgPool()
        self.fc = nn.Linear(WIDTHS[1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gap(self.trunk(x)))


def _layers_2d(channels: int) -> dict[str, nn.Module]:
    return {
        "conv1": relu_init(nn.Conv2d(channels, WIDTHS[0], 3, padding="same")),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(4),
        "conv2": relu_init(nn.Conv2d(WIDTHS[0], WIDTHS[1], 3, padding="same")),
        "relu2": nn.ReLU(),
    }


class WorkedLateFusion(_Worked):
    """2-D convolutions on each frame; time is fused all at once, at the end, by the mean.

    Takes `N C T H W`, H and W of at least 4; gives scores `N classes`.
    """

    def __init__(self, num_classes: int, clip: Clip):
        self.trunk = PerFrame(_layers_2d(clip[0]))
        super().__init__(num_classes)


class WorkedEarlyFusion(_Worked):
    """The first 2-D convolution takes all frames as channels: time is fused at the start.

    Takes `N C T H W` with the C and T of `clip`, H and W of at least 4; gives `N classes`.
    """

    def __init__(self, num_classes: int, clip: Clip):
        self.trunk = nn.Sequential(_layers_2d(clip[0] * clip[1]))
        super().__init__(num_classes)


class WorkedSlowFusion(_Worked):
    """3-D convolutions and pools: time and space are both fused slowly.

    Takes `N C T H W`, T, H and W of at least 4; gives scores `N classes`.
    """

    def __init__(self, num_classes: int, clip: Clip):
        self.trunk = nn.Sequential(
            conv1=relu_init(nn.Conv3d(clip[0], WIDTHS[0], 3, padding="same")),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool3d(4),
            conv2=relu_init(nn.Conv3d(WIDTHS[0], WIDTHS[1], 3, padding="same")),
            relu2=nn.ReLU(),
        )
        super().__init__(num_classes)
