"""The parts of a training's videos: whole groups, and not too many of them to validate with."""

import pytest

from tinyvid.config import Config, load_config
from tinyvid.data import Video, open_data
from tinyvid.errors import UserError
from tinyvid.parts import describe_parts, split_parts


def people(videos, *sizes):
    """Let the first videos be of person a, the next of b, as many as `sizes` says."""
    who = "".join(name * size for name, size in zip("abcdefgh", sizes, strict=False))
    some = videos.subset(range(len(who)))
    some.videos = [Video(v.path, v.label, g, v.name) for v, g in zip(some.videos, who, strict=True)]
    return some


def test_no_group_is_in_two_parts():
    videos = open_data("verbs", per_class=6, frames=8, size=16)
    for overrides in (["data.fold=2/3"], ["data.test_group=verbs/train/000003"], []):
        config = load_config(overrides=overrides)
        parts = split_parts(videos, config)
        groups = [{v.group for v in part.videos} for part in parts.values()]
        assert sum(map(len, groups)) == len(set.union(*groups)) == len(videos)
        assert bool(parts["test"]) == bool(overrides)
        assert len(parts["val"]) > 0


def test_folds_do_not_depend_on_the_seed():
    videos = open_data("verbs", per_class=6, frames=8, size=16)
    names = [
        [v.name for v in split_parts(videos, load_config(overrides=o))["test"].videos]
        for o in (
            ["data.fold=1/3", "run.seed=1"],
            ["data.fold=1/3", "run.seed=2"],
            ["data.fold=2/3"],
        )
    ]
    assert names[0] == names[1]
    assert not set(names[0]) & set(names[2])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.test_group=verbs/train/00000x"], r"no group 'verbs/train/00000x'.*Did you mean"),
        (["data.test_group=a", "data.fold=1/2"], "give one"),
        (["data.fold=3/2"], r"data\.fold = '3/2': write 'k/K'"),
        (["data.fold=0/2"], "write 'k/K'"),
        (["data.fold=x"], "write 'k/K'"),
        (["data.fold=1/100"], "at least 100 groups"),
        (['data.test_group=["verbs/train/000000", "verbs/train/000008"]'], "class 'move_left' has"),
    ],
)
def test_impossible_splits(overrides, message):
    videos = open_data("verbs", per_class=2, frames=8, size=16)
    with pytest.raises(UserError, match=message):
        split_parts(videos, load_config(overrides=["data.val_fraction=0", *overrides]))


def test_one_group_alone_cannot_validate():
    videos = open_data("verbs", per_class=1, frames=8, size=16, classes=["grow"])
    told = []
    parts = split_parts(videos, Config(), told.append)
    assert len(parts["val"]) == 0
    assert told == ["all training videos are of one group: nothing is left to validate with"]


def test_a_group_too_large_does_not_validate():
    videos = people(open_data("verbs", per_class=4), 8, 8, 8)
    told = []
    parts = split_parts(videos, load_config(overrides=["data.test_group=a"]), told.append)
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "val": 0, "test": 8}
    (note,) = told
    assert note.startswith("validation takes whole groups, 8 of 16 videos (")
    assert "nothing validates, and the last epoch counts as best; --val-fraction 0.5" in note
    told.clear()
    asked = load_config(overrides=["data.test_group=a", "data.val_fraction=0.5"])
    assert len(split_parts(videos, asked, told.append)["val"]) == 8
    assert told == []


def test_a_group_larger_than_asked_for_is_told():
    videos = people(open_data("verbs", per_class=4), 8, 8, 8)
    told = []
    parts = split_parts(videos, load_config(overrides=["data.val_fraction=0.2"]), told.append)
    assert len(parts["val"]) == 8
    (group,) = {v.group for v in parts["val"].videos}
    assert told == [
        f"validation takes whole groups, 8 of 24 videos ({group}); --val-fraction 0 trains on all"
    ]


def test_the_groups_of_each_part_are_named():
    videos = people(open_data("verbs", per_class=4), 8, 8, 8)
    parts = split_parts(videos, load_config(overrides=["data.test_group=b", "data.val_fraction=0"]))
    assert describe_parts(parts) == "videos 16 train (a, c), 8 test (b)"
    alone = split_parts(open_data("verbs", per_class=6), load_config(overrides=["data.fold=1/2"]))
    assert describe_parts(alone) == "videos 23 train, 1 val, 24 test"
