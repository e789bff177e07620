"""Metrics against numbers worked by hand."""

import itertools

import numpy as np
import pytest
from compare import assert_close

from tinyvid.errors import UserError
from tinyvid.metrics import (
    bootstrap_interval,
    confusion_matrix,
    cross_entropy,
    fuse,
    hit_at,
    mean_class_accuracy,
    measure,
    rank_of_label,
    softmax,
    wilson_interval,
)


def test_rank_counts_the_classes_before_the_label():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    assert_close(rank_of_label(scores, np.array([1, 2, 1])), np.array([0, 2, 1]))


def test_ties_go_to_the_lower_index_as_in_argmax():
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    labels = np.array([0, 1, 2])
    assert_close(rank_of_label(scores, labels), np.array([0, 1, 2]))
    assert hit_at(scores, labels, 1) == 1 / 3
    assert hit_at(scores, labels, 2) == 2 / 3
    assert hit_at(scores, labels, 3) == 1.0
    rng = np.random.default_rng(0)
    many = rng.integers(0, 3, size=(500, 4)).astype(float)  # full of ties
    truth = rng.integers(0, 4, size=500)
    assert_close(rank_of_label(many, truth) == 0, many.argmax(axis=1) == truth)


def test_rank_against_a_stable_sort():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, size=(200, 6)).astype(float)
    labels = rng.integers(0, 6, size=200)
    order = np.argsort(-scores, axis=1, kind="stable")
    want = np.array([list(row).index(label) for row, label in zip(order, labels, strict=True)])
    assert_close(rank_of_label(scores, labels), want)


def test_what_cannot_be_ranked():
    with pytest.raises(UserError, match=r"scores\[1\] has a NaN"):
        rank_of_label(np.array([[0.0, 1.0], [np.nan, 1.0]]), np.array([0, 1]))
    with pytest.raises(UserError, match="labels run from 0 to 2, but there are 2 classes"):
        rank_of_label(np.zeros((2, 2)), np.array([0, 2]))
    with pytest.raises(UserError, match=r"\(2, 2\) and labels of shape \(3,\)"):
        rank_of_label(np.zeros((2, 2)), np.array([0, 1, 1]))
    with pytest.raises(UserError, match="k=0"):
        hit_at(np.zeros((2, 2)), np.array([0, 1]), 0)
    assert np.isnan(hit_at(np.zeros((0, 2)), np.zeros(0, int), 1))


def test_softmax_and_cross_entropy_by_hand():
    logits = np.log([[1.0, 3.0], [2.0, 2.0]])
    assert_close(softmax(logits), np.array([[0.25, 0.75], [0.5, 0.5]]), atol=1e-15)
    assert_close(
        cross_entropy(logits, np.array([1, 0])), -np.log(np.array([0.75, 0.5])), atol=1e-15
    )
    huge = np.array([[1e4, 0.0]])
    assert_close(cross_entropy(huge, np.array([1])), np.array([1e4]))
    assert_close(softmax(huge), np.array([[1.0, 0.0]]))


def test_confusion_and_mean_class_accuracy_by_hand():
    labels, predicted = np.array([0, 0, 0, 2, 2]), np.array([0, 0, 2, 2, 0])
    confusion = confusion_matrix(labels, predicted, 3)
    assert_close(confusion, np.array([[2, 0, 1], [0, 0, 0], [1, 0, 1]]))
    # class 1 does not occur: (2/3 + 1/2) / 2
    assert mean_class_accuracy(confusion) == pytest.approx(7 / 12)
    assert np.isnan(mean_class_accuracy(np.zeros((2, 2), int)))


