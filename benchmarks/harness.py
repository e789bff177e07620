"""Timing on machines that are never quiet: ours and the peer in turn, and only their ratio counts.

Each round times every contestant once, in an order that changes from round to round, so that
whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

# Set for old builds of OpenBLAS, these make a current one slower.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


@dataclass(frozen=True)
class Timing:
    """Seconds of each round."""

    rounds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.rounds))

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, as a share of the median."""
        low, high = np.quantile(self.rounds, [0.25, 0.75])
        return float((high - low) / 2 / self.median)


def interleave(
    contestants: Mapping[str, Callable[[], object]], seconds: float = 5.0, least: int = 3
) -> dict[str, Timing]:
    """Run the contestants in turn for about `seconds`, at least `least` rounds, after a warm-up.

    Args:
        contestants: functions without arguments, by name.
        seconds: time for all rounds together.
        least: rounds that are run however long they take.
    """
    names = list(contestants)
    for name in names:
        contestants[name]()
    taken: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    rounds = 0
    while rounds < least or time.perf_counter() - began < seconds:
        for name in names if rounds % 2 else reversed(names):
            start = time.perf_counter()
            contestants[name]()
            taken[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: Timing(np.array(times)) for name, times in taken.items()}


def machine() -> str:
    """Return a line that says what the figures were taken on, with a warning where due."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    text = f"{model}, {os.cpu_count()} cores, "
    text += f"Python {platform.python_version()}, NumPy {np.__version__}"
    slowing = [name for name in SLOWING if name in os.environ]
    if slowing:
        text += (
            f"\nWARNING: {' and '.join(slowing)} set: NumPy's products are slower than they need be"
        )
    return text
