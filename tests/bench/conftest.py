"""A clock of the tests' own: what they see never depends on how busy the machine is."""

import random
from types import SimpleNamespace

import pytest

from tinyvid.bench import timing


@pytest.fixture(autouse=True)
def steady_clock(monkeypatch):
    """Let a millisecond pass at every look at the clock, give or take a fiftieth."""
    draw, now = random.Random(0), [0.0]

    def look():
        now[0] += draw.uniform(0.98e-3, 1.02e-3)
        return now[0]

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=look))
