"""No group on both sides, and classes as even as groups allow."""

import numpy as np
import pytest

from tinyvid.data import (
    Video,
    VideoSet,
    assert_no_leak,
    group_folds,
    leave_group_out,
    split_by_group,
)
from tinyvid.errors import UserError


class Named(VideoSet):
    """Videos that are names only."""

    def __init__(self, rows):
        self.classes = sorted({label for label, _ in rows})
        self.skipped = []
        self.videos = [
            Video(f"{i}.mp4", self.classes.index(label), group, f"{i}")
            for i, (label, group) in enumerate(rows)
        ]

    def probe(self, video):
        raise NotImplementedError

    def read(self, video, frames=None, short_side=None):
        raise NotImplementedError


@pytest.fixture
def videos():
    """100 videos of two classes (70 : 30) in 20 groups of unequal size."""
    rng = np.random.default_rng(0)
    groups = rng.choice(20, 100, p=np.linspace(1, 3, 20) / 40)
    return Named([("a" if i % 10 < 7 else "b", f"g{g:02d}") for i, g in enumerate(groups)])


def groups(part):
    return {v.group for v in part.videos}


@pytest.mark.parametrize("seed", range(5))
def test_a_share_is_held_out_in_whole_groups(videos, seed):
    rest, held = split_by_group(videos, 0.3, seed)
    assert not groups(rest) & groups(held)
    assert len(rest) + len(held) == 100
    assert 25 <= len(held) <= 35
    assert 0.55 < held.counts()["a"] / len(held) < 0.85
    assert rest.classes == held.classes == videos.classes
    assert_no_leak(rest, held)


def test_splits_repeat_with_their_seed_and_differ_between_seeds(videos):
    held = [sorted(groups(split_by_group(videos, 0.3, s)[1])) for s in (0, 0, 1, 2, 3)]
    assert held[0] == held[1]
    assert len({tuple(h) for h in held}) > 2


def test_named_groups(videos):
    rest, held = split_by_group(videos, ["g03", "g07"])
    assert groups(held) == {"g03", "g07"}
    assert len(rest) + len(held) == 100
    assert groups(split_by_group(videos, "g03")[1]) == {"g03"}


def test_folds_cover_the_set_once(videos):
    folds = group_folds(videos, 4, seed=3)
    names = [v.name for _, fold in folds for v in fold.videos]
    assert sorted(names) == sorted(v.name for v in videos.videos)
    assert_no_leak(*(fold for _, fold in folds))
    for rest, fold in folds:
        assert_no_leak(rest, fold)
        assert len(rest) + len(fold) == 100
        assert 20 <= len(fold) <= 30
        assert 4 <= fold.counts()["b"] <= 11


def test_as_many_folds_as_groups_leaves_none_empty():
    videos = Named([("a", f"g{i}") for i in range(5)] + [("a", "g0")] * 20)
    assert all(len(fold) for _, fold in group_folds(videos, 5))


def test_a_small_share_of_few_groups_is_one_group():
    videos = Named([("a", f"g{i % 3}") for i in range(30)])
    assert len(split_by_group(videos, 0.02)[1]) == 10
    assert len(split_by_group(videos, 0.98)[0]) == 10


def test_leave_one_group_out(videos):
    found = list(leave_group_out(videos))
    assert [g for g, _, _ in found] == sorted(groups(videos))
    for group, rest, held in found:
        assert groups(held) == {group}
        assert len(rest) + len(held) == 100


def test_a_leak_is_found(videos):
    with pytest.raises(UserError, match=r"group 'g.*' is in part 0 and in part 1"):
        assert_no_leak(videos.subset(range(50)), videos.subset(range(50, 100)))
    same = [Video("x.mp4", 0, g, g) for g in ("p", "q")]
    parts = [videos.subset([]), videos.subset([])]
    for part, video in zip(parts, same, strict=True):
        part.videos = [video]
    with pytest.raises(UserError, match=r"path 'x\.mp4'"):
        assert_no_leak(*parts)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda v: split_by_group(v, 1.0), "between 0 and 1"),
        (lambda v: split_by_group(v, ["g3"]), "no group 'g3'.*Did you mean 'g"),
        (lambda v: split_by_group(v, "g03,g07"), "by itself, --test-group g03 --test-group g07$"),
        (lambda v: split_by_group(v, "g03,g77"), "it has g00, g01, .* and 12 more"),
        (lambda v: split_by_group(v, []), "not none and not all"),
        (lambda v: split_by_group(v, sorted(groups(v))), "not none and not all"),
        (lambda v: group_folds(v, 1), "at least 2 folds"),
        (lambda v: group_folds(v, 21), "at least 21 groups and the data has 20"),
    ],
)
def test_impossible_splits(videos, split, message):
    with pytest.raises(UserError, match=message):
        split(videos)
    alone = Named([("a", "a/anna_0.mp4"), ("b", "b/anna_0.mp4")])
    with pytest.raises(UserError, match=r"no group 'anna'.* sub-folders of its classes, .* CSV"):
        split_by_group(alone, ["anna"])
    one = Named([("a", "g"), ("b", "g")])
    with pytest.raises(UserError, match="at least 2 groups"):
        list(leave_group_out(one))
