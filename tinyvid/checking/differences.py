"""Derivatives from function values alone, and the places where there are none.

**The value.** The central difference D(h) = (f(x+h) - f(x-h)) / 2h errs by h² f'''/6, and by
the rounding of f over h; at best by eps^(2/3) of f, with h = eps^(1/3) (Griewank & Walther,
Evaluating Derivatives, 2008, chapter 1). Here two of them are extrapolated to
(4 D(h/2) - D(h)) / 3 (Richardson 1911), which errs by h⁴, and at best by eps^(4/5) with
h = eps^(1/5): 3e-13 in float64. So tight a comparison sees that a gradient was rounded to
float32 on its way.

**The kinks.** Where f is smooth, the one-sided differences at h differ by the curvature h f'',
so half as much at h/2, and D(h/2) is close to D(h). Where that does not hold, the step
shrinks, up to a million times: it then no longer reaches a kink nearby, or the end of the domain. A
point where it never holds is a *kink* itself (or a jump, or a pole): f has no derivative there.
Between the two lie functions that are smooth, but so flat beside their own size that rounding
stops the shrinking early, such as a saturated tanh: what the steps disagree by then counts as
noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SHRINKS = tuple(16**i for i in range(6))
CURVATURE = 0.75  # the gap between one-sided differences at h/2 over that at h; a half if smooth
UNNOTICED = 1e-5  # a jump of the derivative by less than this share of it is none
FLAT = 1e-2  # steps that disagree by less than this share of the derivative may count as noise
DROWNED = 1e-3  # a smaller step is of no use when rounding reaches this share of the slopes
ROUNDINGS = 64  # the rounding error of a function value, in units of its last place


@dataclass(frozen=True)
class Derivative:
    """The derivative of many functions of one variable at one point; arrays of one shape.

    Attributes:
        value: the derivative; NaN at a kink. noise: how far rounding may have put it off.
        kink: where there is no derivative. left, right: the one-sided differences.
    """

    value: np.ndarray
    noise: np.ndarray
    kink: np.ndarray
    left: np.ndarray
    right: np.ndarray


def derivative(
    line: Callable[[float], np.ndarray],
    middle: np.ndarray,
    step: float,
    unit: np.ndarray,
    tolerance: float,
) -> Derivative:
    """Differentiate `line` at 0.

    Args:
        line: gives the values at t, an array.
        middle: the values at 0.
        step: the first step; smaller ones follow where it meets a kink.
        unit: the rounding unit of each value, such as eps times the largest value around.
        tolerance: the relative error that the result may have, about.
    """
    value, noise = np.full(middle.shape, np.nan), np.zeros(middle.shape)
    kink = np.ones(middle.shape, bool)
    slopes = np.zeros(middle.shape)  # the steepest seen so far
    rough, doubt = np.zeros(middle.shape), np.full(middle.shape, np.inf)  # for flat functions
    # The error of the result is about the square of the difference between D(h) and D(h/2);
    # a tenth of it is left for functions less regular than sines and exponentials.
    settled = 0.1 * tolerance**0.5
    with np.errstate(all="ignore"):  # steps may leave the domain
        for shrink in SHRINKS:
            h = step / shrink
            left, right = (middle - line(-h)) / h, (line(h) - middle) / h
            wide, gap = (left + right) / 2, np.abs(right - left)
            left, right = 2 * (middle - line(-h / 2)) / h, 2 * (line(h / 2) - middle) / h
            near, rest = (left + right) / 2, np.abs(right - left)
            best = near + (near - wide) / 3
            rounding = ROUNDINGS * unit / h
            steep = np.maximum(np.abs(left), np.abs(right))
            slopes = np.fmax(slopes, np.where(np.isfinite(steep), steep, 0))
            heard = (shrink == 1) | (rounding <= DROWNED * slopes)
            smooth = np.isfinite(best) & (rest <= CURVATURE * gap + UNNOTICED * steep + rounding)
            apart = np.abs(near - wide)
            good = kink & heard & smooth & (apart <= settled * np.abs(best) + rounding)
            value[good], noise[good] = best[good], rounding[good]
            kink &= ~good
            doubt[heard & ~smooth] = np.inf  # a closer look has shown a kink
            flat = heard & smooth & (apart <= FLAT * np.abs(best)) & (apart + rounding < doubt)
            rough[flat], doubt[flat] = best[flat], (apart + rounding)[flat]
            if not kink.any():
                break
    flat = kink & np.isfinite(doubt)
    value[flat], noise[flat] = rough[flat], doubt[flat]
    return Derivative(value, noise, kink & ~flat, left, right)
