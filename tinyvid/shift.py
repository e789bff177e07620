"""Translation equivariance in time, measured: an input moved by some frames, the output compared.

A 3-D convolution does the same at every moment, so that a later input gives the same output,
later. Early fusion has filters of its own for every moment: the lecture's argument for 3-D
convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinyvid
from tinyvid import nn
from tinyvid.errors import UserError
from tinyvid.models.early_fusion import EarlyFusion
from tinyvid.models.slow_fusion import SlowFusion

FRAMES, MARGIN, BUSY = 96, 40, 8  # of the clips that are measured: in all, still at first, moving
SHIFTS = (1, 2, 4, 8)


def shift_error(layer: Callable[[Any], Any], clip: np.ndarray, shift: int) -> float:
    """Return how far a layer is from doing the same to a later clip, later.

    Args:
        layer: from clips `N C T H W` to `N K T' P Q`, whose steps in time are T / T' frames, or to
            an output without time, which then ought not to change at all.
        clip: `N C T H W`. What moves over its end is lost, so it ends in `shift` frames of
            zeros at least, and begins with zeros for what the layer pads.
        shift: frames by which it is moved.

    Returns:
        The largest difference between the output of the moved clip and the moved output, as a
        share of the largest output. Where the shift is no whole number of the layer's steps in
        time, the output is moved by the next lower one.

    Raises:
        UserError: the clip has too few frames of zeros at its end, or the output is 0.
    """
    if shift < 0 or clip[:, :, clip.shape[2] - shift :].any():
        raise UserError(f"shift={shift}: the clip must end in at least so many frames of zeros")
    moved = np.zeros_like(clip)
    moved[:, :, shift:] = clip[:, :, : clip.shape[2] - shift]
    with tinyvid.no_grad():
        y, later = (layer(tinyvid.tensor(x)).numpy() for x in (clip, moved))
    if y.ndim == 5:
        steps = shift * y.shape[2] // clip.shape[2]
        y, later = y[:, :, : y.shape[2] - steps], later[:, :, steps:]
    largest = float(np.abs(y).max())
    if largest == 0:
        raise UserError("the layer's output is 0, so that no share of it can be told")
    return float(np.abs(later - y).max()) / largest


def measured_layers() -> dict[str, tuple[nn.Module, int]]:
    """Return layers and networks with random weights, and how many frames one of their steps is.

    What has no time in its output counts as one frame a step.
    """
    tinyvid.manual_seed(0)
    clip = (3, FRAMES, 32, 32)
    conv, pool = nn.Conv3d(3, 8, 3, padding=1, bias=False), nn.MaxPool3d(2)
    layers: dict[str, tuple[nn.Module, int]] = {
        "2-D convolution over all frames (early fusion)": (
            nn.Conv2d(3 * FRAMES, 8, 3, padding=1, bias=False),
            1,
        ),
        "3-D convolution": (conv, 1),
        "3-D convolution, stride 2": (nn.Conv3d(3, 8, 3, 2, padding=1, bias=False), 2),
        "3-D convolution, ReLU, 2×2×2 max pool": (nn.Sequential(conv, nn.ReLU(), pool), 2),
        "early fusion, the network": (EarlyFusion(8, clip, width=4), 1),
        "slow fusion, the network": (SlowFusion(8, clip, width=4), 8),
        "slow fusion, its pools over space alone": (
            SlowFusion(8, clip, width=4, pool_time=False),
            1,
        ),
    }
    for layer, _ in layers.values():
        layer.eval()
    return layers


def equivariance() -> dict[str, dict[int, float]]:
    """Return the error of each of `measured_layers` at each of SHIFTS, see `shift_error`.

    The clips are noise for some frames, and still before and after, so that nothing of what moves
    comes near a border.
    """
    rng = np.random.default_rng(0)
    clip = np.zeros((1, 3, FRAMES, 32, 32), np.float32)
    clip[:, :, MARGIN : MARGIN + BUSY] = rng.standard_normal((1, 3, BUSY, 32, 32))
    return {
        name: {shift: shift_error(layer, clip, shift) for shift in SHIFTS}
        for name, (layer, _) in measured_layers().items()
    }
