"""Splits of a VideoSet that no group can leak through.

A group is what must not be on both sides: a person, a recording, a source film. Two clips of
one recording share its room, light and clothes, and a network tested on what it has seen knows
them by heart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tinyvid.data.sets import VideoSet, listed
from tinyvid.errors import UserError, nearest


def split_by_group(
    videos: VideoSet, held_out: float | Sequence[str] = 0.2, seed: int = 0
) -> tuple[VideoSet, VideoSet]:
    """Split into (rest, held out), each group whole on one side.

    `held_out` is the share of the videos to hold out, met as well as whole groups of the same
    mixture of classes allow; or the names of the groups. Raises UserError if a side is empty or
    a named group does not exist.
    """
    if isinstance(held_out, (int, float)):
        if not 0 < held_out < 1:
            raise UserError(f"the share to hold out must lie between 0 and 1, not {held_out}")
        side = _assign(videos, [1 - held_out, held_out], seed)
        held = {g for g, s in side.items() if s == 1}
    else:
        names = [held_out] if isinstance(held_out, str) else list(held_out)
        known = {v.group for v in videos.videos}
        for name in names:
            if name not in known:
                raise UserError(f"no group {name!r} in the data: {_known_groups(videos, name)}")
        held = set(names)
        if not held or held == known:
            raise UserError("the groups held out must be some of the groups, not none and not all")
    return _part(videos, held)


def leave_group_out(videos: VideoSet) -> Iterator[tuple[str, VideoSet, VideoSet]]:
    """Yield (group, rest, that group alone) for every group in alphabetical order."""
    for group in _groups(videos, 2):
        yield group, *_part(videos, {group})


def group_folds(videos: VideoSet, k: int, seed: int = 0) -> list[tuple[VideoSet, VideoSet]]:
    """Return k pairs (rest, fold): folds are disjoint, cover the set, and hold whole groups.

    They are as equal in size and in classes as the groups allow. Raises UserError with fewer
    groups than folds.
    """
    if k < 2:
        raise UserError(f"cross-validation needs at least 2 folds, not {k}")
    fold_of = _assign(videos, [1 / k] * k, seed)
    return [_part(videos, {g for g, f in fold_of.items() if f == i}) for i in range(k)]


def official_fold(videos: VideoSet, k: int) -> tuple[VideoSet, VideoSet]:
    """Return what trains and what tests in the k-th official fold, from 1, of a set that has them.

    Raises UserError if there is no such fold, or none of its videos is there.
    """
    if not 1 <= k <= len(videos.folds):
        raise UserError(f"{videos.source} has {len(videos.folds)} official folds, and no {k}th")
    sides = []
    for what, names in zip(("train", "test"), videos.folds[k - 1], strict=True):
        side = videos.subset(i for i, video in enumerate(videos.videos) if video.name in names)
        if not side.videos:
            raise UserError(
                f"{videos.source}: none of the {len(names)} videos that {what} in fold {k} is there"
            )
        sides.append(side)
    return sides[0], sides[1]


def assert_no_leak(*parts: VideoSet) -> None:
    """Raise UserError if a group, or a video, is in more than one of `parts`."""
    for what in ("group", "path"):
        seen: dict[str, int] = {}
        for number, part in enumerate(parts):
            for name in {getattr(v, what) for v in part.videos}:
                if name in seen:
                    raise UserError(
                        f"{what} {name!r} is in part {seen[name]} and in part {number} of the "
                        f"split: a test on it would be a test on what was trained on"
                    )
                seen[name] = number


def _known_groups(videos: VideoSet, name: str) -> str:
    """What to do instead of naming the group `name`, which there is not."""
    known = {v.group for v in videos.videos}
    several = [part.strip() for part in name.split(",")]
    if len(several) > 1 and known.issuperset(several):
        return "name each group by itself, " + " ".join(f"--test-group {g}" for g in several)
    found = f"it has {listed(known)}.{nearest(name, known)}"
    if len(known) == len(videos):
        found += (
            " Each video is a group of its own: the groups of a folder are the sub-folders of its "
            "classes, left/anna/0.mp4; or name them in a CSV of path,label,group"
        )
    return found


def _groups(videos: VideoSet, at_least: int) -> list[str]:
    groups = sorted({v.group for v in videos.videos})
    if len(groups) < at_least:
        raise UserError(
            f"this split needs at least {at_least} groups and the data has {len(groups)} "
            f"({listed(groups)}): use fewer folds, or give the videos more groups"
        )
    return groups


def _part(videos: VideoSet, held: set[str]) -> tuple[VideoSet, VideoSet]:
    inside = np.array([v.group in held for v in videos.videos])
    return videos.subset(np.flatnonzero(~inside)), videos.subset(np.flatnonzero(inside))


def _assign(videos: VideoSet, shares: list[float], seed: int) -> dict[str, int]:
    """Give each group to one of the parts so that part p gets about shares[p] of each class.

    Greedy: the groups come in random order, large ones early, and each goes where it most lowers
    the squared distance to the wanted counts; no part stays empty.
    """
    groups = _groups(videos, len(shares))
    rng = np.random.default_rng(seed)
    counts = {g: np.zeros(len(videos.classes)) for g in groups}
    for v in videos.videos:
        counts[v.group][v.label] += 1
    total = sum(counts.values(), np.zeros(len(videos.classes)))
    wanted = np.outer(shares, total)  # (parts, classes)
    have = np.zeros_like(wanted)
    weight = 1 / np.maximum(total, 1)  # a rare class counts as much as a frequent one
    empty = set(range(len(shares)))
    part_of: dict[str, int] = {}
    rank = {g: counts[g].sum() * rng.uniform(0.5, 2) for g in groups}
    for done, g in enumerate(sorted(groups, key=lambda g: -rank[g])):
        must_fill = len(groups) - done == len(empty)
        parts = sorted(empty) if must_fill else range(len(shares))
        gain = {
            p: (
                weight * ((have[p] + counts[g] - wanted[p]) ** 2 - (have[p] - wanted[p]) ** 2)
            ).sum()
            for p in parts
        }
        part = min(gain, key=lambda p: gain[p])
        part_of[g] = part
        have[part] += counts[g]
        empty.discard(part)
    return part_of
