"""Metrics of classification: Hit@k, accuracies, the confusion matrix and an interval.

Scores are `(n, classes)`, labels `(n,)`. Where scores tie, the class of the lower index
ranks first, here as in `argmax`; so Hit@1, the predicted class and the confusion matrix never
contradict each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinyvid.errors import UserError

FUSIONS = ("mean_prob", "mean_logit", "max")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities `(n, classes)` of the logits, in float64."""
    logits = np.asarray(logits, dtype=np.float64)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy `(n,)` of each row with its label, in nats."""
    logits = np.asarray(logits, dtype=np.float64)
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return total - logits[np.arange(len(labels)), labels]


def rank_of_label(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes rank before the label, `(n,)`: 0 where it is predicted.

    Raises:
        UserError: shapes do not fit, a label is not a class, or a score is NaN.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise UserError(
            f"scores of shape {scores.shape} and labels of shape {labels.shape}: "
            "they must be (n, classes) and (n,)"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < scores.shape[1]):
        raise UserError(
            f"labels run from {labels.min()} to {labels.max()}, but there are "
            f"{scores.shape[1]} classes"
        )
    if np.isnan(scores).any():
        row = int(np.isnan(scores).any(axis=1).argmax())
        raise UserError(f"scores[{row}] has a NaN: a network that gives NaN cannot be ranked")
    own = scores[np.arange(len(labels)), labels][:, None]
    before = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(axis=1)


def hit_at(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of rows whose label is among the k best classes; NaN for no rows."""
    if k < 1:
        raise UserError(f"k={k}: Hit@k needs k of at least 1")
    ranks = rank_of_label(scores, labels)
    return float((ranks < k).mean()) if ranks.size else float("nan")


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return counts `(classes, classes)`: row the true class, column the predicted one."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(predicted)), 1)
    return counts


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """Return the mean of the classes' accuracies, over the classes that occur."""
    totals = confusion.sum(axis=1)
    occurs = totals > 0
    if not occurs.any():
        return float("nan")
    return float((np.diag(confusion)[occurs] / totals[occurs]).mean())


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of which `hits` of `count` were seen.

    Those true shares for which what was seen lies within 1.96 standard deviations, so that nine
    hits of nine are no certainty.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (Journal
    of the American Statistical Association 22, 1927).
    """
    if not count:
        return float("nan"), float("nan")
    share, z = hits / count, 1.959964  # the normal distribution has 95 % within ±z
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


RESAMPLES = 10_000  # of a bootstrap: its borders then move by about 0.1 % from seed to seed


def bootstrap_interval(hits: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean over videos, by the percentile bootstrap.

    As many videos are drawn again and again, with replacement, from those that were tested; of the
    means of 10,000 such draws, 2.5 % lie below the interval and 2.5 % above. It holds for any
    mean over videos, and one seed gives the same interval to the bit. What it cannot know is what
    none of the videos shows: where all are right it is 100 % to 100 %, and of few videos it is too
    narrow. So give `wilson_interval` beside it for a share of fewer than about 50 videos. Neither
    knows that videos of one group resemble each other, nor that another training would differ.

    Args:
        hits: `(videos,)`, bool, or a number for each video.

    Returns:
        (low, high); NaN, NaN for no videos.

    Raises:
        UserError: `hits` has another shape, or a value that is not finite.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    hits = np.asarray(hits, dtype=np.float64)
    if hits.ndim != 1 or not np.isfinite(hits).all():
        raise UserError(
            f"bootstrap_interval: hits of shape {hits.shape} must be (videos,), all of them finite"
        )
    if not hits.size:
        return float("nan"), float("nan")
    # How often each value is drawn has a multinomial distribution; in parts, to save memory.
    values, counts = np.unique(hits, return_counts=True)
    rng, parts = np.random.default_rng(seed), 100
    shares = counts / hits.size
    sums = [rng.multinomial(hits.size, shares, RESAMPLES // parts) @ values for _ in range(parts)]
    means = np.concatenate(sums) / hits.size
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def fuse(logits: np.ndarray, videos: np.ndarray, fusion: str = "mean_prob") -> np.ndarray:
    """Fuse the clips of each video into one row of scores.

    Args:
        logits: `(clips, classes)`.
        videos: `(clips,)`, the video of each clip; any integers.
        fusion: `mean_prob`, the mean of the clips' probabilities; `mean_logit`, the
            probabilities of the mean logits (a geometric mean); or `max`, the largest
            probability of each class in any clip, made to sum to 1.

    Returns:
        Scores `(videos, classes)` in float64, rows in the order of `np.unique(videos)`,
        each row summing to 1.
    """
    if fusion not in FUSIONS:
        raise UserError(f"fusion={fusion!r}: give one of {', '.join(FUSIONS)}")
    logits = np.asarray(logits, dtype=np.float64)
    rows = np.unique(videos, return_inverse=True)[1]
    count = np.bincount(rows)[:, None]
    values = logits if fusion == "mean_logit" else softmax(logits)
    if fusion == "max":
        fused = np.zeros((len(count), logits.shape[1]))
        np.maximum.at(fused, rows, values)
        return fused / fused.sum(axis=1, keepdims=True)
    total = np.zeros((len(count), logits.shape[1]))
    np.add.at(total, rows, values)
    return total / count if fusion == "mean_prob" else softmax(total / count)


@dataclass(frozen=True)
class Metrics:
    """What a test reports; shares lie in 0..1.

    Attributes:
        k: the k of `video_hit_k`: 5, or the number of classes where there are fewer.
        interval: 95 % interval of `video_hit_1`, by `wilson_interval`.
        confusion: `(classes, classes)`, row the true class of a video, column the predicted.
    """

    clips: int
    videos: int
    fusion: str
    clip_hit_1: float
    video_hit_1: float
    interval: tuple[float, float]
    video_hit_k: float
    k: int
    mean_class: float
    confusion: np.ndarray


def measure(
    logits: np.ndarray, labels: np.ndarray, videos: np.ndarray, fusion: str = "mean_prob"
) -> Metrics:
    """Return all metrics of the scores of clips.

    Args:
        logits: `(clips, classes)`. labels: `(clips,)`, that of the clip's video.
        videos: `(clips,)`, which video each clip is of.
        fusion: see `fuse`.
    """
    labels, videos = np.asarray(labels), np.asarray(videos)
    _, first = np.unique(videos, return_index=True)
    scores = fuse(logits, videos, fusion)
    truth = labels[first]
    ranks = rank_of_label(scores, truth)
    classes = scores.shape[1]
    confusion = confusion_matrix(truth, scores.argmax(axis=1), classes)
    k = min(5, classes)
    return Metrics(
        clips=len(labels),
        videos=len(truth),
        fusion=fusion,
        clip_hit_1=hit_at(logits, labels, 1),
        video_hit_1=float((ranks == 0).mean()),
        interval=wilson_interval(int((ranks == 0).sum()), len(truth)),
        video_hit_k=float((ranks < k).mean()),
        k=k,
        mean_class=mean_class_accuracy(confusion),
        confusion=confusion,
    )
