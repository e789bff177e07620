"""C3D, the "VGG of video"."""

from __future__ import annotations

from typing import Any

from tinyvid import nn
from tinyvid.models.parts import Network, features, relu_init
from tinyvid.ops import conv3d_relu_max_pool
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]


class C3D(Network):
    """Eight 3×3×3 convolutions and three fully connected layers.

        clip                 3×16×112×112
        conv1                64×16×112×112
        pool1 1×2×2          64×16×56×56
        conv2                128×16×56×56
        pool2 2×2×2          128×8×28×28
        conv3a, conv3b       256×8×28×28
        pool3 2×2×2          256×4×14×14
        conv4a, conv4b       512×4×14×14
        pool4 2×2×2          512×2×7×7
        conv5a, conv5b       512×2×7×7
        pool5 2×2×2          512×1×3×3, or padded 512×1×4×4
        fc6, fc7             4096, 4096
        fc8                  classes

    Tran et al., "Learning spatiotemporal features with 3D convolutional networks", ICCV 2015,
    section 3.2. A ReLU follows every layer but fc8, dropout fc6 and fc7. The paper does not
    pad pool5, so that 7 cells become 3 (`c3d_lecture`); the network that its authors released
    pads it by one cell in height and width, so that they become 4 (`c3d`).

    Args:
        num_classes: the number of scores.
        clip: `C T H W`, of at least 16 frames and, with padded pool5, 16×16 pixels.
        pad_pool5: as in the released network.
        width: channels of conv1; the others are 2, 4 and 8 times as many.
        hidden: units of fc6 and fc7.
        dropout: probability of dropping a unit of fc6 and fc7.
        fuse_pool1: run conv1, its ReLU and pool1 as one operation: the same results, but conv1's
            output, the largest array of the network, is not kept, nor written at all by CUDA.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        pad_pool5: bool = True,
        width: int = 64,
        hidden: int = 4096,
        dropout: float = 0.5,
        fuse_pool1: bool = False,
    ):
        channels = clip[0]
        self.fuse_pool1 = fuse_pool1
        layers: dict[str, nn.Module] = {}
        stages = (("1", 1), ("2", 2), ("3ab", 4), ("4ab", 8), ("5ab", 8))
        for stage, (label, factor) in enumerate(stages, 1):
            for letter in label[1:] or [""]:
                conv = nn.Conv3d(channels, factor * width, 3, padding=1)
                layers[f"conv{stage}{letter}"] = relu_init(conv)
                layers[f"relu{stage}{letter}"] = nn.ReLU()
                channels = factor * width
            window = (1, 2, 2) if stage == 1 else (2, 2, 2)
            padding = (0, 1, 1) if stage == 5 and pad_pool5 else 0
            layers[f"pool{stage}"] = nn.MaxPool3d(window, padding=padding)
        self.trunk = nn.Sequential(layers)
        self.head = nn.Sequential(
            flatten=nn.Flatten(),
            fc6=relu_init(nn.Linear(features(self.trunk, clip), hidden)),
            relu6=nn.ReLU(),
            drop6=nn.Dropout(dropout),
            fc7=relu_init(nn.Linear(hidden, hidden)),
            relu7=nn.ReLU(),
            drop7=nn.Dropout(dropout),
            fc8=nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        trunk = self.trunk
        if self.fuse_pool1:
            conv: Any = trunk[0]
            pool: Any = trunk[2]
            x = conv3d_relu_max_pool(
                x, conv.weight, conv.bias, pool.kernel_size, padding=conv.padding
            )
            trunk = trunk[3:]
        return self.head(trunk(x))
