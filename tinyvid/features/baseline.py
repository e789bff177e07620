"""Training and testing what is made by hand, on the very splits and clips of the networks.

The results are those of any test: scores of each clip, which can be fused with a network's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from tinyvid.config import Config
from tinyvid.crossval import config_of_fold, fold_names
from tinyvid.data import ClipSpec, VideoSet, open_data
from tinyvid.data.clips import uniform_clips
from tinyvid.data.sets import absolute
from tinyvid.errors import UserError, nearest
from tinyvid.evaluate import FRESH_VERBS, Scores, open_videos, save_results
from tinyvid.features.cells import CellSettings, video_cells
from tinyvid.features.fisher import FisherSVM
from tinyvid.features.histograms import HistogramNetwork
from tinyvid.folds import CrossValidation, fold_folder, save_crossval
from tinyvid.metrics import Metrics, measure
from tinyvid.parts import split_parts
from tinyvid.runs import claim, make_folder
from tinyvid.train import describe_skipped

ABOUT = "baseline.json"  # what the results in a folder are of
VERBS_FPS = 10
FRAMES = (
    16  # of a clip, unless the config says otherwise; the networks for small clips take as many
)


class Classifier(Protocol):
    """What is trained on the cells of clips, each `(T, Y, X, 17)`."""

    def fit(self, clips: Sequence[np.ndarray], labels: np.ndarray, classes: int, seed: int) -> None:
        """Train; `labels` is `(clips,)`."""

    def scores(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Return a score for each class, `(clips, classes)`."""


BASELINES: dict[str, Callable[[], Classifier]] = {
    "histograms": HistogramNetwork,
    "fisher": FisherSVM,
}

Progress = Callable[[int, int], None]


class Features:
    """The cells of the videos of a set, found once, and cut into clips.

    Args:
        config: its `data`, and `clip.frames` and `clip.fps`; of verbs, clips are always of 16
            frames, and none is left out.
        clips: how many clips of each video train and test; they are spread evenly.
        cache: a folder that keeps the cells; None for none.
    """

    def __init__(self, config: Config, clips: int, cache: str | Path | None = None):
        fps, frames = config.clip.fps, config.clip.frames or FRAMES
        if config.data.path == "verbs":  # the config's stride suits networks; this, every frame
            fps, frames = config.data.options.get("fps", VERBS_FPS), FRAMES
        if fps is None:
            raise UserError("features made by hand are sampled in time: give clip.fps, no stride")
        if clips < 1:
            raise UserError(f"clips={clips}: a test needs at least 1 clip of each video")
        self.frames, self.count, self.cache = frames, clips, cache
        self.settings = CellSettings(float(fps))
        if self.frames < 2:
            raise UserError(f"clip.frames={self.frames}: motion needs at least 2 frames")

    def about(self) -> dict[str, object]:
        """What decides the features, as it is written down."""
        return {"frames": self.frames, "clips": self.count, **asdict(self.settings)}

    def of(self, videos: VideoSet, progress: Progress | None = None) -> dict[str, list]:
        """Return (start in seconds, cells) of each clip, by the name of the video."""
        spec = ClipSpec(self.frames, fps=self.settings.fps, size=(self.settings.short_side,) * 2)
        found: dict[str, list] = {}
        for done, video in enumerate(videos.videos, start=1):
            cells = video_cells(videos, video, self.settings, self.cache)
            clips = uniform_clips(spec, videos.probe(video), self.count)
            found[video.name] = [(c.start, cells.clip(c.start, self.frames - 1)) for c in clips]
            if progress is not None:
                progress(done, len(videos))
        return found


