"""Timing on machines that are never quiet: all contestants in turn, and their ratios count.

Each round times every contestant once, in an order that changes from round to round, so that
whatever else the machine does falls on all of them alike. Rounds go on until the ratios to the
first contestant have settled, or the time is up.

Threads of OpenMP, which PyTorch computes with, wait for their next work without sleeping, for some
milliseconds: whoever is timed then shares the processor with them. So on the processor there is a
rest before each turn, longer than that; and after it a call that is not timed, where calls are
short, so that threads are awake and caches are warm for everyone alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from time import sleep
from typing import Any

import numpy as np

from tinyvid.bench.statistics import median_interval, verdict

SHORTEST = 2e-3  # seconds that a round of a contestant takes at least: short calls are repeated
MOST_CALLS = 10_000
LEAST_ROUNDS = 6  # fewer have no interval
SETTLED = 1.05  # a ratio has, when its interval is narrower than this, and says something
REST = 0.01  # seconds before the turn of a contestant on the processor
SHORT = 0.05  # seconds of a call that is made once more, untimed, after a rest
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
            `LEAST_ROUNDS` rounds, but never more than `PATIENCE` times. Rests count for those
            `PATIENCE` times only.
        timer: how calls are timed.
        repeat: call short ones several times a round. False where a call changes what the next
            one does, such as a training step.

    Returns:
        By name, the seconds of one call in each round; none of one that is so slow that the
        least rounds of it would not end in time. (The first one always takes part.)
    """
    names = list(contestants)
    calls, spent = {}, 0.0
    short: dict[str, bool] = {}
    rests = timer is processor_timer and len(names) > 1
    for name in names:
        timer(contestants[name], 1)  # compiles, fills caches, grows the heap
        once = timer(contestants[name], 1)
        if name != names[0] and once * LEAST_ROUNDS > PATIENCE * seconds:
            continue
        spent += once
        wanted = math.ceil(SHORTEST / max(once, SHORTEST / MOST_CALLS))
        calls[name] = max(1, wanted) if repeat else 1
        short[name] = repeat and once <= SHORT
    taken: dict[str, list[float]] = {name: [] for name in names}
    names = list(calls)
    rounds, began = 0, time.perf_counter()
    while True:
        for name in names if rounds % 2 else reversed(names):
            if rests:
                sleep(REST)
                if short[name]:
                    contestants[name]()
            passed = timer(contestants[name], calls[name])
            spent += passed
            taken[name].append(passed / calls[name])
        rounds += 1
        late = spent >= seconds or time.perf_counter() - began >= PATIENCE * seconds
        enough = rounds >= LEAST_ROUNDS and (late or _settled(names, taken))
        if enough or spent >= PATIENCE * seconds:
            return {name: np.array(times) for name, times in taken.items()}


def _settled(names: list[str], taken: Mapping[str, list[float]]) -> bool:
    first = np.array(taken[names[0]])
    if len(names) == 1:
        return median_interval(first).width <= SETTLED
    ratios = [median_interval(first / np.array(taken[name])) for name in names[1:]]
    return all(r.width <= SETTLED and verdict(r) != "cannot tell" for r in ratios)
