"""The lecture's networks, by name.

Each takes clips `N C T H W` of float32 and gives scores `N classes`.

>>> from tinyvid import models
>>> model = models.build("slow_fusion", num_classes=8, clip=(3, 16, 64, 64))
>>> model.config["name"]
'slow_fusion'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyvid.errors import UserError, nearest
from tinyvid.models.c3d import C3D
from tinyvid.models.cnn_lstm import CnnLstm
from tinyvid.models.cnn_m import CnnMSpatial, CnnMTemporal
from tinyvid.models.early_fusion import EarlyFusion
from tinyvid.models.karpathy import (
    KarpathyEarlyFusion,
    KarpathyLateFusion,
    KarpathySingleFrame,
    KarpathySlowFusion,
)
from tinyvid.models.late_fusion import LateFusion
from tinyvid.models.multires import KarpathyMultires, Multires
from tinyvid.models.parts import Network
from tinyvid.models.single_frame import SingleFrame
from tinyvid.models.slow_fusion import SlowFusion
from tinyvid.models.worked_example import WorkedEarlyFusion, WorkedLateFusion, WorkedSlowFusion
from tinyvid.trace import size_text, trace

Clip = tuple[int, int, int, int]


@dataclass(frozen=True)
class Entry:
    """A network that can be built by name.

    Attributes:
        make: called with (num_classes, clip, **options).
        clip: the clip `C T H W` that it is meant for.
        classes: how many classes it is listed with.
        line: what it is.
        options: those of its options that the name fixes.
    """

    make: Callable[..., Network]
    clip: Clip
    classes: int
    line: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that may be given, with the values that they have otherwise."""
        _, _, *free = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in free if p.name not in self.options}


SMALL: Clip = (3, 16, 64, 64)
FLOW: Clip = (2, 10, 64, 64)
WORKED: Clip = (3, 20, 64, 64)

MODELS: dict[str, Entry] = {
    "single_frame": Entry(SingleFrame, SMALL, 10, "2-D CNN, frames averaged"),
    "multires": Entry(Multires, SMALL, 10, "2-D CNNs of fovea and context", {"streams": "both"}),
    "fovea": Entry(Multires, SMALL, 10, "2-D CNN, middle of the frame", {"streams": "fovea"}),
    "context": Entry(Multires, SMALL, 10, "2-D CNN, frame at half size", {"streams": "context"}),
    "late_fusion": Entry(
        LateFusion,
        SMALL,
        10,
        "2-D CNN, flatten, fc",
        {"head": "flatten"},
    ),
    "late_fusion_gap": Entry(LateFusion, SMALL, 10, "2-D CNN, GAP over all", {"head": "gap"}),
    "early_fusion": Entry(EarlyFusion, SMALL, 10, "2-D CNN over 3·T planes"),
    "slow_fusion": Entry(SlowFusion, SMALL, 10, "3-D CNN"),
    "temporal_stream": Entry(EarlyFusion, FLOW, 10, "2-D CNN over 2·T planes of flow"),
    "cnn_lstm": Entry(CnnLstm, SMALL, 10, "2-D CNN, then LSTM"),
    "worked_late_fusion": Entry(WorkedLateFusion, WORKED, 10, "the worked example, late"),
    "worked_early_fusion": Entry(WorkedEarlyFusion, WORKED, 10, "the worked example, early"),
    "worked_slow_fusion": Entry(WorkedSlowFusion, WORKED, 10, "the worked example, slow"),
    "karpathy_single_frame": Entry(
        KarpathySingleFrame, (3, 1, 170, 170), 487, "Karpathy 2014, one frame"
    ),
    "karpathy_multires": Entry(
        KarpathyMultires,
        (3, 1, 178, 178),
        487,
        "Karpathy 2014, fovea and context",
        {"streams": "both"},
    ),
    "karpathy_fovea": Entry(
        KarpathyMultires,
        (3, 1, 178, 178),
        487,
        "Karpathy 2014, fovea alone",
        {"streams": "fovea"},
    ),
    "karpathy_context": Entry(
        KarpathyMultires,
        (3, 1, 178, 178),
        487,
        "Karpathy 2014, context alone",
        {"streams": "context"},
    ),
    "karpathy_late_fusion": Entry(
        KarpathyLateFusion, (3, 16, 170, 170), 487, "Karpathy 2014, two frames"
    ),
    "karpathy_early_fusion": Entry(
        KarpathyEarlyFusion, (3, 10, 170, 170), 487, "Karpathy 2014, early"
    ),
    "karpathy_slow_fusion": Entry(
        KarpathySlowFusion, (3, 10, 170, 170), 487, "Karpathy 2014, slow"
    ),
    "cnn_m_spatial": Entry(CnnMSpatial, (3, 1, 224, 224), 101, "two-stream 2014, one frame"),
    "cnn_m_temporal": Entry(CnnMTemporal, (2, 10, 224, 224), 101, "two-stream 2014, flow"),
    "c3d": Entry(
        C3D,
        (3, 16, 112, 112),
        101,
        "C3D (2015) as released",
        {"pad_pool5": True},
    ),
    "c3d_lecture": Entry(
        C3D, (3, 16, 112, 112), 101, "C3D, pool5 not padded", {"pad_pool5": False}
    ),
}


