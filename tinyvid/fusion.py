"""Fusing what several networks say of the same videos: an average, or a linear SVM.

The average of a spatial and a temporal stream is the two-stream network of Simonyan and Zisserman
(2014, section 5), which also fuses by a linear SVM on the stacked scores; the average of four
networks is the "CNN average" of Karpathy et al. (2014, table 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tinyvid.data.sets import listed
from tinyvid.errors import UserError
from tinyvid.evaluate import Scores
from tinyvid.metrics import fuse, softmax

C = 1.0  # of the SVM: the cost of an error against that of steepness


def aligned(parts: Sequence[Scores], names: Sequence[str]) -> list[Scores]:
    """Return scores of the same videos with the videos, and the classes, in one order.

    The videos come by name, the classes as in the first of `parts`; clips of a video keep their
    order.

    Args:
        names: what to call each of `parts` in errors, such as the file that it was read from.

    Raises:
        UserError: videos, classes or labels differ, or a score is NaN or infinite.
    """
    first = _arranged(parts[0], parts[0].classes, names[0])
    result = [first]
    for part, name in zip(parts[1:], names[1:], strict=True):
        _check_same("classes", part.classes, first.classes, name, names[0], "trained on other data")
        one = _arranged(part, first.classes, name)
        _check_same("videos", one.names, first.names, name, names[0], "of another split or data")
        differ = [
            video
            for video, a, b in zip(first.names, _labels(one), _labels(first), strict=True)
            if a != b
        ]
        if differ:
            raise UserError(
                f"{name} and {names[0]} give {len(differ)} of {len(first.names)} videos other "
                f"classes: {listed(differ, 3)}"
            )
        result.append(one)
    return result


def average(
    parts: Sequence[Scores], weights: Sequence[float] | None = None, fusion: str = "mean_prob"
) -> Scores:
    """Return the weighted mean of the probabilities.

    Where the networks saw the same clips, and the clips' probabilities are averaged, each clip is
    fused, which gives the videos the same mean: a clip's result means something then too. Else
    a video counts as one clip.

    Args:
        parts: as `aligned` gives them.
        weights: one for each part; None for equal ones.
        fusion: how the clips become a video; see `tinyvid.metrics.fuse`.

    Returns:
        Scores whose `logits` are the logarithms of the mean probabilities.

    Raises:
        UserError: the number of weights is another, one is negative, or all are 0.
    """
    shares = check_weights(weights, len(parts))
    if fusion == "mean_prob" and same_clips(parts):
        mean = sum(w * softmax(p.logits) for w, p in zip(shares, parts, strict=True))
        return replace(parts[0], logits=_log(mean))
    mean = sum(w * fuse(p.logits, p.videos, fusion) for w, p in zip(shares, parts, strict=True))
    return _of_videos(parts[0], _log(mean))


def check_weights(weights: Sequence[float] | None, count: int) -> np.ndarray:
    """Return the weights, which sum to 1; equal ones for None. Raises UserError as `average`."""
    given = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if given.shape != (count,) or not np.isfinite(given).all() or (given < 0).any():
        raise UserError(
            f"weights {', '.join(f'{w:g}' for w in given.flat)}: give {count}, one for each of the "
            "scores, none of them negative"
        )
    if not given.any():
        raise UserError("weights: all of them are 0")
    return given / given.sum()


def fuse_by_svm(
    train: Sequence[Scores], test: Sequence[Scores], fusion: str = "mean_prob"
) -> Scores:
    """Return the decisions of a linear SVM on the stacked, L2-normalised scores of videos.

    The SVM decides for each class against all others. Its scores must be of videos that the
    networks were not trained on: what they say of their own training videos is too sure, so the SVM
    would learn to trust the network that knows them by heart.

    Args:
        train: scores of the videos to learn from, as `aligned` gives them, one for each network.
        test: the same of the videos to fuse.
        fusion: how the clips become a video.

    Returns:
        Scores with a row for each video of `test`: `logits` are the distances from the planes.

    Raises:
        UserError: scikit-learn is not installed, a video is in both parts, or a class has no
            video to learn from.

    Source: Simonyan and Zisserman, Two-stream convolutional networks for action recognition in
    videos (2014), section 5.
    """
    both = set(train[0].names) & set(test[0].names)
    if both:
        raise UserError(
            f"{len(both)} videos would both train the SVM and test it: {listed(both, 3)}"
        )
    labels = _labels(train[0])
    classes = test[0].classes
    absent = [name for i, name in enumerate(classes) if i not in labels]
    if absent:
        raise UserError(
            f"the SVM has no video to learn {len(absent)} of {len(classes)} classes from: "
            f"{listed(absent, 3)}"
        )
    svm = linear_svm(C)
    svm.fit(stacked(train, fusion), labels)
    return _of_videos(test[0], decisions(svm, stacked(test, fusion)))


def linear_svm(cost: float, tol: float = 1e-6) -> Any:
    """Return scikit-learn's linear SVM, one class against the rest, solved without randomness.

    Args:
        cost: C, of an error.
        tol: where the solver stops, as a share of the gradient that it began with.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise UserError("a linear SVM needs scikit-learn: pip install 'tinyvid[svm]'") from error
    return LinearSVC(C=cost, dual=False, tol=tol, max_iter=10_000)


