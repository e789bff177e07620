"""Public C3D checkpoints: what they call their layers, and what they want to see.

All descend from, or were made to be like, the network of Tran et al. (ICCV 2015), which its
authors released for Caffe: filters K C T R S and fully connected layers (out, in) as ours, with fc6
over channels, then time, height and width; so no axis moves. What differs is names, the order
of the colours, and what is subtracted from the pixels:

    layout    names                                      colours  subtracted from 0..255
    c3d       conv1 … conv5b, fc6 … fc8                  BGR      90, 98, 102
    vgg       features.0 … 18, classifier.0, 3, 6        BGR      90, 98, 102
    mmaction  backbone.conv1a.conv …, cls_head.fc_cls    RGB      104, 117, 128

The first two are of the weights from Caffe, as taken over by DavideA/c3d-pytorch and
jfzhang95/pytorch-video-recognition; the latter reads by OpenCV, so BGR, and subtracts these means.
(Caffe's own program subtracts a mean picture for each frame, of which they are about the means.)
The third is of MMAction2, by its configuration for UCF-101.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyvid.errors import UserError

LAYERS = (
    *("trunk.conv1", "trunk.conv2", "trunk.conv3a", "trunk.conv3b"),
    *("trunk.conv4a", "trunk.conv4b", "trunk.conv5a", "trunk.conv5b"),
    *("head.fc6", "head.fc7", "head.fc8"),
)
_CONVS = ("1", "2", "3a", "3b", "4a", "4b", "5a", "5b")


@dataclass(frozen=True)
class Layout:
    """How a family of checkpoints is laid out.

    Attributes:
        name: what it is called here.
        layers: its names for `LAYERS`, in their order.
        colours: the order of its input's channels, "RGB" or "BGR".
        mean: subtracted from pixels of 0..255, in the order R, G, B.
    """

    name: str
    layers: tuple[str, ...]
    colours: str
    mean: tuple[float, float, float]


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "c3d",
            (*(f"conv{label}" for label in _CONVS), "fc6", "fc7", "fc8"),
            "BGR",
            (102.0, 98.0, 90.0),
        ),
        Layout(
            "vgg",
            (
                *(f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)),
                *(f"classifier.{i}" for i in (0, 3, 6)),
            ),
            "BGR",
            (102.0, 98.0, 90.0),
        ),
        Layout(
            "mmaction",
            (
                *(
                    f"backbone.conv{label if len(label) > 1 else label + 'a'}.conv"
                    for label in _CONVS
                ),
                *("backbone.fc6", "backbone.fc7", "cls_head.fc_cls"),
            ),
            "RGB",
            (104.0, 117.0, 128.0),
        ),
    )
}


def recognise(names: Sequence[str], source: object) -> Layout:
    """Return the layout whose names these are; the last layer may be missing.

    Raises:
        UserError: they are those of no known layout.
    """
    found = {name.removeprefix("module.") for name in names}
    for layout in LAYOUTS.values():
        if all(f"{layer}.weight" in found for layer in layout.layers[:-1]):
            return layout
    some = ", ".join(sorted(found)[:3])
    raise UserError(
        f"{source} has the names of no known layout of C3D ({', '.join(LAYOUTS)}): {some}, … "
        "Weights of tinyvid's own networks need no conversion"
    )


def to_ours(
    weights: Mapping[str, np.ndarray], layout: Layout, source: object
) -> dict[str, np.ndarray]:
    """Return the weights under the names of `tinyvid.models.C3D`, for RGB, as float32.

    What belongs to no layer, such as an optimiser's state, is left out.

    Raises:
        UserError: a layer is missing, but for the last, or has a shape that C3D's has not.
    """
    given = {name.removeprefix("module."): array for name, array in weights.items()}
    ours: dict[str, np.ndarray] = {}
    for layer, theirs in zip(LAYERS, layout.layers, strict=True):
        if layer == LAYERS[-1] and f"{theirs}.weight" not in given:
            continue  # the layer of the classes is often left out
        for part in ("weight", "bias"):
            name = f"{theirs}.{part}"
            if name not in given:
                raise UserError(f"{source} lacks {name}, which layout {layout.name} has")
            ours[f"{layer}.{part}"] = given[name].astype(np.float32)
        axes = 5 if layer.startswith("trunk") else 2
        weight, bias = ours[f"{layer}.weight"], ours[f"{layer}.bias"]
        if weight.ndim != axes or bias.shape != weight.shape[:1]:
            raise UserError(
                f"{source}: {theirs} has a weight of {weight.shape} and a bias of {bias.shape}"
            )
    if layout.colours == "BGR":
        first = f"{LAYERS[0]}.weight"
        ours[first] = np.ascontiguousarray(ours[first][:, ::-1])
    return ours
