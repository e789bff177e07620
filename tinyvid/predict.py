"""Prediction: what a trained network sees in a video file, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tinyvid import nn, no_grad, tensor
from tinyvid.data import Video, uniform_clips
from tinyvid.data.sets import FileSet
from tinyvid.errors import UserError
from tinyvid.evaluate import score
from tinyvid.frame_features import FrameFeatures
from tinyvid.inputs import as_input, clip_spec
from tinyvid.lrcn import WEIGHTS, FeatureLstm, load_lstm, step_probabilities
from tinyvid.metrics import fuse, softmax
from tinyvid.models.cnn_lstm import CnnLstm
from tinyvid.runs import Run

MOST_CLIPS = 60

Steps = tuple[np.ndarray, np.ndarray]


@dataclass
class Prediction:
    """What a network says of one file.

    Attributes:
        classes: the names of the classes.
        probabilities: `(classes,)`, fused over the clips.
        clips: `(n, classes)`, the probabilities in each clip.
        times: (start, end) of each clip in seconds.
        steps: of a network that predicts at each time step, the moment of each frame, float64
            `(T,)` in seconds, and the probabilities after it, `(T, classes)`; else None.
    """

    path: Path
    classes: list[str]
    probabilities: np.ndarray
    clips: np.ndarray
    times: list[tuple[float, float]]
    steps: Steps | None = None

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
    failed: Callable[[UserError], None] | None = None,
) -> list[Prediction]:
    """Run a trained network over video files.

    Args:
        run: the run, or its folder; or that of an LSTM on features (`tinyvid.lrcn`), which reads
            whole videos.
        clips: evenly spread clips of each file; by default as many as cover it end to end,
            at most 60.
        fusion: how the clips' scores become the file's; see `tinyvid.metrics.fuse`.
        device: where the network runs; None for where it was trained.
        failed: is called with what is wrong with a file, which then is left out.

    Raises:
        UserError: a file is missing or cannot be decoded, or the network gives NaN for it; the
            message names it. Not with `failed`.
    """
    if clips is not None and clips < 1:
        raise UserError(f"clips={clips}: a prediction needs at least 1 clip")
    look: Callable[[str], Prediction]
    if not isinstance(run, Run) and (Path(run) / WEIGHTS).is_file():
        if clips is not None:
            raise UserError(f"clips={clips}: the LSTM of {run} reads whole videos")
        lstm, run = load_lstm(run)
        look = partial(_read_whole, lstm, FrameFeatures(run), run.classes)
    else:
        run = run if isinstance(run, Run) else Run.open(run)
        model, _ = run.model(device=device)
        look = partial(_predict, run, model, clips=clips, fusion=fusion)
    found = []
    for file in dict.fromkeys(map(str, files)):
        try:
            found.append(look(file))
        except UserError as error:
            if failed is None:
                raise
            failed(error)
    return found


def _predict(
    run: Run, model: nn.Module, file: str, *, clips: int | None, fusion: str
) -> Prediction:
    videos = _single(file)
    info, spec = as_input(run.config, videos).probe(videos.videos[0]), clip_spec(run.config)
    one = uniform_clips(spec, info, 1)[0]
    frame = info.seconds / info.frames
    length = float(info.times[one.indices.max()] - info.times[one.indices.min()]) + frame
    count = clips or min(MOST_CLIPS, max(1, math.ceil(info.seconds / length - 0.01)))
    scores = score(model, videos, run.config, clips=count)
    if not np.isfinite(scores.logits).all():
        raise UserError(f"{file}: the network of {run.path} gives NaN or infinity: train it again")
    ends = [float(info.times[c.indices.max()]) + frame for c in uniform_clips(spec, info, count)]
    return Prediction(
        Path(file),
        run.classes,
        fuse(scores.logits, scores.videos, fusion)[0],
        softmax(scores.logits),
        list(zip(scores.starts.tolist(), ends, strict=True)),
        _steps(run, model, videos),
    )


def _single(file: str) -> FileSet:
    if Path(file).is_dir():
        raise UserError(f"{file}: is a folder: give its files, such as {file.rstrip('/')}/*.mp4")
    # The label is unknown: one nameless class stands for all.
    return FileSet(["?"], [Video(file, 0, file, file)], strict=True)


def _steps(run: Run, model: nn.Module, videos: FileSet) -> Steps | None:
    """What a network that predicts at each step says of the whole video."""
    if not isinstance(model, CnnLstm):
        return None
    times, features = FrameFeatures(run, model=model).of(videos, videos.videos[0])
    with no_grad():
        logits = model.read(tensor(features[None], device=next(model.parameters()).device))
    return times, softmax(logits.numpy()[0])


def _read_whole(
    lstm: FeatureLstm, frames: FrameFeatures, classes: list[str], file: str
) -> Prediction:
    videos = _single(file)
    info = videos.probe(videos.videos[0])
    times, features = frames.of(videos, videos.videos[0])
    found = step_probabilities(lstm, features)
    ends = [*times[1:].tolist(), info.seconds]
    spans = list(zip(times.tolist(), ends, strict=True))
    return Prediction(Path(file), classes, found.mean(0), found, spans, (times, found))
