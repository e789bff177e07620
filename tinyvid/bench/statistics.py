"""Medians with intervals that hold for any distribution, and what can be said of a ratio.

The interval of a median is between two of the sorted values: the k-th from either end, where k is
the largest for which, of n values, fewer than k fall on one side of the median with a probability
of at most half of what is left over (Conover, Practical Nonparametric Statistics, 1999, section
3.2). It supposes that rounds do not depend on each other. On a machine where other work comes and
goes they do, a little; taking ratios within a round removes most of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
SAME = 0.03  # a ratio within 3 % of 1 is no difference that anyone would notice
WIDE = 3.0  # an interval whose ends differ by a larger factor says nothing of what is near 1
VERDICTS = ("faster", "slower", "same", "cannot tell")


@dataclass(frozen=True)
class Interval:
    """A value, and what it lies between with a probability of 95 %."""

    low: float
    middle: float
    high: float

    @property
    def width(self) -> float:
        """The upper end as a multiple of the lower one."""
        return self.high / self.low if self.low > 0 else math.inf


def median_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the median of the values; with fewer than 6 of them, nothing bounds it."""
    ordered = np.sort(np.asarray(values, np.float64))
    n, tail, k = len(ordered), 0.0, 0
    while k < n // 2:
        tail += math.comb(n, k) / 2**n  # the probability of at most k values on one side
        if tail > (1 - CONFIDENCE) / 2:
            break
        k += 1
    middle = float(np.median(ordered))
    return Interval(float(ordered[k - 1]), middle, float(ordered[-k])) if k else _unknown(middle)


def _unknown(middle: float) -> Interval:
    return Interval(0.0, middle, math.inf)


def quotient(a: Interval, b: Interval) -> Interval:
    """Return a / b of values that were taken apart; wider than it need be, never too narrow."""
    low = a.low / b.high if math.isfinite(b.high) else 0.0
    high = a.high / b.low if b.low > 0 else math.inf
    return Interval(low, a.middle / b.middle, high)


def verdict(speed: Interval) -> str:
    """Return what a speed, as a multiple of another one, says: one of `VERDICTS`."""
    if not speed.width <= WIDE and speed.high > 1 / WIDE and speed.low < WIDE:
        return "cannot tell"
    if speed.low >= 1 / (1 + SAME) and speed.high <= 1 + SAME:
        return "same"
    if speed.low > 1:
        return "faster"
    return "slower" if speed.high < 1 else "cannot tell"


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Return half of the distance between the quartiles, as a share of the median."""
    low, middle, high = np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75))
    return float((high - low) / 2 / middle)
