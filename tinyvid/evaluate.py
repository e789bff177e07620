"""Testing: several clips of each video, their scores fused, and what is reported of them.

Scores of clips are computed once and saved; fusions and metrics are computed from them.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import tinyvid
from tinyvid.checkpoint import write_atomically
from tinyvid.config import Config
from tinyvid.data import ClipLoader, VideoSet, open_data
from tinyvid.data.official import find_files, split_spec
from tinyvid.data.sets import absolute
from tinyvid.errors import UserError
from tinyvid.inputs import as_input, clip_spec, numbers
from tinyvid.metrics import FUSIONS, Metrics, fuse, measure, rank_of_label
from tinyvid.report import plot_confusion
from tinyvid.runs import Run, data_name, make_folder, read_json, write_csv, write_json

if TYPE_CHECKING:
    from tinyvid import nn

BATCH = 16  # clips of a forward pass in testing; no result depends on it but for rounding

FRESH = "fresh"  # verbs of the test split, where a run held no videos out

FRESH_VERBS = 25  # test videos of each verb, at most


@dataclass
class Scores:
    """What a network says of each clip.

    Attributes:
        logits: float32 `(clips, classes)`.
        labels: int64 `(clips,)`, the class of the clip's video.
        videos: int64 `(clips,)`, an index into `names`.
        starts: float64 `(clips,)`, when the clip starts, in seconds.
        names: the videos. classes: the classes.
        clips, crops: how many there are of each video, where known; their product is the number
            of rows of each.
    """

    logits: np.ndarray
    labels: np.ndarray
    videos: np.ndarray
    starts: np.ndarray
    names: list[str]
    classes: list[str]
    clips: int | None = None
    crops: int | None = None

    def save(self, path: str | Path) -> None:
        """Write all of it as .npz, atomically, without pickle."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            logits=self.logits,
            labels=self.labels,
            videos=self.videos,
            starts=self.starts,
            names=np.array(self.names, dtype=np.str_),
            classes=np.array(self.classes, dtype=np.str_),
            clips=np.int64(self.clips or 0),
            crops=np.int64(self.crops or 0),
        )
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged, or holds something else.
        """
        try:
            with open(path, "rb") as bare, np.load(bare, allow_pickle=False) as file:
                return cls(
                    file["logits"],
                    file["labels"],
                    file["videos"],
                    file["starts"],
                    file["names"].tolist(),
                    file["classes"].tolist(),
                    int(file.get("clips", 0)) or None,
                    int(file.get("crops", 0)) or None,
                )
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist: test the run once to make it") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} holds no scores, or is damaged: {error}") from error


def score(
    model: nn.Module,
    videos: VideoSet,
    config: Config,
    *,
    clips: int = 10,
    crops: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Return the network's scores of `clips` evenly spread clips of each video.

    Args:
        model: from N C T H W to logits; it is run in evaluation mode.
        config: that of the run: clip, normalisation, decoding.
        crops: 1, the centre; or 3 along the longer side, each a clip of its own.
        progress: called with (clips done, clips in all) after each batch.
    """
    if clips < 1:
        raise UserError(f"clips={clips}: a test needs at least 1 clip of each video")
    loader = ClipLoader(
        as_input(config, videos),
        clip_spec(config),
        batch_size=BATCH,
        train=False,
        clips_per_video=clips,
        crops=crops,
        workers=config.data.workers,
        prefetch=config.data.prefetch,
        cache=config.data.cache,
    )
    model.eval()
    device = next((p.device for p in model.parameters()), None)
    total = len(videos) * clips * crops
    parts, done = [], 0
    with tinyvid.no_grad():
        for batch in loader.epoch(0):
            x = tinyvid.tensor(numbers(config, batch.clips), device=device)
            logits = model(x).numpy()
            parts.append((logits, batch.labels, batch.videos, batch.starts))
            done += len(batch.labels)
            if progress is not None:
                progress(done, total)
    logits, labels, owners, starts = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = [video.name for video in videos.videos]
    return Scores(logits, labels, owners, starts, names, list(videos.classes), clips, crops)


