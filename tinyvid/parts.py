"""The parts of a training's videos: what trains, what validates, what tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tinyvid.config import Config
from tinyvid.data import VideoSet, group_folds, official_fold, split_by_group
from tinyvid.data.sets import listed
from tinyvid.errors import UserError

MOST_VALIDATION = 1 / 3  # of the training videos, unless a larger share was asked for


def split_parts(
    videos: VideoSet, config: Config, note: Callable[[str], None] = lambda text: None
) -> dict[str, VideoSet]:
    """Split the videos into the parts train, val and test; no group is in two of them.

    The test part is `data.test_group` or `data.fold`, an official one where the set has them; of
    the rest, a share of
    `data.val_fraction` validates, in whole groups. Where these are so large that they would take
    more than a third of the videos away from training, nothing validates. The folds do not depend
    on `run.seed`, so that runs of several seeds are tested on the same videos; the validation part
    does. `note` is called with what the user should know.

    Raises:
        UserError: a group does not exist, a part would be empty, or both are given.
    """
    data = config.data
    train, test = videos, videos.subset([])
    if data.test_group and data.fold:
        raise UserError("data.test_group and data.fold both name the test videos: give one")
    if data.test_group:
        train, test = split_by_group(videos, data.test_group)
    elif data.fold:
        k, folds = _parse_fold(data.fold)
        if videos.folds and folds != len(videos.folds):
            raise UserError(
                f"data.fold = {data.fold!r}: {videos.source} has {len(videos.folds)} official "
                f"folds: write {k}/{len(videos.folds)}"
            )
        train, test = (
            official_fold(videos, k) if videos.folds else group_folds(videos, folds)[k - 1]
        )
    train, val = _split_validation(train, data.val_fraction, config.run.seed, note)
    absent = [name for name, count in train.counts().items() if not count]
    if absent:
        raise UserError(
            f"class {absent[0]!r} has no video left to train on: hold out fewer groups, "
            "or train on all the rest with --val-fraction 0"
        )
    return {"train": train, "val": val, "test": test}


def _split_validation(
    videos: VideoSet, fraction: float, seed: int, note: Callable[[str], None]
) -> tuple[VideoSet, VideoSet]:
    """Return what trains and what validates; the latter is empty where groups are too large."""
    none = videos.subset([])
    if not fraction:
        return videos, none
    if len({v.group for v in videos.videos}) < 2:
        note("all training videos are of one group: nothing is left to validate with")
        return videos, none
    train, val = split_by_group(videos, fraction, seed=seed)
    taken = f"validation takes whole groups, {len(val)} of {len(videos)} videos{_named(val)}"
    if len(val) > max(MOST_VALIDATION, 1.5 * fraction) * len(videos):
        note(
            f"{taken}, which leaves too few: nothing validates, and the last epoch counts as "
            "best; --val-fraction 0.5 validates all the same"
        )
        return videos, none
    if len(val) > 1.25 * fraction * len(videos) + 1:
        note(f"{taken}; --val-fraction 0 trains on all")
    return train, val


def describe_parts(parts: Mapping[str, VideoSet]) -> str:
    """Return the sizes of the parts, such as "videos 6 train (ben, carla), 3 test (anna)"."""
    sizes = [f"{len(part)} {name}{_named(part)}" for name, part in parts.items() if len(part)]
    return f"videos {', '.join(sizes)}"


def _named(part: VideoSet) -> str:
    """The groups of a part in brackets; nothing where each video is one."""
    groups = {v.group for v in part.videos}
    return f" ({listed(groups)})" if len(groups) < len(part) else ""


def _parse_fold(text: str) -> tuple[int, int]:
    k, _, folds = text.partition("/")
    if not (k.isdecimal() and folds.isdecimal() and 1 <= int(k) <= int(folds)):
        raise UserError(f"data.fold = {text!r}: write 'k/K', such as 1/5 for the first of five")
    return int(k), int(folds)
