"""Late fusion: each frame alone until the end, then all of them at once."""

from __future__ import annotations

from tinyvid import nn
from tinyvid.errors import UserError, nearest
from tinyvid.models.parts import Network, PerFrame, features, frame_layers, relu_init
from tinyvid.tensor import Tensor

Clip = tuple[int, int, int, int]
HEADS = ("flatten", "gap")


class LateFusion(Network):
    """A small 2-D CNN on each frame, whose features are joined at the end.

        N C T H W
          | each frame alone
        conv1 - pool1 - conv2 - pool2 - conv3 - pool3 - conv4     4w × T × H/16 × W/16
          |                                      |
          | head="flatten"                       | head="gap"
        pool4, flatten: all frames and cells   mean over time and space: 4w
        fc1 (hidden), ReLU                       |
          | dropout, fc                          | dropout, fc
        N classes                              N classes

    The lecture's late fusion (a) and (b). Karpathy et al., "Large-scale video classification
    with convolutional neural networks", CVPR 2014, section 3.1, fuse two frames; here it is
    all of them.

    Args:
        num_classes: the number of scores.
        clip: `C T H W`. With head="flatten" every clip must have these sizes.
        head: "flatten" or "gap".
        width: channels of conv1; see `frame_layers`.
        hidden: units of the fully connected layer of head="flatten".
        dropout: probability of dropping a feature before fc.

    Raises:
        UserError: an unknown head; in the forward pass, clips of other sizes with head="flatten".
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        head: str = "flatten",
        width: int = 16,
        hidden: int = 128,
        dropout: float = 0.3,
    ):
        if head not in HEADS:
            raise UserError(f"head={head!r}: 'flatten' or 'gap' is meant.{nearest(head, HEADS)}")
        layers = frame_layers(clip[0], width)
        self.clip = tuple(clip) if head == "flatten" else None  # the sizes that it is bound to
        if head == "flatten":
            self.frames = PerFrame(layers | {"pool4": nn.MaxPool2d(2)})
            size = features(self.frames, clip)
            self.head = nn.Sequential(
                flatten=nn.Flatten(),
                fc1=relu_init(nn.Linear(size, hidden)),
                relu=nn.ReLU(),
                drop=nn.Dropout(dropout),
                fc=nn.Linear(hidden, num_classes),
            )
        else:
            self.frames = PerFrame(layers)
            self.head = nn.Sequential(
                gap=nn.GlobalAvgPool(),
                drop=nn.Dropout(dropout),
                fc=nn.Linear(4 * width, num_classes),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.clip is not None and x.shape[1:] != self.clip:
            raise UserError(
                f"input of shape {x.shape}: the network was built for clips (C, T, H, W) = "
                f"{self.clip}, and head='flatten' takes no others; head='gap' does"
            )
        return self.head(self.frames(x))
