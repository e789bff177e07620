"""A 2-D convolution as a 3-D one: over the time of a clip, or over its planes.

    over_time   x  N C D H W        w  K C/groups T R S       y  N K 1 P Q     T = D
    planes      x  N C*D 1 H W      w  K C*D/groups 1 R S     y  N K 1 P Q
    by_frames   one or the other

A filter that sees all frames of a clip, and so has one place to stand along time, is a 2-D filter
over all its planes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from tinyvid.geometry import ConvGeometry

FEW_CHANNELS = 16


def over_time(geometry: ConvGeometry) -> ConvGeometry:
    """Return the geometry of the 3-D convolution that a 2-D one is, which takes a clip as it lies.

    Where a group begins amid the frames of a channel there is none, and planes are channels.
    """
    C, frames = geometry.x[1], geometry.x[2:-2]
    return planes(geometry) if C % geometry.groups else _solid(geometry, C, math.prod(frames))


@lru_cache(maxsize=4096)
def by_frames(geometry: ConvGeometry) -> ConvGeometry:
    """Return the geometry for which patches are gathered: of a clip as it lies, or of its planes.

    The clip must lie in memory plane by plane where channels are few: a row of a filter then reads
    S*C*T numbers at once, not S*C.
    """
    of_a_clip = len(geometry.x) == 5 and geometry.x[1] >= FEW_CHANNELS
    return over_time(geometry) if of_a_clip else planes(geometry)


@lru_cache(maxsize=4096)
def planes(geometry: ConvGeometry, multiple: int = 1) -> ConvGeometry:
    """Return the geometry of the 3-D convolution of one frame, whose channels are all planes.

    Args:
        multiple: of which there shall be a multiple of channels; those past the planes are zeros.
    """
    return _solid(geometry, -(-geometry.channels // multiple) * multiple, 1)


def _solid(geometry: ConvGeometry, C: int, T: int) -> ConvGeometry:
    N, K = geometry.y[:2]
    return replace(
        geometry,
        x=(N, C, T, *geometry.x[-2:]),
        w=(K, C // geometry.groups, T, *geometry.w[2:]),
        y=(N, K, 1, *geometry.y[2:]),
        stride=(1, *geometry.stride),
        padding=((0, 0), *geometry.padding),
        dilation=(1, *geometry.dilation),
    )
