"""What a network is fed with: which frames, pictures or flow, and how bytes become numbers."""

from __future__ import annotations

import numpy as np

from tinyvid.config import Config
from tinyvid.data import ClipSpec, VideoSet, normalise
from tinyvid.errors import UserError
from tinyvid.flow.files import STEPS, ZERO
from tinyvid.flow.sets import FlowSet, bound_for
from tinyvid.runs import clip_shape, input_of

FLOW_CACHE = "runs/flow"  # where flow is kept, unless data.cache says otherwise


def clip_spec(config: Config) -> ClipSpec:
    """Return the clips that a config describes."""
    c, (_, frames, height, width) = config.clip, clip_shape(config)
    return ClipSpec(frames, c.stride, c.fps, (height, width), c.short_side, c.pad_policy)


def as_input(config: Config, videos: VideoSet) -> VideoSet:
    """Return the set that clips of a config are cut from: these videos, or their flow.

    Raises:
        UserError: the folder for flow cannot be made.
    """
    if input_of(config) == "rgb" or isinstance(videos, FlowSet):
        return videos
    return FlowSet(videos, config.data.cache or FLOW_CACHE, config.clip.flow_bound)


def check_augment(config: Config) -> None:
    """Raise UserError if the clips cannot be varied as the config says."""
    if input_of(config) == "flow" and config.augment.rotate:
        raise UserError(
            f"augment.rotate = {config.augment.rotate:g}: a picture of flow that is turned would "
            "have to have its displacements turned too, which is not built: set it to 0"
        )


def normalisation(config: Config) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean that is subtracted and what is divided by, a number for each channel, in
    units of 0..1.

    Of flow: so that no displacement is 0, and `clip.flow_unit` pixels are 1.
    """
    c = config.clip
    if input_of(config) == "rgb":
        return c.mean, c.std
    bound = c.flow_bound or bound_for(clip_spec(config).source_side)
    return (ZERO / 255,) * 2, (STEPS / bound * c.flow_unit / 255,) * 2


def numbers(config: Config, clips: np.ndarray) -> np.ndarray:
    """Return clips uint8 `N C T H W` as the network takes them, float32."""
    return normalise(clips, *normalisation(config))
