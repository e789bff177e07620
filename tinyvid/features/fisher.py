"""Fisher vectors of local histograms with a linear SVM: the stronger baseline made by hand.

Descriptors of small blocks of space and time are taken to come from a mixture of Gaussians. The
Fisher vector of a clip says how the mixture would have to change to fit the clip's descriptors
better: the gradient of their mean log likelihood with respect to weights, means and deviations,
each divided by the root of its Fisher information. Mixture, principal components and the SVM are
scikit-learn's.

Sources: Perronnin, Sanchez and Mensink, Improving the Fisher kernel for large-scale image
classification (2010), sections 2 and 3; the gradient in the weights, which they leave out, as in
Sanchez et al., Image classification with the Fisher vector (2013), section 2.3; blocks, and C =
100, as in Wang and Schmid, Action recognition with improved trajectories (2013), section 3, but
densely sampled.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from tinyvid.errors import UserError
from tinyvid.features.cells import HOG_BINS
from tinyvid.features.histograms import rooted
from tinyvid.fusion import decisions, linear_svm

COMPONENTS = 32  # Gaussians
SAMPLES = 20_000  # descriptors that principal components and mixture are fitted to
BLOCK = (3, 2, 2)  # parts of a descriptor along time, height and width
PAIRS = 2  # pairs of frames in a part; a part is one cell high and wide
MOVING = 0.05  # least share of the votes for any direction of flow; blocks that rest say nothing
COST = 100.0  # of an error of the SVM
TOLERANCE = 1e-3  # of its solver; with thousands of numbers a clip, less takes ten times as long


def block_descriptors(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the descriptors `(n, 96)` of gradients and `(n, 108)` of flow of a clip's blocks.

    Args:
        clip: `(T, Y, X, 17)` cells. Blocks overlap by all but one cell, and by all but one part
            in time; those in which nothing moves are left out, so n may be 0.

    Raises:
        UserError: the clip is shorter or smaller than a block.
    """
    parts, rows, columns = BLOCK
    if any(s < b for s, b in zip(clip.shape, (parts * PAIRS, rows, columns), strict=False)):
        raise UserError(
            f"a clip of {clip.shape[0]} pairs of frames and {clip.shape[1]} by {clip.shape[2]} "
            f"cells is smaller than a block of {parts * PAIRS} pairs and {rows} by {columns} cells"
        )
    slices = np.add.reduceat(
        clip[: len(clip) // PAIRS * PAIRS], np.arange(0, len(clip) - PAIRS + 1, PAIRS)
    )
    # (T', Y', X', bins, parts, rows, columns) -> (n, parts * rows * columns, bins)
    blocks = np.lib.stride_tricks.sliding_window_view(slices, BLOCK, axis=(0, 1, 2))
    blocks = np.moveaxis(blocks, 3, -1).reshape(-1, parts * rows * columns, clip.shape[-1])
    votes = blocks[..., HOG_BINS:].sum(axis=1)  # (n, 9)
    blocks = blocks[votes[:, :-1].sum(axis=1) > MOVING * votes.sum(axis=1)]
    gradients, flow = np.split(blocks, [HOG_BINS], axis=-1)
    return rooted(_flat(gradients)), rooted(_flat(flow))


def _flat(blocks: np.ndarray) -> np.ndarray:
    n, parts, bins = blocks.shape
    return blocks.reshape(n, parts * bins)


def fisher_vector(
    x: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray
) -> np.ndarray:
    """Return the Fisher vector of descriptors, before any normalisation.

        weight part     1 / (n sqrt(w))    sum_i (p(k | x_i) - w_k)
        mean part       1 / (n sqrt(w))    sum_i p(k | x_i) (x_i - m_k) / s_k
        deviation part  1 / (n sqrt(2 w))  sum_i p(k | x_i) ((x_i - m_k)^2 / s_k^2 - 1)

    The weight part alone sees how many descriptors a Gaussian gets. Where those of one class have
    Gaussians of their own, they fit these on the average, and the other parts see nothing.

    Args:
        x: `(n, D)`. weights: `(K,)`, which sum to 1. means, variances: `(K, D)`, s_k^2 the latter.

    Returns:
        `((1 + 2 D) K,)`: the weight, mean and deviation parts, each of all Gaussians; zeros for
        n = 0.
    """
    n = len(x)
    if not n:
        return np.zeros(means.size * 2 + len(weights))
    p = posteriors(x, weights, means, variances)  # (n, K)
    # The sums of p, p x and p x^2 tell all, so that nothing of size (n, K, D) is made.
    s0, s1, s2 = p.sum(axis=0)[:, None], p.T @ x, p.T @ (x * x)
    root = n * np.sqrt(weights)[:, None]
    by_weight = s0 - n * weights[:, None]
    by_mean = (s1 - s0 * means) / np.sqrt(variances)
    by_deviation = (s2 - 2 * means * s1 + s0 * means**2) / variances - s0
    parts = by_weight / root, by_mean / root, by_deviation / (np.sqrt(2) * root)
    return np.concatenate([part.ravel() for part in parts])


def posteriors(
    x: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray
) -> np.ndarray:
    """Return `(n, K)`, the probability of each Gaussian given the descriptor."""
    precision = 1 / variances
    square = (x * x) @ precision.T - 2 * x @ (means * precision).T + (means**2 * precision).sum(1)
    log = np.log(weights) - 0.5 * (np.log(2 * np.pi * variances).sum(axis=1) + square)
    p = np.exp(log - log.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def normalised(vector: np.ndarray) -> np.ndarray:
    """Return the signed root of each number (power normalisation), then L2 norm 1 of all."""
    rooted_ = np.sign(vector) * np.sqrt(np.abs(vector))
    return rooted_ / max(float(np.linalg.norm(rooted_)), 1e-12)


class FisherVectors:
    """Principal components, half as many as a descriptor has numbers, and a mixture on them."""

    def __init__(self, components: int = COMPONENTS):
        self.components = components

    def fit(self, x: np.ndarray, seed: int) -> FisherVectors:
        """Fit both to descriptors `(n, D)`.

        Raises:
            UserError: scikit-learn is not installed, or there are too few descriptors.
        """
        try:
            from sklearn.decomposition import PCA
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.mixture import GaussianMixture
        except ImportError as error:
            raise UserError(
                "Fisher vectors need scikit-learn: pip install 'tinyvid[svm]'"
            ) from error
        least = max(x.shape[1], 10 * self.components)
        if len(x) < least:
            raise UserError(
                f"{len(x)} blocks of the training videos move, and {least} are needed for a "
                "mixture: these videos hardly move, or are too few"
            )
        with threadpool_limits(1):  # the order of sums, and so their last bits, else vary
            self.pca = PCA(x.shape[1] // 2, svd_solver="full").fit(x.astype(np.float64))
            mixture = GaussianMixture(
                self.components, covariance_type="diag", random_state=seed, reg_covar=1e-5,
                max_iter=30, tol=1e-3,
            )  # fmt: skip
            with warnings.catch_warnings():  # it need not converge: a few dozen steps serve as well
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit(self.pca.transform(x.astype(np.float64)))
        self.weights, self.means = mixture.weights_, mixture.means_
        self.variances = mixture.covariances_
        return self

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the normalised Fisher vector of a clip's descriptors, float32."""
        with threadpool_limits(1):
            reduced = (x - self.pca.mean_) @ self.pca.components_.T
            vector = fisher_vector(reduced, self.weights, self.means, self.variances)
        return normalised(vector).astype(np.float32)


class FisherSVM:
    """Fisher vectors of gradients and of flow, side by side, with a linear SVM."""

    def fit(self, clips: Sequence[np.ndarray], labels: np.ndarray, classes: int, seed: int) -> None:
        """Train on clips `(T, Y, X, 17)` and their labels; every class must occur."""
        each = -(-SAMPLES // len(clips))
        sampled: tuple[list, list] = [], []
        for number, clip in enumerate(clips):
            found = block_descriptors(clip)
            rng = np.random.default_rng([seed, number])
            chosen = rng.permutation(len(found[0]))[:each]
            for part, descriptors in zip(sampled, found, strict=True):
                part.append(descriptors[chosen])
        self.encoders = [FisherVectors().fit(np.concatenate(part), seed) for part in sampled]
        self.svm = linear_svm(COST, TOLERANCE)
        with threadpool_limits(1):
            self.svm.fit(self._encode(clips), labels)

    def scores(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Return the distances from the SVM's planes, float32 `(clips, classes)`.

        They rank the classes, and are no logarithms of probabilities: where a softmax makes
        probabilities of them, these are too even, and weigh little in an average with others.
        """
        return decisions(self.svm, self._encode(clips)).astype(np.float32)

    def _encode(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        for clip in clips:
            parts = zip(self.encoders, block_descriptors(clip), strict=True)
            rows.append(np.concatenate([encoder.encode(x) for encoder, x in parts]))
        return np.stack(rows)
