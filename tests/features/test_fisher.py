"""Fisher vectors against their formula in a loop, and against the likelihood's derivative."""

import sys

import numpy as np
import pytest
from compare import assert_close
from threadpoolctl import threadpool_limits

from tinyvid.errors import UserError
from tinyvid.features.fisher import (
    FisherSVM,
    FisherVectors,
    block_descriptors,
    fisher_vector,
    normalised,
    posteriors,
)


@pytest.fixture
def mixture():
    """Descriptors (7, 3) and a mixture of 2 Gaussians: x, weights, means, variances."""
    rng = np.random.default_rng(0)
    weights = np.array([0.3, 0.7])
    return rng.normal(size=(7, 3)), weights, rng.normal(size=(2, 3)), rng.uniform(0.5, 2, (2, 3))


def mean_log_likelihood(x, weights, means, variances) -> float:
    total = 0.0
    for one in x:
        density = 0.0
        for w, m, v in zip(weights, means, variances, strict=True):
            density += w * np.prod(np.exp(-((one - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v))
        total += np.log(density)
    return total / len(x)


def test_against_the_formula_in_a_loop(mixture):
    x, weights, means, variances = mixture
    p = posteriors(*mixture)
    assert_close(p.sum(axis=1), np.ones(7), rtol=1e-12)
    by_weight, by_mean, by_deviation = np.zeros(2), np.zeros((2, 3)), np.zeros((2, 3))
    for i, k in np.ndindex(7, 2):
        by_weight[k] += (p[i, k] - weights[k]) / (7 * np.sqrt(weights[k]))
    for i, k, d in np.ndindex(7, 2, 3):
        away = (x[i, d] - means[k, d]) / np.sqrt(variances[k, d])
        by_mean[k, d] += p[i, k] * away / (7 * np.sqrt(weights[k]))
        by_deviation[k, d] += p[i, k] * (away**2 - 1) / (7 * np.sqrt(2 * weights[k]))
    want = np.concatenate([by_weight, by_mean.ravel(), by_deviation.ravel()])
    assert_close(fisher_vector(*mixture), want, rtol=1e-10, atol=1e-12)


def test_against_the_derivative_of_the_log_likelihood(mixture):
    """In the means, times s / sqrt(w); in the deviations, times s / sqrt(2 w); in the logits of
    the weights, whose softmax they are, divided by sqrt(w)."""
    x, weights, means, variances = mixture
    deviations, step = np.sqrt(variances), 1e-5

    def derivative(changed) -> float:
        return (
            mean_log_likelihood(x, *changed(step)) - mean_log_likelihood(x, *changed(-step))
        ) / (2 * step)

    by_weight, by_rest = np.zeros(2), np.zeros((2, 2, 3))
    for k in range(2):
        one = np.eye(2)[k]

        def weight_moved(e, one=one):
            moved = weights * np.exp(e * one)
            return moved / moved.sum(), means, variances

        by_weight[k] = derivative(weight_moved) / np.sqrt(weights[k])
    for k, d in np.ndindex(2, 3):
        one = np.zeros((2, 3))
        one[k, d] = 1
        scale = deviations[k, d] / np.sqrt(weights[k])
        by_rest[0, k, d] = scale * derivative(lambda e, o=one: (weights, means + e * o, variances))
        by_rest[1, k, d] = (scale / np.sqrt(2)) * derivative(
            lambda e, o=one: (weights, means, (deviations + e * o) ** 2)
        )
    got = fisher_vector(*mixture)
    assert_close(got, np.concatenate([by_weight, by_rest.ravel()]), atol=1e-8)
    by_rest[1] *= np.sqrt(2)  # a forgotten root is seen
    assert np.abs(got - np.concatenate([by_weight, by_rest.ravel()])).max() > 1e-2


def test_posteriors_of_far_descriptors_stay_finite(mixture):
    _, weights, means, variances = mixture
    p = posteriors(np.array([[1e4, -1e4, 1e4]]), weights, means, variances)
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)


def test_normalisation_by_hand():
    want = np.array([2.0, -3.0, 0.0]) / np.sqrt(13)
    assert_close(normalised(np.array([4.0, -9.0, 0.0])), want, rtol=1e-12)
    assert_close(normalised(np.zeros(3)), np.zeros(3))


def test_blocks_that_rest_are_left_out():
    clip = np.zeros((6, 3, 3, 17))
    clip[..., :8] = 1  # gradients everywhere
    clip[..., 16] = 64  # and rest
    assert [len(part) for part in block_descriptors(clip)] == [0, 0]
    clip[0, 0, 0, 8:] = [40, 0, 0, 0, 0, 0, 0, 0, 24]  # one cell moves to the right
    gradients, flow = block_descriptors(clip)
    assert gradients.shape == (0, 96)  # 40 of 64 in one of 24 cells are too few: 2.6 %
    clip[1, 0, 0, 8:] = [60, 0, 0, 0, 0, 0, 0, 0, 4]
    gradients, flow = block_descriptors(clip)  # 6.5 % of the one block with that cell
    assert (gradients.shape, flow.shape) == ((1, 96), (1, 108))
    assert_close((flow**2).sum(axis=1), np.ones(1), rtol=1e-12)
    counts = clip[:, :2, :2, 8:].reshape(3, 2, 2, 2, 9).sum(axis=1)  # two pairs to a part
    assert_close(flow[0] ** 2, counts.ravel() / counts.sum(), rtol=1e-12)
    with pytest.raises(UserError, match="5 pairs of frames and 3 by 3 cells is smaller than"):
        block_descriptors(clip[:5])


def test_the_encoder_is_equal_to_the_bit_and_knows_its_mixture():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 8)).astype(np.float32)
    one, two = (FisherVectors(components=3).fit(x, seed=5) for _ in range(2))
    vector = one.encode(x[:50])
    assert vector.shape == (3 * (1 + 2 * 4),)
    assert vector.dtype == np.float32
    assert_close(two.encode(x[:50]), vector)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    # Of all that the mixture was fitted to, the likelihood has nearly no gradient left.
    reduced = (x - one.pca.mean_) @ one.pca.components_.T
    everything = fisher_vector(reduced, one.weights, one.means, one.variances)
    few = fisher_vector(reduced[:50], one.weights, one.means, one.variances)
    assert np.abs(everything).max() < 0.3 * np.abs(few).max()
    assert_close(one.encode(x[:0]), np.zeros(27, np.float32))


def test_too_few_descriptors():
    pytest.importorskip("sklearn")
    with pytest.raises(UserError, match=r"39 blocks .* and 40 are needed for a mixture"):
        FisherVectors(components=4).fit(np.zeros((39, 8)), 0)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(UserError, match=r"Fisher vectors need .*pip install 'tinyvid\[svm\]'"):
        FisherVectors().fit(np.zeros((9, 4)), 0)


def test_directions_are_told_apart_by_any_number_of_threads():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(2)

    def clip(direction):
        cells = rng.uniform(0, 4, size=(15, 8, 8, 17))
        cells[..., 8 + direction] += 30 * rng.uniform(size=(15, 8, 8))
        return cells

    labels = np.arange(24) % 3
    clips = [clip(2 * label) for label in labels]
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            svm = FisherSVM()
            svm.fit(clips[:12], labels[:12], 3, seed=0)
            found.append(svm.scores(clips[12:]))
    assert found[0].dtype == np.float32
    assert_close(found[0].argmax(axis=1), labels[12:])
    assert_close(found[1], found[0])  # to the bit
