"""Cross-validation: every group is tested by a network that has never seen it.

Each fold of each seed is a run of its own, in its own folder, that `tinyvid train` could have
made; finished ones are kept, so that a cross-validation that was stopped goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyvid.config import Config, load_config
from tinyvid.data import VideoSet
from tinyvid.errors import UserError
from tinyvid.evaluate import Scores, hit_5, open_videos, save_results, score
from tinyvid.metrics import Metrics, measure
from tinyvid.report import plot_confusion
from tinyvid.runs import Run, make_folder, resolved, write_csv
from tinyvid.train import Listener, check_same_config, fit

MOST_FOLDS = 50  # with more, leaving out one group at a time is rarely meant


@dataclass
class CrossValidation:
    """The result: metrics of each fold of each seed.

    Attributes:
        folds: names of the folds. seeds: the seeds.
        metrics: by (seed, fold).
        pooled: by seed: all folds' clips together, so that every video counts once.
        majority: the share of the most frequent class: what a network scores that always
            answers with it.
    """

    folds: list[str]
    seeds: list[int]
    metrics: dict[tuple[int, str], Metrics]
    pooled: dict[int, Metrics]
    majority: float

    def mean(self) -> float:
        """The mean of the seeds' Video Hit@1."""
        return float(np.mean([m.video_hit_1 for m in self.pooled.values()]))

    def spread(self) -> float:
        """The standard deviation of the seeds' Video Hit@1 (n - 1); NaN for one seed."""
        hits = [m.video_hit_1 for m in self.pooled.values()]
        return float(np.std(hits, ddof=1)) if len(hits) > 1 else float("nan")


def cross_validate(
    config: Config,
    out: str | Path,
    *,
    by: str = "group",
    seeds: Sequence[int] = (0, 1, 2),
    clips: int = 10,
    crops: int = 1,
    fusion: str = "mean_prob",
    listener: Listener | None = None,
    on_fold: Callable[[int, str, Metrics, bool], None] | None = None,
) -> CrossValidation:
    """Train and test once for each fold and seed; keep the runs in `out/seed<s>-fold<k>…`.

    Args:
        config: of every run; its seed and test part are set for each.
        by: "group", which leaves out one group at a time; or a number k of folds of whole groups.
        clips, crops, fusion: of the tests; see `tinyvid.evaluate.score`.
        on_fold: called with (seed, fold, metrics, whether it was finished before).

    Raises:
        UserError: as `fit`; or a fold in `out` was made with another config, of other data, or
            by other folds; or there are more than 50 groups to leave out one by one.
    """
    if not seeds:
        raise UserError("cross-validation needs at least one seed")
    if config.data.test_group or config.data.fold:
        raise UserError("cross-validation chooses data.test_group and data.fold itself: unset them")
    config = resolved(config)
    listener = listener or Listener()
    videos = open_videos(config, progress=listener.reading)
    folds = fold_names(videos, by)
    _check_folder(Path(out), config, by)
    listener.opened(videos)
    listener.folds(folds, seeds)
    out = make_folder(out)
    metrics: dict[tuple[int, str], Metrics] = {}
    pooled: dict[int, Metrics] = {}
    rows: list[dict[str, object]] = []
    for seed in seeds:
        parts = []
        for number, fold in enumerate(folds, start=1):
            one = _of_fold(config, seed, fold, by)
            folder = out / _folder_name(seed, number, fold, by)
            before = (folder / "test" / "scores.npz").exists()
            scores = _run_fold(one, folder, videos, clips, crops, fusion, listener)
            parts.append(scores)
            found = measure(scores.logits, scores.labels, scores.videos, fusion)
            metrics[seed, fold] = found
            rows.append(_row(seed, fold, found))
            if on_fold is not None:
                on_fold(seed, fold, found, before)
        together = _together(parts)
        pooled[seed] = measure(together.logits, together.labels, together.videos, fusion)
        rows.append(_row(seed, "all", pooled[seed]))
    write_csv(out / "crossval.csv", rows)
    counts = np.array(list(videos.counts().values()))
    result = CrossValidation(folds, list(seeds), metrics, pooled, counts.max() / counts.sum())
    confusion = np.sum([m.confusion for m in pooled.values()], axis=0)
    named = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    title = f"{config.model.name}: Video Hit@1 {result.mean():.1%}, {named}"
    plot_confusion(confusion, videos.classes, out / "confusion.png", title)
    return result


