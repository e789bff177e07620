"""Official lists: their folds, groups and classes, and what of them is there."""

from pathlib import Path

import pytest
from video_files import numbered, write_video

from tinyvid.config import load_config
from tinyvid.data import VideoError, assert_no_leak, official_fold, open_data
from tinyvid.data.official import read_lists
from tinyvid.data.sets import absolute
from tinyvid.errors import UserError
from tinyvid.parts import split_parts

LISTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "splits"
real = pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not here")


@real
def test_ucf101():
    listed = read_lists("ucf101", LISTS / "ucf101")
    # The figures of Soomro et al., and of the lecture: 101 actions, 13,320 clips, 25 groups each.
    assert (len(listed.classes), len(listed.videos)) == (101, 13320)
    sizes = [(len(train), len(test)) for train, test in listed.folds]
    assert sizes == [(9537, 3783), (9586, 3734), (9624, 3696)]
    groups = {label: set() for label in range(101)}
    for label, group in listed.videos.values():
        groups[label].add(group)
    assert {len(found) for found in groups.values()} == {25}
    assert listed.classes[0] == "ApplyEyeMakeup"
    # One class is spelt in two ways in its files' names.
    assert listed.videos["HandstandPushups/v_HandStandPushups_g01_c01.avi"][1].endswith("/g01")
    check_folds(listed)


@real
def test_hmdb51():
    listed = read_lists("hmdb51", LISTS / "hmdb51")
    assert (len(listed.classes), len(listed.videos)) == (51, 6766)
    for train, test in listed.folds:  # 70 and 30 of each class
        for side, each in ((train, 70), (test, 30)):
            labels = [listed.videos[name][0] for name in side]
            assert {labels.count(label) for label in range(51)} == {each}
    check_folds(listed)


def check_folds(listed):
    """No group is on both sides of a fold."""
    for sides in listed.folds:
        train, test = ({listed.videos[name][1] for name in side} for side in sides)
        assert train
        assert not train & test


@pytest.fixture
def ucf(tmp_path):
    """A tiny UCF-101: two classes, three groups, three folds; one listed video is missing."""
    lists, root = tmp_path / "lists", tmp_path / "videos"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n2 Bowling\n")
    for fold in (1, 2, 3):
        text = {"train": "", "test": ""}
        for number, action in enumerate(("Archery", "Bowling"), start=1):
            for group in (1, 2, 3):
                name = f"{action}/v_{action}_g{group:02}_c01.avi"
                side = "test" if group == fold else "train"
                text[side] += f"{name} {number}\n" if side == "train" else f"{name}\n"
        for side in text:
            (lists / f"{side}list{fold:02}.txt").write_text(text[side])
    for action in ("Archery", "Bowling"):
        for group in (1, 2, 3):
            if (action, group) != ("Bowling", 3):
                # Converted, and in folders of the user's own.
                file = root / "mine" / f"v_{action}_g{group:02}_c01.mp4"
                file.parent.mkdir(parents=True, exist_ok=True)
                write_video(file, numbered(4))
    return tmp_path


def test_folds_groups_and_missing_videos(ucf):
    videos = open_data(f"ucf101:{ucf}")
    assert videos.classes == ["Archery", "Bowling"]
    assert videos.counts() == {"Archery": 3, "Bowling": 2}
    assert {video.group for video in videos.videos} == {
        *(f"Archery/g0{n}" for n in (1, 2, 3)),
        *(f"Bowling/g0{n}" for n in (1, 2)),
    }
    ((path, reason),) = videos.skipped
    assert path.endswith("Bowling/v_Bowling_g03_c01.avi")
    assert reason == "is not there, and trainlist01.txt names it"
    train, test = official_fold(videos, 2)
    assert [video.name for video in test.videos] == [
        "Archery/v_Archery_g02_c01.avi",
        "Bowling/v_Bowling_g02_c01.avi",
    ]
    assert len(train) == 3
    assert_no_leak(train, test)
    with pytest.raises(VideoError, match="is not there, and trainlist01"):
        open_data(f"ucf101:{ucf}", strict=True)


