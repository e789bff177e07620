"""Intervals and verdicts, by hand; rounds under a clock of our own."""

import math

import numpy as np
import pytest

from tinyvid.bench import timing
from tinyvid.bench.statistics import Interval, median_interval, quotient, spread, verdict
from tinyvid.bench.timing import LEAST_ROUNDS, MOST_CALLS, PATIENCE, interleave


def interval(low, high):
    return Interval(low, math.sqrt(low * high), high)


def test_the_interval_of_ten_values_leaves_out_one_at_either_end():
    # P(at most 1 of 10 on one side) = 11 / 1024 < 2.5 %; with 2 of them it is 56 / 1024.
    assert median_interval([7, 3, 9, 1, 5, 2, 8, 10, 4, 6]) == Interval(2, 5.5, 9)


def test_six_values_are_bounded_by_all_of_them_and_five_by_nothing():
    assert median_interval([3, 1, 2, 6, 5, 4]) == Interval(1, 3.5, 6)
    assert median_interval([3, 1, 2, 5, 4]) == Interval(0, 3, math.inf)


def test_the_interval_has_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    drawn = rng.exponential(size=(2000, 15))
    found = [median_interval(values) for values in drawn]
    share = np.mean([one.low <= math.log(2) <= one.high for one in found])
    assert 0.95 <= share <= 0.98  # of 15 values exactly 96.5 %


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.04, 1.20, "faster"),
        (1.001, 1.05, "faster"),
        (0.80, 0.95, "slower"),
        (0.98, 1.02, "same"),
        (1.005, 1.02, "same"),
        (0.98, 1.10, "cannot tell"),
        (0.70, 1.30, "cannot tell"),
        (1.05, 4.00, "cannot tell"),  # too wide to be believed, so near 1
        (0.20, 0.90, "cannot tell"),
        (10.0, 60.0, "faster"),  # as wide, but far from 1
        (0.0, math.inf, "cannot tell"),
    ],
)
def test_what_an_interval_says(low, high, said):
    assert verdict(Interval(low, 1.0, high)) == said


def test_a_quotient_is_as_wide_as_both_together():
    assert quotient(interval(2, 8), interval(1, 4)) == Interval(0.5, 2, 8)
    assert quotient(interval(2, 8), Interval(0, 1, math.inf)) == Interval(0, 4, math.inf)


def test_the_spread_is_half_the_distance_of_the_quartiles():
    assert spread([8, 9, 10, 11, 12]) == pytest.approx(0.1)


class Clock:
    """Times functions by what it is told that they take, in seconds, round by round."""

    def __init__(self, **seconds):
        self.seconds = {name: iter(s) for name, s in seconds.items()}
        self.order, self.calls = [], {}

    def __call__(self, run, calls):
        name = run()
        self.order.append(name)
        self.calls[name] = calls
        return next(self.seconds[name]) * calls

    def times(self, limit=10.0, **options):
        contestants = {name: lambda name=name: name for name in self.seconds}
        return interleave(contestants, limit, self, **options)


def steadily(seconds):
    while True:
        yield seconds


def ratio(times, ours="ours", other="other"):
    return median_interval(times[other] / times[ours])


def test_a_planted_slower_one_is_found_slower_and_rounds_end_when_that_is_sure():
    times = Clock(ours=steadily(0.03), other=steadily(0.02)).times()
    assert verdict(ratio(times)) == "slower"
    assert len(times["ours"]) == LEAST_ROUNDS


def test_what_falls_on_both_does_not_decide():
    """The machine is up to ten times slower from round to round, the ratio is 1.25 throughout."""

    def noisy(seconds):
        rng = np.random.default_rng(3)  # the same for both: what else the machine does
        yield seconds  # the warm-up
        yield seconds
        while True:
            yield seconds * rng.uniform(1, 10)

    times = Clock(ours=noisy(0.02), other=noisy(0.025)).times()
    assert spread(times["ours"]) > 0.2
    assert verdict(ratio(times)) == "faster"
    assert verdict(quotient(*map(median_interval, (times["other"], times["ours"])))) != "faster"


def test_a_machine_too_noisy_to_tell_takes_all_the_time_and_says_so():
    def noisy(seed):
        rng = np.random.default_rng(seed)
        while True:
            yield 0.02 * rng.uniform(1, 10)

    times = Clock(ours=noisy(0), other=noisy(1)).times(limit=4.0)
    assert verdict(ratio(times)) == "cannot tell"
    assert len(times["ours"]) > LEAST_ROUNDS
    assert sum(t.sum() for t in times.values()) >= 3.5


def test_the_least_rounds_may_take_longer_but_not_for_ever():
    times = Clock(ours=steadily(0.3), other=steadily(0.1)).times(limit=1.0)
    assert len(times["ours"]) == LEAST_ROUNDS
    times = Clock(ours=steadily(1.0)).times(limit=1.0)
    assert 1 <= len(times["ours"]) <= PATIENCE


def test_one_that_is_far_too_slow_holds_nobody_up():
    clock = Clock(ours=steadily(0.01), slow=steadily(10.0), other=steadily(0.02))
    times = clock.times(limit=5.0)
    assert times["slow"].size == 0
    assert clock.order.count("slow") == 2  # the warm-up
    assert len(times["ours"]) == len(times["other"]) == LEAST_ROUNDS


def test_rounds_change_their_order_and_short_calls_are_repeated():
    clock = Clock(ours=steadily(1e-4), other=steadily(1e-9))
    times = clock.times()
    assert clock.calls == {"ours": 20, "other": MOST_CALLS}
    assert times["ours"] == pytest.approx(1e-4)
    rounds = clock.order[4:]
    assert rounds[:4] == ["other", "ours", "ours", "other"]
    clock = Clock(ours=steadily(1e-4))
    clock.times(repeat=False)
    assert clock.calls == {"ours": 1}


def test_a_ratio_that_says_nothing_yet_is_timed_longer_though_its_interval_is_narrow():
    """The first rounds reach from a little faster to 4 % slower, the later ones are all 4 %."""

    def narrowing():
        for k in range(12):
            yield 0.02 * (1.04 if k % 2 else 0.999)
        yield from steadily(0.02 * 1.04)

    times = Clock(ours=narrowing(), other=steadily(0.02)).times(limit=3.0)
    assert median_interval(times["ours"][:6]).width < 1.05
    assert verdict(ratio(times)) == "slower"
    assert len(times["ours"]) > 10


def test_on_the_processor_there_is_a_rest_and_a_call_before_each_turn(monkeypatch):
    """Threads of the one before may still turn round and round, waiting for work."""
    log = []
    monkeypatch.setattr(timing, "sleep", lambda seconds: log.append("rest"))
    monkeypatch.setattr(timing, "SHORTEST", 0)  # one call a turn
    contestants = {name: lambda name=name: log.append(name) for name in ("ours", "other")}
    times = interleave(contestants, 0.02)
    rounds = len(times["ours"])
    assert log[:4] == ["ours", "ours", "other", "other"]  # the warm-up
    turns = [tuple(log[i : i + 3]) for i in range(4, len(log), 3)]
    assert len(turns) == 2 * rounds
    assert {turn[0] for turn in turns} == {"rest"}
    assert all(before == timed for _, before, timed in turns)
    log.clear()
    interleave(contestants, 0.02, repeat=False)  # no step of a training more than is timed
    assert log[4:7] in (["rest", "ours", "rest"], ["rest", "other", "rest"])
    log.clear()
    interleave({"ours": contestants["ours"]}, 0.02)
    assert "rest" not in log
