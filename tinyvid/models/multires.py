"""Fovea and context: a frame seen sharply in its middle, and as a whole at half the resolution.

Karpathy et al., "Large-scale video classification with convolutional neural networks", CVPR 2014,
section 3.2. Half the side means a quarter of the pixels, so two streams together have half the work
of one at full resolution:

                  frame C×H×W
             |                    |
    centre C×H/2×W/2      means of 2×2 pixels C×H/2×W/2
             |                    |
           trunk                trunk             the same layers, weights of their own
             |                    |
             '---- features ------'
                      |
              fully connected layers

A network of one stream alone has the same layers; it tells what each stream contributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyvid import nn
from tinyvid.errors import UserError
from tinyvid.models.karpathy import head, layers_2d
from tinyvid.models.parts import ALONE, AverageOfFrames, PerFrame, features, frame_layers
from tinyvid.models.single_frame import SingleFrameModel
from tinyvid.ops.shape import cat, narrow
from tinyvid.tensor import Tensor
from tinyvid.trace import LayerWindows

Clip = tuple[int, int, int, int]

STREAMS = ("fovea", "context", "both")


class Fovea(nn.Module):
    """`N C H W` -> `N C H/2 W/2`: the middle of the frame, at full resolution."""

    def forward(self, x: Tensor) -> Tensor:
        for axis in (2, 3):
            size = x.shape[axis]
            x = narrow(x, axis, size // 4, size // 2)
        return x

    def windows(self, positions: Sequence[int]) -> LayerWindows:
        t, h, w = positions
        rows, columns = ((1, 1, -(n // 4), 1) for n in (h, w))
        return LayerWindows((ALONE, rows, columns), (t, h // 2, w // 2))


class Streams(nn.Module):
    """`N C H W` -> `N F`: the features of each stream, one after the other."""

    def __init__(self, streams: dict[str, nn.Module]):
        for name, stream in streams.items():
            setattr(self, name, stream)

    def forward(self, x: Tensor) -> Tensor:
        return cat([stream(x) for _, stream in self.named_children()], 1)


def _streams(which: str, trunk: Callable[[], dict[str, nn.Module]]) -> Streams:
    """Return the streams, each with a trunk that ends in features."""
    if which not in STREAMS:
        raise UserError(f"streams={which!r}: choose one of {', '.join(STREAMS)}")
    views = {"fovea": Fovea, "context": lambda: nn.AvgPool2d(2)}
    chosen = views if which == "both" else {which: views[which]}
    return Streams(
        {name: nn.Sequential({"view": view(), **trunk()}) for name, view in chosen.items()}
    )


class Multires(SingleFrameModel):
    """A small single-frame network of one or two streams: see the module's docstring.

        N C T H W - each frame alone: fovea, context
          | conv1 - pool1 - conv2 - pool2 - conv3 - pool3 - conv4, GAP      4w of each stream
        dropout, fc, and the mean of the frames' probabilities: N classes

    Args:
        num_classes: the number of scores.
        clip: `C T H W`; other T, H and W may follow later.
        streams: "fovea", "context" or "both".
        width, dropout: as in `SingleFrame`.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        streams: str = "both",
        width: int = 16,
        dropout: float = 0.3,
    ):
        both = _streams(streams, lambda: frame_layers(clip[0], width) | {"gap": nn.GlobalAvgPool()})
        size = 4 * width * sum(1 for _ in both.children())
        self.frames = PerFrame(
            {"streams": both, "drop": nn.Dropout(dropout), "fc": nn.Linear(size, num_classes)}
        )
        self.average = AverageOfFrames()


class KarpathyMultires(SingleFrameModel):
    """The full-size network of one or two streams: see the module's docstring.

        178×178 - fovea, context 89×89 - conv1 96×27×27 - pool1 96×13×13 - conv2 256×13×13
        - pool2 256×6×6 - conv3, conv4 384×6×6 - conv5 256×6×6, of each stream - fc6, fc7 4096 - fc8

    The single-frame network without its last pool, so that each stream ends in about as many cells
    as that does (section 3.2; the paper has 7×7 cells, see `tinyvid.models.karpathy` for padding).

    Args:
        num_classes: the number of scores.
        clip: `C T H W`; every clip must have this C, H and W.
        streams: "fovea", "context" or "both".
        width, hidden, dropout: as in `KarpathySingleFrame`.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Clip,
        streams: str = "both",
        width: int = 32,
        hidden: int = 4096,
        dropout: float = 0.5,
    ):
        def trunk() -> dict[str, nn.Module]:
            layers = layers_2d(clip[0], width)
            del layers["pool5"]
            return layers | {"flatten": nn.Flatten()}

        both = _streams(streams, trunk)
        sizes = [features(stream, (clip[0], *clip[2:])) for stream in both.children()]
        top = head(sum(sizes), hidden, num_classes, dropout)
        del top["flatten"]
        self.frames = PerFrame({"streams": both, **top})
        self.average = AverageOfFrames()