# Video 7 has two clips, video 3 one; classes a and b.
LOGITS = np.log([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
VIDEOS = np.array([7, 3, 7])


def test_fusions_by_hand():
    mean = fuse(LOGITS, VIDEOS, "mean_prob")
    assert_close(mean, np.array([[0.2, 0.8], [0.6, 0.4]]), atol=1e-15)
    a, b = np.sqrt(0.9 * 0.3), np.sqrt(0.1 * 0.7)  # a mean of logs is a geometric mean
    logit = fuse(LOGITS, VIDEOS, "mean_logit")
    assert_close(logit, np.array([[0.2, 0.8], [a / (a + b), b / (a + b)]]), atol=1e-15)
    largest = fuse(LOGITS, VIDEOS, "max")
    assert_close(largest, np.array([[0.2, 0.8], [0.9 / 1.6, 0.7 / 1.6]]), atol=1e-15)
    with pytest.raises(UserError, match="mean_prob, mean_logit, max"):
        fuse(LOGITS, VIDEOS, "mean")


def test_measure_by_hand():
    got = measure(LOGITS, np.array([1, 1, 1]), VIDEOS, "mean_prob")
    assert (got.clips, got.videos, got.k) == (3, 2, 2)
    assert got.clip_hit_1 == pytest.approx(2 / 3)
    assert got.video_hit_1 == 0.5  # video 3 right, video 7 wrong
    assert got.video_hit_k == 1.0  # k is capped at 2 classes
    assert got.mean_class == 0.5
    assert_close(got.confusion, np.array([[0, 0], [1, 1]]))
    assert got.interval == wilson_interval(1, 2)


def test_hit_5_of_many_classes():
    logits = np.tile(np.arange(8.0), (3, 1))
    got = measure(logits, np.array([7, 3, 2]), np.arange(3))
    assert got.k == 5
    assert got.video_hit_k == pytest.approx(2 / 3)


def test_the_interval_ends_where_what_was_seen_becomes_unlikely():
    for hits, count in ((0, 9), (1, 3), (9, 9), (30, 40), (197, 200)):
        for end, sign in zip(wilson_interval(hits, count), (1, -1), strict=True):
            if 0 < end < 1:
                z = (hits / count - end) / np.sqrt(end * (1 - end) / count)
                assert z == pytest.approx(sign * 1.959964)
    low, high = wilson_interval(9, 9)
    assert (round(low, 4), high) == (0.7009, 1.0)
    assert wilson_interval(0, 9) == pytest.approx((0.0, 1 - low))
    assert np.isnan(wilson_interval(0, 0)).all()


def test_the_interval_covers_the_true_share():
    rng = np.random.default_rng(5)
    for share in (0.3, 0.7, 0.95):
        ends = np.array([wilson_interval(n, 40) for n in range(41)])
        low, high = ends[rng.binomial(40, share, 20_000)].T
        assert 0.92 < ((low <= share) & (share <= high)).mean() < 0.98


@pytest.mark.parametrize("hits", [[0, 1, 1, 0, 1], [0.0, 0.1, 0.5, 0.7, 2.0], [True, False]])
def test_the_bootstrap_against_every_possible_draw(hits):
    draws = itertools.product(np.array(hits, float), repeat=len(hits))
    means = np.sort([np.mean(draw) for draw in draws])
    got = bootstrap_interval(np.array(hits))
    # 10,000 draws know a quantile but for a few thousandths of the draws.
    for border, near in zip(got, ([0.02, 0.03], [0.97, 0.98]), strict=True):
        below = np.quantile(means, near[0], method="lower")
        above = np.quantile(means, near[1], method="higher")
        assert below - 1e-9 <= border <= above + 1e-9


def test_the_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.random(60) < 0.7) for _ in range(300)]
    covered = np.mean([low <= 0.7 <= high for low, high in intervals])
    assert 0.91 < covered < 0.98
    # an interval of half the width does not pass
    halves = [((3 * a + b) / 4, (a + 3 * b) / 4) for a, b in intervals]
    assert np.mean([low <= 0.7 <= high for low, high in halves]) < 0.75


def test_the_bootstrap_is_the_same_each_time_and_knows_its_limits():
    hits = np.arange(40) % 3 == 0
    assert bootstrap_interval(hits) == bootstrap_interval(hits)
    assert bootstrap_interval(hits) == bootstrap_interval(hits[::-1].astype(float))
    values = np.random.default_rng(3).normal(size=40)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    assert bootstrap_interval(np.ones(9, bool)) == (1.0, 1.0)  # degenerate: Wilson's is not
    assert wilson_interval(9, 9)[0] == pytest.approx(0.701, abs=1e-3)
    assert np.isnan(bootstrap_interval(np.zeros(0))).all()
    with pytest.raises(UserError, match=r"hits of shape \(2, 2\) must be \(videos,\)"):
        bootstrap_interval(np.zeros((2, 2)))
    with pytest.raises(UserError, match="finite"):
        bootstrap_interval(np.array([1.0, np.nan]))
