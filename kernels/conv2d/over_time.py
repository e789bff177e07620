"""A 2-D convolution as a 3-D one, which takes a clip as it lies.

A filter that sees all frames of a clip, and so has one place to stand along time, is a 2-D filter
over all its planes:

    x  N C T H W        w  K C/groups T R S        y  N K 1 P Q
"""

from __future__ import annotations

from dataclasses import replace

from tinyvid.geometry import ConvGeometry


def over_time(geometry: ConvGeometry) -> ConvGeometry:
    """Return the geometry of the 3-D convolution that a 2-D one is: its arrays, reshaped."""
    N, C, *frames, H, W = geometry.x
    T = frames[0] if frames else 1
    if C % geometry.groups:  # a group begins amid the frames of a channel: planes are channels
        C, T = C * T, 1
    K, _, R, S = geometry.w
    return replace(
        geometry,
        x=(N, C, T, H, W),
        w=(K, C // geometry.groups, T, R, S),
        y=(N, K, 1, *geometry.y[2:]),
        stride=(1, *geometry.stride),
        padding=((0, 0), *geometry.padding),
        dilation=(1, *geometry.dilation),
    )
