"""What every variant does between the iterations: smaller images, derivatives, larger flows."""

from __future__ import annotations

import math

import numpy as np

DERIVATIVE = (1 / 12, -8 / 12, 0, 8 / 12, -1 / 12)  # exact for polynomials up to the fourth degree
SMALLEST = 8  # pixels of the shorter side of a level
SIGMA = 0.6 * math.sqrt(3)  # before halving: Sanchez et al. 2013, equation 31, with a factor of 1/2


def _gaussian(sigma: float) -> tuple[float, ...]:
    radius = math.ceil(3 * sigma)
    taps = [math.exp(-((x / sigma) ** 2) / 2) for x in range(-radius, radius + 1)]
    return tuple(tap / sum(taps) for tap in taps)


SMOOTHING = _gaussian(SIGMA)


def pyramid(image: np.ndarray, levels: int) -> list[np.ndarray]:
    """Return the image (..., H, W) and, smoothed by a Gaussian, its every second pixel, again and
    again, as long as the shorter side keeps 8 pixels."""
    found = [image]
    while len(found) < levels and min(found[-1].shape[-2:]) >= 2 * SMALLEST:
        smooth = correlate(correlate(found[-1], SMOOTHING, -1), SMOOTHING, -2)
        found.append(np.ascontiguousarray(smooth[..., ::2, ::2]))
    return found


def gradient(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives of an image (..., H, W) along x and y; its border is repeated."""
    return correlate(image, DERIVATIVE, -1), correlate(image, DERIVATIVE, -2)


def correlate(image: np.ndarray, taps: tuple[float, ...], axis: int) -> np.ndarray:
    """Return the sums of the neighbours along an axis, weighted by an odd number of taps."""
    count, radius = image.shape[axis], len(taps) // 2
    out = np.zeros_like(image)
    for i, tap in enumerate(taps):
        if tap:
            at = np.clip(np.arange(count) + i - radius, 0, count - 1)
            out += tap * np.take(image, at, axis)
    return out


def enlarged(flow: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a flow (..., H, W) at twice the size: pixel 2 x is what x was, those in between are
    interpolated, and displacements are twice as long."""
    for axis in (-2, -1):
        at = np.arange(shape[axis])
        after = np.minimum(at // 2 + at % 2, flow.shape[axis] - 1)
        flow = (np.take(flow, at // 2, axis) + np.take(flow, after, axis)) / 2
    return 2 * flow