def fold_names(videos: VideoSet, by: str) -> list[str]:
    """Return the groups, or "1/k" … "k/k"."""
    groups = sorted({video.group for video in videos.videos})
    if by == "group":
        if len(groups) < 2:
            raise UserError(f"the data has one group, {groups[0]!r}: none can be left out")
        if len(groups) > MOST_FOLDS:
            raise UserError(
                f"by='group' leaves out each of {len(groups)} groups, which takes as many "
                "trainings for a seed: give a number of folds, such as --by 5"
            )
        return groups
    if not by.isdecimal() or not 2 <= int(by) <= len(groups):
        raise UserError(f"by={by!r}: give 'group', or a number of folds from 2 to {len(groups)}")
    return [f"{k + 1}/{by}" for k in range(int(by))]


def _check_folder(out: Path, config: Config, by: str) -> None:
    """Refuse a folder with the runs of another cross-validation, which would mix with this one."""
    for file in sorted(out.glob("seed*-fold*/config.toml")):
        there = load_config(file).data
        parts = there.fold.partition("/")[2] or "group"
        if (there.path, parts) != (config.data.path, by):
            raise UserError(
                f"{out} holds a cross-validation of {there.path} by {parts}, not of "
                f"{config.data.path} by {by}: choose another --out"
            )


def _of_fold(config: Config, seed: int, fold: str, by: str) -> Config:
    one = copy.deepcopy(config)
    one.run.seed = seed
    if by == "group":
        one.data.test_group = [fold]
    else:
        one.data.fold = fold
    return one


def _run_fold(
    config: Config,
    folder: Path,
    videos: VideoSet,
    clips: int,
    crops: int,
    fusion: str,
    listener: Listener,
) -> Scores:
    """Return the test scores of a fold, trained now or found finished."""
    saved = folder / "test" / "scores.npz"
    if saved.exists():
        check_same_config(Run.open(folder).config, config, folder)
        scores = Scores.load(saved)
        if (scores.clips, scores.crops) == (clips, crops):
            return scores
    began = (folder / "config.toml").exists()
    result = fit(config, folder, videos=videos, resume=began, listener=listener)
    part = result.run.part(videos, "test")
    scores = score(result.model, part, config, clips=clips, crops=crops)
    save_results(scores, fusion, f"{config.model.name}, fold {folder.name}", saved.parent)
    return scores


def _together(parts: list[Scores]) -> Scores:
    """Put the clips of several folds together; no video is in two of them."""
    offsets = np.cumsum([0] + [len(p.names) for p in parts[:-1]])
    return Scores(
        np.concatenate([p.logits for p in parts]),
        np.concatenate([p.labels for p in parts]),
        np.concatenate([p.videos + o for p, o in zip(parts, offsets, strict=True)]),
        np.concatenate([p.starts for p in parts]),
        [name for p in parts for name in p.names],
        parts[0].classes,
        parts[0].clips,
        parts[0].crops,
    )


def _row(seed: int, fold: str, m: Metrics) -> dict[str, object]:
    hit_at_5 = hit_5(m)
    return {
        "seed": seed,
        "fold": fold,
        "videos": m.videos,
        "clip_hit_1": round(m.clip_hit_1, 6),
        "video_hit_1": round(m.video_hit_1, 6),
        "video_hit_5": None if hit_at_5 is None else round(hit_at_5, 6),
        "mean_class_accuracy": round(m.mean_class, 6),
    }


def _folder_name(seed: int, number: int, fold: str, by: str) -> str:
    name = f"seed{seed}-fold{number}"
    if by != "group":
        return name
    return f"{name}-{''.join(c if c.isalnum() or c in '._-' else '_' for c in fold)}"
