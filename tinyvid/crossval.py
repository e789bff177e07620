"""Cross-validation: every group is tested by a network that has never seen it.

Each fold of each seed is a run of its own, in its own folder, that `tinyvid train` could have
made; finished ones are kept, so that a cross-validation that was stopped goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

from tinyvid.config import Config, load_config
from tinyvid.data import VideoSet
from tinyvid.errors import UserError
from tinyvid.evaluate import Scores, open_videos, save_results, score
from tinyvid.folds import CrossValidation, fold_folder, save_crossval
from tinyvid.metrics import Metrics, measure
from tinyvid.runs import Run, make_folder, resolved
from tinyvid.train import Listener, check_same_config, fit

MOST_FOLDS = 50  # with more, leaving out one group at a time is rarely meant


def cross_validate(
    config: Config,
    out: str | Path,
    *,
    by: str = "group",
    seeds: Sequence[int] = (0, 1, 2),
    clips: int = 10,
    crops: int = 1,
    fusion: str = "mean_prob",
    videos: VideoSet | None = None,
    listener: Listener | None = None,
    on_fold: Callable[[int, str, Metrics, bool], None] | None = None,
) -> CrossValidation:
    """Train and test once for each fold and seed; keep the runs in `out/seed<s>-fold<k>…`.

    What else is kept there, `tinyvid.folds` says; the validation part of a fold, if it has one, is
    scored too, since it is what a fusion may learn from.

    Args:
        config: of every run; its seed and test part are set for each.
        by: "group", which leaves out one group at a time; or a number k of folds of whole groups.
        clips, crops, fusion: of the tests; see `tinyvid.evaluate.score`.
        videos: the data, where it is open already; by default `config.data.path` is opened.
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
    opened = videos is None
    if videos is None:
        videos = open_videos(config, progress=listener.reading)
    folds = fold_names(videos, by)
    _check_folder(Path(out), config, by)
    if opened:
        listener.opened(videos)
    listener.folds(folds, seeds)
    out = make_folder(out)
    found: dict[tuple[int, str], Scores] = {}
    for seed in seeds:
        for number, fold in enumerate(folds, start=1):
            one = config_of_fold(config, seed, fold, by)
            folder = out / fold_folder(seed, number, fold, by)
            before = (folder / "test" / "scores.npz").exists()
            scores = _run_fold(one, folder, videos, clips, crops, fusion, listener)
            found[seed, fold] = scores
            if on_fold is not None:
                metrics = measure(scores.logits, scores.labels, scores.videos, fusion)
                on_fold(seed, fold, metrics, before)
    return save_crossval(found, out, fusion, config.model.name)


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


def config_of_fold(config: Config, seed: int, fold: str, by: str) -> Config:
    """Return the config of the run that is tested on `fold`."""
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
    title = f"{config.model.name}, fold {folder.name}"
    for part, place in (("val", "test-val"), ("test", "test")):  # the last one says: finished
        if result.run.split[part]:
            tested = result.run.part(videos, part)
            scores = score(result.model, tested, config, clips=clips, crops=crops)
            save_results(scores, fusion, f"{title}, {part}", folder / place)
    return scores