def open_videos(
    config: Config,
    path: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VideoSet:
    """Open the data that the config names, or `path` in its place.

    `progress` is called with (files looked into, files in all) after each.
    """
    data = config.data
    options = dict(data.options) if path is None or _same(path, data.path) else {}
    path = path or data.path
    if path != "verbs":
        options = {"workers": data.workers, "cache": data.cache, **options}
    return open_data(path, strict=data.strict, progress=progress, **options)


def _same(path: str, other: str) -> bool:
    """Whether two names of data mean the same."""
    return absolute(path) == absolute(other)


def videos_to_test(
    run: Run,
    *,
    part: str | None = None,
    data: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[VideoSet, str]:
    """Return the videos to test a run on, and what to call them.

    Args:
        part: train, val or test; by default test where the run held videos out, else val. The
            synthetic verbs have a test split of their own, of other shapes and textures.
        data: other data, all of it, in place of a part; its classes must be among the run's.
        progress: as in `open_videos`.

    Raises:
        UserError: the part is empty, or the data has a class that the run does not know.
    """
    what, name = name_tested(run, part, data)
    if data is not None:
        return _relabelled(open_videos(run.config, data, progress), run, data), name
    if what == FRESH:
        options = run.config.data.options
        count = min(FRESH_VERBS, options.get("per_class", FRESH_VERBS))
        return open_data("verbs", **{**options, "split": "test", "per_class": count}), name
    return run.part(open_videos(run.config, progress=progress), what), name


def name_tested(run: Run, part: str | None, data: str | None) -> tuple[str, str]:
    """Return in a word, and in full, what `videos_to_test` tests; raises as that does."""
    if data is not None:
        if part is not None:
            raise UserError(f"--part {part} is a part of the run's own data: leave out --data")
        return data_name(data), absolute(data)
    own = run.config.data.path
    if own == "verbs" and not run.split["test"] and part in (None, "test"):
        return FRESH, "the test split of verbs"
    what = part or next((p for p in ("test", "val") if run.split[p]), "test")
    if what not in run.split:
        raise UserError(f"part {what!r}: a run has the parts {', '.join(run.split)}")
    if not run.split[what]:
        held = [f"{p} ({len(v)})" for p, v in run.split.items() if v]
        if not held:
            raise UserError(f"{run.path} was not trained here: give the videos with --data")
        raise UserError(
            f"{run.path} has no videos in part {what!r}, it has {', '.join(held)}: choose one with "
            "--part, or test on other videos with --data"
        )
    return what, f"part {what!r} of {own}"


def count_trained(run: Run, videos: VideoSet) -> int:
    """Return how many of the videos the run was trained on."""
    names = run.split["train"]
    official, own = split_spec(run.config.data.path)
    if str(own) == "verbs":
        return len({video.path for video in videos.videos}.intersection(names))
    root = own if own.is_dir() else own.parent
    files = find_files(names, own).values() if official else [root / name for name in names]
    trained = {file.resolve() for file in files}
    return sum(Path(video.path).resolve() in trained for video in videos.videos)


def result_folder(
    run: Run, title: str, *, what: str = "test", weights: str = "", fusion: str = "mean_prob"
) -> Path:
    """Return the folder in the run's for the results of a test: none has those of another.

    Args:
        title: says what was tested, as `save_results` keeps it.
        what, weights: a word for the tested videos, and for weights that are not the best.
    """
    words = ["" if what in ("test", FRESH) else what, weights]
    words.append("" if fusion == "mean_prob" else fusion)
    base = "-".join(["test", *filter(None, words)])
    for number in itertools.count(1):
        folder = run.path / (base if number == 1 else f"{base}-{number}")
        about = folder / "metrics.json"
        if not about.exists() or read_json(about).get("of") == title:
            return folder
    raise AssertionError("numbers do not end")


def latest_scores(run: Run, title: str, *, what: str, weights: str) -> Path:
    """Return the newest scores of such a test, however they were fused then."""
    words = {"what": what, "weights": weights}
    folders = [result_folder(run, title, **words, fusion=fusion) for fusion in FUSIONS]
    found = [file for folder in folders if (file := folder / "scores.npz").exists()]
    newest = max(found, key=lambda file: file.stat().st_mtime_ns, default=None)
    return newest or result_folder(run, title, **words) / "scores.npz"


def save_results(scores: Scores, fusion: str, title: str, folder: str | Path) -> Metrics:
    """Compute the metrics and write all results into `folder`; return the metrics.

    Writes scores.npz, videos.csv (a row for each video), confusion.csv, confusion.png and
    metrics.json.
    """
    folder = make_folder(folder)
    metrics = measure(scores.logits, scores.labels, scores.videos, fusion)
    scores.save(folder / "scores.npz")
    write_csv(folder / "videos.csv", video_rows(scores, fusion))
    rows = [
        {"true class": name, **dict(zip(scores.classes, map(int, counts), strict=True))}
        for name, counts in zip(scores.classes, metrics.confusion, strict=True)
    ]
    write_csv(folder / "confusion.csv", rows)
    shown = f"{title}: Video Hit@1 {metrics.video_hit_1:.1%}"
    plot_confusion(metrics.confusion, scores.classes, folder / "confusion.png", shown)
    about = {
        "of": title,
        "clips": metrics.clips,
        "videos": metrics.videos,
        "clips_per_video": scores.clips,
        "crops": scores.crops,
        "fusion": metrics.fusion,
        "clip_hit_1": metrics.clip_hit_1,
        "video_hit_1": metrics.video_hit_1,
        "video_hit_1_interval_95": list(metrics.interval),
        "video_hit_5": hit_5(metrics),
        "mean_class_accuracy": metrics.mean_class,
    }
    write_json(folder / "metrics.json", about)
    return metrics


def hit_5(metrics: Metrics) -> float | None:
    """Return Video Hit@5; None with fewer than 5 classes, where it would mean nothing."""
    return metrics.video_hit_k if metrics.k == 5 else None


def video_rows(scores: Scores, fusion: str) -> list[dict[str, object]]:
    """Return a row for each video: its name, true and predicted class, and what was given."""
    fused = fuse(scores.logits, scores.videos, fusion)
    order, first, count = np.unique(scores.videos, return_index=True, return_counts=True)
    labels = scores.labels[first]
    ranks = rank_of_label(fused, labels)
    return [
        {
            "video": scores.names[video],
            "label": scores.classes[labels[i]],
            "predicted": scores.classes[int(fused[i].argmax())],
            "right": int(ranks[i] == 0),
            "rank": int(ranks[i]) + 1,
            "probability": round(float(fused[i].max()), 4),
            "clips": int(count[i]),
        }
        for i, video in enumerate(order)
    ]


def _relabelled(videos: VideoSet, run: Run, data: str) -> VideoSet:
    """Return the videos with the labels that the run's classes have by name."""
    unknown = [name for name in videos.classes if name not in run.classes]
    if unknown:
        raise UserError(
            f"{data} has a class {unknown[0]!r} that {run.path} was not trained on; "
            f"it knows {', '.join(run.classes)}"
        )
    renamed = videos.subset(range(len(videos)))
    label = [run.classes.index(name) for name in videos.classes]
    renamed.videos = [replace(v, label=label[v.label]) for v in renamed.videos]
    renamed.classes = list(run.classes)
    return renamed
