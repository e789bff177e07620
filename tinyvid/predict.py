"""Prediction: what a trained network sees in a video file, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyvid.data import Video, uniform_clips
from tinyvid.data.sets import FileSet
from tinyvid.errors import UserError
from tinyvid.evaluate import clip_spec, score
from tinyvid.metrics import fuse, softmax
from tinyvid.runs import Run

MOST_CLIPS = 60


@dataclass
class Prediction:
    """What a network says of one file.

    Attributes:
        classes: the names of the classes.
        probabilities: `(classes,)`, fused over the clips.
        clips: `(n, classes)`, the probabilities in each clip.
        times: (start, end) of each clip in seconds.
    """

    path: Path
    classes: list[str]
    probabilities: np.ndarray
    clips: np.ndarray
    times: list[tuple[float, float]]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes with their probabilities, the best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


def predict(
    run: Run | str | Path,
    files: Sequence[str | Path],
    *,
    clips: int | None = None,
    fusion: str = "mean_prob",
    device: str | None = None,
) -> list[Prediction]:
    """Run a trained network over video files.

    Args:
        run: the run, or its folder.
        clips: evenly spread clips of each file; by default as many as cover it end to end,
            at most 60.
        fusion: how the clips' scores become the file's; see `tinyvid.metrics.fuse`.
        device: where the network runs; None for where it was trained.

    Raises:
        UserError: a file is missing or cannot be decoded, or the network gives NaN for it; the
            message names it.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if clips is not None and clips < 1:
        raise UserError(f"clips={clips}: a prediction needs at least 1 clip")
    videos = [Video(str(file), 0, str(file), str(file)) for file in dict.fromkeys(map(str, files))]
    # The labels are unknown: one nameless class stands for them.
    opened = FileSet(["?"], videos, strict=True, workers=run.config.data.workers)
    model, _ = run.model(device=device)
    spec = clip_spec(run.config)
    found = []
    for i, video in enumerate(opened.videos):
        info = opened.probe(video)
        one = uniform_clips(spec, info, 1)[0]
        frame = info.seconds / info.frames
        length = float(info.times[one.indices.max()] - info.times[one.indices.min()]) + frame
        count = clips or min(MOST_CLIPS, max(1, math.ceil(info.seconds / length - 0.01)))
        scores = score(model, opened.subset([i]), run.config, clips=count)
        if not np.isfinite(scores.logits).all():
            raise UserError(
                f"{video.path}: the network of {run.path} gives NaN or infinity: train it again"
            )
        ends = [
            float(info.times[c.indices.max()]) + frame for c in uniform_clips(spec, info, count)
        ]
        found.append(
            Prediction(
                Path(video.path),
                run.classes,
                fuse(scores.logits, scores.videos, fusion)[0],
                softmax(scores.logits),
                list(zip(scores.starts.tolist(), ends, strict=True)),
            )
        )
    return found