def decisions(svm: Any, x: np.ndarray) -> np.ndarray:
    """Return the distances `(n, classes)` from the planes; of two classes there is one plane."""
    with threadpool_limits(1):  # the order of sums, and so their last bits, else vary
        found = svm.decision_function(x)
    return np.stack([-found, found], axis=1) if found.ndim == 1 else found


def stacked(parts: Sequence[Scores], fusion: str = "mean_prob") -> np.ndarray:
    """Return `(videos, networks * classes)`: each network's probabilities, of L2 norm 1."""
    rows = [fuse(p.logits, p.videos, fusion) for p in parts]
    return np.concatenate([r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows], axis=1)


def same_clips(parts: Sequence[Scores]) -> bool:
    """Whether aligned scores are of the same clips: as many of each video, with equal starts."""
    first = parts[0]
    return all(
        np.array_equal(p.videos, first.videos)
        and np.array_equal(p.starts, first.starts)
        and (p.clips, p.crops) == (first.clips, first.crops)
        for p in parts[1:]
    )


def _arranged(scores: Scores, classes: list[str], name: str) -> Scores:
    """Return the scores with the rows by the name of their video, and these classes in order."""
    if not len(scores.videos):
        raise UserError(f"{name} holds no scores")
    bad = ~np.isfinite(scores.logits).all(axis=1)
    if bad.any():
        video = scores.names[scores.videos[int(bad.argmax())]]
        raise UserError(
            f"{name}: {int(bad.sum())} of {len(bad)} clips have a score that is NaN or infinite, "
            f"the first of {video!r}: that network cannot be fused"
        )
    named = np.array(scores.names)[scores.videos]
    names, videos = np.unique(named, return_inverse=True)
    order = np.argsort(videos, kind="stable")
    columns = [scores.classes.index(c) for c in classes]
    label = np.array([classes.index(c) for c in scores.classes])
    return Scores(
        scores.logits[order][:, columns],
        label[scores.labels[order]],
        videos[order],
        scores.starts[order],
        names.tolist(),
        list(classes),
        scores.clips,
        scores.crops,
    )


def _check_same(
    what: str, own: Sequence[str], others: Sequence[str], name: str, other: str, why: str
) -> None:
    """Raise UserError unless both have the same names, be it in another order."""
    told = [
        f"{len(only)} only {where}: {listed(only, 3)}"
        for only, where in (
            (set(own) - set(others), f"in {name}"),
            (set(others) - set(own), f"in {other}"),
        )
        if only
    ]
    if told:
        common = len(set(own) & set(others))
        raise UserError(
            f"{name} and {other} are scores of different {what} ({why}), {common} are in both; "
            + "; ".join(told)
        )


def _labels(scores: Scores) -> np.ndarray:
    """The class of each video, in order."""
    return scores.labels[np.unique(scores.videos, return_index=True)[1]]


def _log(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms in float32, finite where a probability is 0."""
    return np.log(np.maximum(probabilities, 1e-37)).astype(np.float32)


def _of_videos(like: Scores, logits: np.ndarray) -> Scores:
    """Scores with one row for each video of `like`."""
    first = np.unique(like.videos, return_index=True)[1]
    count = np.arange(len(first))
    values = logits.astype(np.float32)
    return Scores(values, like.labels[first], count, np.zeros(len(first)), like.names, like.classes)
