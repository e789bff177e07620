"""Feature histograms and a small neural network: a baseline of Karpathy et al. (2014, section 4.1).

Theirs counts visual words of many kinds of features in a pyramid of space and time; ours is one
histogram of gradients and one of flow in each part of a small pyramid. As theirs, they go through a
network with rectified linear units and a softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tinyvid
from tinyvid import nn, optim
from tinyvid.features.cells import HOG_BINS

GRIDS = ((1, 1, 1), (3, 2, 2))  # parts of a clip along time, height and width
WIDTH = 64  # hidden units
EPOCHS = 60
BATCH = 32


def pyramid_histograms(
    clip: np.ndarray, grids: Sequence[tuple[int, int, int]] = GRIDS
) -> np.ndarray:
    """Return the features of a clip `(T, Y, X, 17)`: 17 numbers for each part of each grid.

    In each part, either histogram is made to sum to 1 and its root is taken, so that contrast and
    the size of a part do not matter, and frequent bins do not outweigh the rest.
    """
    parts = []
    for grid in grids:
        sums = clip
        for axis, count in enumerate(grid):
            borders = np.arange(count) * clip.shape[axis] // count
            sums = np.add.reduceat(sums, borders, axis=axis)
        parts += [rooted(sums[..., :HOG_BINS]).ravel(), rooted(sums[..., HOG_BINS:]).ravel()]
    return np.concatenate(parts)


def rooted(counts: np.ndarray) -> np.ndarray:
    """Return the roots of the shares of the last axis; zeros where there are no counts.

    Source: Arandjelovic and Zisserman, Three things everyone should know to improve object
    retrieval (2012), section 2.
    """
    total = counts.sum(axis=-1, keepdims=True)
    return np.sqrt(counts / np.where(total > 0, total, 1))


class HistogramNetwork:
    """Histograms of a pyramid, standardised, into one hidden layer and a softmax."""

    def fit(self, clips: Sequence[np.ndarray], labels: np.ndarray, classes: int, seed: int) -> None:
        """Train on clips `(T, Y, X, 17)` and their labels `(clips,)`; the same each time."""
        x = np.stack([pyramid_histograms(clip) for clip in clips]).astype(np.float32)
        self.mean, self.scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-3)
        x = (x - self.mean) / self.scale
        tinyvid.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(x.shape[1], WIDTH), nn.ReLU(), nn.Dropout(0.5), nn.Linear(WIDTH, classes)
        )
        steps = -(-len(x) // BATCH)
        optimiser = optim.AdamW(list(self.model.parameters()), lr=2e-3, weight_decay=0.02)
        schedule = optim.WarmupCosine(optimiser, steps, steps * EPOCHS, 0.0)
        for epoch in range(EPOCHS):
            order = np.random.default_rng([seed, epoch]).permutation(len(x))
            for rows in np.array_split(order, steps):
                optimiser.zero_grad()
                logits = self.model(tinyvid.tensor(x[rows]))
                target = tinyvid.tensor(labels[rows])
                tinyvid.cross_entropy(logits, target, label_smoothing=0.1).backward()
                optimiser.step()
                schedule.step()

    def scores(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of the clips, float32 `(clips, classes)`."""
        x = np.stack([pyramid_histograms(clip) for clip in clips]).astype(np.float32)
        self.model.eval()
        with tinyvid.no_grad():
            return self.model(tinyvid.tensor((x - self.mean) / self.scale)).numpy()
