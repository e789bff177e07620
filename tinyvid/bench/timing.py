"""Timing on machines that are never quiet: all contestants in turn, and their ratios count.

Each round times every contestant once, in an order that changes from round to round, so that
whatever else the machine does falls on all of them alike. Rounds go on until the ratios to the
first contestant have settled, or the time is up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinyvid.bench.statistics import median_interval, verdict

SHORTEST = 2e-3  # seconds that a round of a contestant takes at least: short calls are repeated
MOST_CALLS = 10_000
LEAST_ROUNDS = 6  # fewer have no interval
SETTLED = 1.05  # a ratio has, when its interval is narrower than this, and says something
PATIENCE = 3  # how many times the limit may be passed for the sake of the least rounds
TOO_SLOW = "right, but too slow to be timed in --seconds"

# Runs a function so many times, and returns the seconds that this took.
Timer = Callable[[Callable[[], Any], int], float]


def processor_timer(run: Callable[[], Any], calls: int) -> float:
    """Time calls that are finished when they return."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def interleave(
    contestants: Mapping[str, Callable[[], Any]],
    seconds: float,
    timer: Timer = processor_timer,
    repeat: bool = True,
) -> dict[str, np.ndarray]:
    """Run the contestants in turn, after a warm-up.

    Args:
        contestants: functions without arguments, by name; the ratios of the first to the others
            are what has to settle.
        seconds: the limit, of the time in all calls together; it is passed for the first
            `LEAST_ROUNDS` rounds, but never more than `PATIENCE` times.
        timer: how calls are timed.
        repeat: call short ones several times a round. False where a call changes what the next
            one does, such as a training step.

    Returns:
        By name, the seconds of one call in each round; none of one that is so slow that the
        least rounds of it would not end in time. (The first one always takes part.)
    """
    names = list(contestants)
    calls, spent = {}, 0.0
    for name in names:
        timer(contestants[name], 1)  # compiles, fills caches, grows the heap
        once = timer(contestants[name], 1)
        if name != names[0] and once * LEAST_ROUNDS > PATIENCE * seconds:
            continue
        spent += once
        wanted = math.ceil(SHORTEST / max(once, SHORTEST / MOST_CALLS))
        calls[name] = max(1, wanted) if repeat else 1
    taken: dict[str, list[float]] = {name: [] for name in names}
    names = list(calls)
    rounds = 0
    while True:
        for name in names if rounds % 2 else reversed(names):
            passed = timer(contestants[name], calls[name])
            spent += passed
            taken[name].append(passed / calls[name])
        rounds += 1
        enough = rounds >= LEAST_ROUNDS and (spent >= seconds or _settled(names, taken))
        if enough or spent >= PATIENCE * seconds:
            return {name: np.array(times) for name, times in taken.items()}


def _settled(names: list[str], taken: Mapping[str, list[float]]) -> bool:
    first = np.array(taken[names[0]])
    if len(names) == 1:
        return median_interval(first).width <= SETTLED
    ratios = [median_interval(first / np.array(taken[name])) for name in names[1:]]
    return all(r.width <= SETTLED and verdict(r) != "cannot tell" for r in ratios)