def test_a_run_takes_the_official_fold(ucf, monkeypatch):
    settings = load_config(overrides=["data.fold=2/3", "data.val_fraction=0"])
    videos = open_data(f"ucf101:{ucf}")
    parts = split_parts(videos, settings)
    assert {name: len(part) for name, part in parts.items()} == {"train": 3, "val": 0, "test": 2}
    settings = load_config(overrides=["data.fold=2/5"])
    with pytest.raises(UserError, match=r"has 3 official folds: write 2/3"):
        split_parts(videos, settings)
    monkeypatch.chdir(ucf)
    assert absolute("ucf101:videos") == f"ucf101:{ucf / 'videos'}"
    assert absolute("verbs") == "verbs"
    assert absolute("videos") == str(ucf / "videos")


def test_options(ucf):
    spec, lists = f"ucf101:{ucf / 'videos'}", str(ucf / "lists")
    with pytest.raises(UserError, match=r"no classInd\.txt in it.*data\.options\.lists=FOLDER"):
        open_data(spec)
    few = open_data(spec, lists=lists, classes=["Bowling"])
    assert few.classes == ["Bowling"]
    assert {(video.label, video.name[:7]) for video in few.videos} == {(0, "Bowling")}
    with pytest.raises(UserError, match=r"none of the 2 videos that test in fold 3 is there"):
        official_fold(few, 3)
    with pytest.raises(UserError, match="3 official folds, and no 4th"):
        official_fold(few, 4)
    with pytest.raises(UserError, match=r"has no class 'Bowlin'\. Did you mean 'Bowling'"):
        open_data(spec, lists=lists, classes=["Bowlin"])
    with pytest.raises(UserError, match="it takes strict, workers, cache, lists, classes"):
        open_data(spec, group_pattern="x")
    for name in ("ucf101", "ucf101:"):
        with pytest.raises(UserError, match="say where the videos are, ucf101:FOLDER"):
            open_data(name)
    with pytest.raises(UserError, match="no such file or folder"):
        open_data("ucf101:nowhere")


def test_hmdb51_and_sports1m_lists(tmp_path):
    for fold, sides in (("1", "120"), ("2", "201"), ("3", "012")):
        rows = [f"A_Film_run_f_cm_np1_ri_goo_{i}.avi {side} " for i, side in enumerate(sides)]
        (tmp_path / f"run_test_split{fold}.txt").write_text("\n".join(rows))
    listed = read_lists("hmdb51", tmp_path)
    name = "run/A_Film_run_f_cm_np1_ri_goo_{}.avi".format
    assert dict(listed.videos) == {name(i): (0, "run/A_Film") for i in range(3)}
    assert listed.folds[1] == (frozenset({name(2)}), frozenset({name(0)}))
    (tmp_path / "run_test_split2.txt").write_text("A_Film_run_f_cm_np1_ri_goo_0.avi 3\n")
    with pytest.raises(UserError, match=r"run_test_split2\.txt, line 1: .* is not as in the off"):
        read_lists("hmdb51", tmp_path)

    (tmp_path / "labels.txt").write_text("archery\nbowling\n")
    (tmp_path / "train_partition.txt").write_text("http://www.youtube.com/watch?v=a-_9 1,0\n")
    (tmp_path / "test_partition.txt").write_text("http://www.youtube.com/watch?v=b 0\n")
    listed = read_lists("sports1m", tmp_path)
    assert dict(listed.videos) == {"a-_9": (1, "a-_9"), "b": (0, "b")}
    assert listed.folds == [(frozenset({"a-_9"}), frozenset({"b"}))]
    (tmp_path / "test_partition.txt").write_text("http://www.youtube.com/watch?v=b 2\n")
    with pytest.raises(UserError, match=r"test_partition\.txt: b has label 2, and labels\.txt 2"):
        read_lists("sports1m", tmp_path)
    (tmp_path / "test_partition.txt").write_text("")
    with pytest.raises(UserError, match=r"test_partition\.txt is empty"):
        read_lists("sports1m", tmp_path)


def test_a_damaged_list_is_named(ucf):
    (ucf / "lists" / "testlist02.txt").write_text("Curling/v_Curling_g01_c01.avi\n")
    with pytest.raises(UserError, match=r"testlist02\.txt: Curling.* is of no class of classInd"):
        open_data(f"ucf101:{ucf}")
    (ucf / "lists" / "testlist02.txt").unlink()
    with pytest.raises(UserError, match=r"testlist02\.txt cannot be read"):
        open_data(f"ucf101:{ucf}")