def fit_baseline(
    name: str,
    config: Config,
    out: str | Path,
    *,
    clips: int = 10,
    fusion: str = "mean_prob",
    cache: str | Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Metrics:
    """Train on the config's training videos, test on its test videos, and write `out/test`.

    The scores of validation videos go to `out/test-val`, where a fusion may learn from them.

    Where nothing is held out for testing, new videos of the synthetic verbs are, or of other data
    the validation part.

    Args:
        name: one of BASELINES.
        config: as of a network; its `data`, `clip.frames`, `clip.fps` and `run.seed` count.
        clips, fusion: as of a test of networks.
        cache: a folder that keeps the features of each video.
        progress: called with (videos done, videos in all).
        note: called with what the user should know.

    Raises:
        UserError: the data or the split is wrong, `out` holds other results, or scikit-learn
            is needed and not there.
    """
    make, features = _make(name), Features(config, clips, cache)
    out = _claimed(out, name, config, features, "")
    videos = _opened(config, note)
    parts = split_parts(videos, config, note)
    test = parts["test"]
    if not len(test) and config.data.path == "verbs":
        options = config.data.options
        count = min(FRESH_VERBS, options.get("per_class", FRESH_VERBS))
        test = open_data("verbs", **{**options, "split": "test", "per_class": count})
    if not len(test):
        test, parts["val"] = parts["val"], test
    if not len(test):
        raise UserError("nothing is held out to test on: give --by, --fold or --test-group")
    sets = [parts["train"], parts["val"], test]
    total = sum(map(len, sets))
    cells: dict[str, list] = {}
    for videos in sets:
        before = len(cells)
        tell = None if progress is None else partial(_later, progress, before, total)
        cells |= features.of(videos, tell)
    model = _fit(make, parts["train"], cells, config.run.seed)
    if len(parts["val"]):
        found = _scores(model, parts["val"], cells, features)
        found.save(make_folder(out / "test-val") / "scores.npz")
    scores = _scores(model, test, cells, features)
    return save_results(scores, fusion, f"{name} on {absolute(config.data.path)}", out / "test")


def _later(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def cross_validate_baseline(
    name: str,
    config: Config,
    out: str | Path,
    *,
    by: str = "group",
    seeds: Sequence[int] = (0,),
    clips: int = 10,
    fusion: str = "mean_prob",
    cache: str | Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda text: None,
    on_fold: Callable[[int, str, Metrics, bool], None] | None = None,
) -> CrossValidation:
    """Train and test once for each fold and seed, by the folds of `tinyvid.crossval`.

    Finished folds are kept. Arguments and errors are those of `fit_baseline` and of
    `tinyvid.crossval.cross_validate`.
    """
    make, features = _make(name), Features(config, clips, cache)
    if not seeds:
        raise UserError("cross-validation needs at least one seed")
    if config.data.test_group or config.data.fold:
        raise UserError("cross-validation chooses data.test_group and data.fold itself: unset them")
    videos = _opened(config, note)
    folds = fold_names(videos, by)
    out = _claimed(out, name, config, features, by)
    cells: dict[str, list] = {}
    found: dict[tuple[int, str], Scores] = {}
    for seed in seeds:
        for number, fold in enumerate(folds, start=1):
            file = out / fold_folder(seed, number, fold, by) / "test" / "scores.npz"
            before = file.exists()
            if not before:
                cells = cells or features.of(videos, progress)
                parts = split_parts(videos, config_of_fold(config, seed, fold, by), note)
                model = _fit(make, parts["train"], cells, seed)
                for part, place in (("val", "test-val"), ("test", "test")):
                    if len(parts[part]):
                        scores = _scores(model, parts[part], cells, features)
                        scores.save(make_folder(file.parent.parent / place) / "scores.npz")
            scores = Scores.load(file)
            found[seed, fold] = scores
            if on_fold is not None:
                metrics = measure(scores.logits, scores.labels, scores.videos, fusion)
                on_fold(seed, fold, metrics, before)
    return save_crossval(found, out, fusion, name)


def _opened(config: Config, note: Callable[[str], None]) -> VideoSet:
    videos = open_videos(config)
    if videos.skipped:
        note(describe_skipped(videos))
    return videos


def _make(name: str) -> Callable[[], Classifier]:
    if name not in BASELINES:
        raise UserError(
            f"no baseline {name!r}: there is {', '.join(BASELINES)}.{nearest(name, BASELINES)}"
        )
    return BASELINES[name]


def _claimed(out: str | Path, name: str, config: Config, features: Features, by: str) -> Path:
    """Make the folder, or refuse it if it holds other results."""
    data = {**asdict(config.data), "path": absolute(config.data.path)}
    for free in ("workers", "prefetch", "cache", "memory", "strict"):
        del data[free]
    about = {"baseline": name, "by": by, "data": data, "features": features.about()}
    return claim(out, ABOUT, about)


def _fit(
    make: Callable[[], Classifier], videos: VideoSet, cells: dict[str, list], seed: int
) -> Classifier:
    """Train on all clips of these videos."""
    clips = [clip for video in videos.videos for _, clip in cells[video.name]]
    labels = [video.label for video in videos.videos for _ in cells[video.name]]
    model = make()
    model.fit(clips, np.array(labels, dtype=np.int64), len(videos.classes), seed)
    return model


def _scores(
    model: Classifier, videos: VideoSet, cells: dict[str, list], features: Features
) -> Scores:
    """The scores of all clips of these videos."""
    count = [len(cells[video.name]) for video in videos.videos]
    starts, clips = zip(*(clip for v in videos.videos for clip in cells[v.name]), strict=True)
    return Scores(
        model.scores(clips),
        np.repeat(np.array([v.label for v in videos.videos], dtype=np.int64), count),
        np.repeat(np.arange(len(videos), dtype=np.int64), count),
        np.array(starts, dtype=np.float64),
        [video.name for video in videos.videos],
        list(videos.classes),
        features.count,
        1,
    )