# Names of the literature that are no single network, and what to do instead.
INSTEAD = {"two_stream": "train single_frame and temporal_stream, and join them by tinyvid fuse"}


def names() -> list[str]:
    """Return the names of all networks."""
    return list(MODELS)


def entry(name: str) -> Entry:
    """Return what is known of a network.

    Raises:
        UserError: no such network; the message names the nearest.
    """
    if name in INSTEAD:
        raise UserError(f"{name} is no network of its own: {INSTEAD[name]}")
    if name not in MODELS:
        raise UserError(
            f"no network is called {name!r}.{nearest(name, MODELS)} There are: {', '.join(MODELS)}."
        )
    return MODELS[name]


def build(
    name: str, num_classes: int, clip: Sequence[int] | None = None, **options: Any
) -> Network:
    """Return a new network, its weights drawn from the generator that `manual_seed` seeds.

    Args:
        name: one of `names()`.
        num_classes: the number of scores.
        clip: `C T H W` of the clips it shall take; by default those it is meant for.
        options: the network's own, such as `width`; see its class.

    Returns:
        The network; `model.config` holds the arguments to build another one like it.

    Raises:
        UserError: no such network or option, or a clip that does not fit: the message says
            which layer it fails at, and at which size.
    """
    known = entry(name)
    given = known.clip if clip is None else tuple(clip)
    for option in options:
        if option not in known.defaults:
            raise UserError(
                f"{name} has no option {option!r}.{nearest(option, known.defaults)} "
                f"It has: {', '.join(known.defaults) or 'none'}."
            )
    _check_sizes(name, num_classes, given, options)
    try:
        model = known.make(num_classes, given, **known.options, **options)
        trace(model, given)
    except UserError as error:
        raise UserError(f"{name} with clips of {size_text(given)}: {error}") from error
    model.config = {
        "name": name,
        "num_classes": num_classes,
        "clip": list(given),
        "options": dict(options),
    }
    return model


def rebuild(config: Mapping[str, Any]) -> Network:
    """Return a new network like the one whose `config` is given."""
    return build(config["name"], config["num_classes"], config["clip"], **config["options"])


def _check_sizes(name: str, num_classes: Any, clip: tuple, options: Mapping[str, Any]) -> None:
    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1

    if not whole(num_classes):
        raise UserError(f"num_classes={num_classes!r}: give a whole number of at least 1")
    if len(clip) != 4 or not all(map(whole, clip)):
        raise UserError(f"clip={clip!r}: give channels, frames, height, width: (3, 16, 64, 64)")
    for option in ("width", "hidden"):
        if option in options and not whole(options[option]):
            raise UserError(f"{name}: {option}={options[option]!r}: a whole number of at least 1")
