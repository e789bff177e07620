"""A set of videos looked into: its characteristics, what is broken, what leaks."""

import json
import shutil

import pytest
from typer.testing import CliRunner
from video_files import numbered, write_sound, write_video

from tinyvid.cli import app
from tinyvid.data import open_data
from tinyvid.data.check import check
from tinyvid.errors import UserError


@pytest.fixture
def root(tmp_path):
    for name, frames, size in (
        ("left/anna/0.mp4", 25, (48, 64)),
        ("left/anna/1.mp4", 50, (48, 64)),
        ("left/ben/0.mp4", 75, (48, 64)),
        ("right/ben/0.mp4", 100, (32, 32)),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / name, numbered(frames, *size), fps=25)
    return tmp_path


def call(*args):
    return CliRunner().invoke(app, ["data", "check", *map(str, args)])


def test_characteristics(root):
    done = []
    found = check(open_data(root), progress=lambda *counts: done.append(counts))
    assert dict(found.characteristics) == {
        "actions": "2",
        "clips": "4",
        "clips an action": "1–3",
        "groups an action": "1–2",
        "clips a group of an action": "1–2",
        "mean length": "2.50 s",
        "shortest": "1.00 s",
        "longest": "4.00 s",
        "total length": "0.2 min",
        "frame rate": "25 fps",
        "resolution": "64×48 (3), 32×32 (1)",
        "with sound": "0 of 4 clips",
    }
    assert found.counts == {"left": 3, "right": 1}
    assert (found.unusable, found.leaks) == ([], [])
    assert done == [(i, 4) for i in (1, 2, 3, 4)]
    result = call(root)
    assert result.exit_code == 0, result.output
    assert "  right      1 ███████\n  left       3 ████████████████████\n" in result.stdout
    assert "files that cannot be used: 0" in result.stdout


def test_what_is_broken_is_listed_and_the_exit_code_is_1(root):
    write_sound(root / "left" / "sound.mp4")
    cut = root / "right" / "cut.mp4"
    cut.write_bytes((root / "left/ben/0.mp4").read_bytes()[:2000])
    result = call(root)
    assert result.exit_code == 1
    assert "files that cannot be used: 2" in result.stdout
    assert "sound.mp4: has sound only, no picture" in result.stdout
    assert "right/cut.mp4: " in result.stdout
    result = call(root, "--strict")
    assert result.exit_code == 2
    assert "has sound only" in result.output


def test_copies_under_different_groups_leak(root):
    shutil.copy(root / "left/anna/1.mp4", root / "left/anna/copy.mp4")  # the same group: no leak
    shutil.copy(root / "left/anna/0.mp4", root / "right/ben/copy.mp4")
    result = call(root)
    assert result.exit_code == 1
    assert "leaks: 1\n  copies: left/anna/0.mp4 = right/ben/copy.mp4\n" in result.stdout


def test_groups_on_both_sides_of_an_official_fold_leak(tmp_path):
    films = {"run": ("A_run_x_0", "B_run_x_0"), "sit": ("A_sit_x_0", "A_sit_x_1")}
    for label, names in films.items():
        for name in names:
            file = tmp_path / f"{name}.avi"
            write_video(file, numbered(2 + len(list(tmp_path.glob("*.avi")))), codec="mpeg4")
        for fold in "123":
            text = "".join(f"{name}.avi {1 + i} \n" for i, name in enumerate(names))
            (tmp_path / f"{label}_test_split{fold}.txt").write_text(text)
    found = check(open_data(f"hmdb51:{tmp_path}"))
    assert [(leak.where, leak.what) for leak in found.leaks] == [
        (f"fold {k}", "group sit/A") for k in (1, 2, 3)
    ]
    (tmp_path / "B_run_x_0.avi").unlink()
    result = call(f"hmdb51:{tmp_path}", "--json")
    assert result.exit_code == 1
    read = json.loads(result.stdout)
    assert read["counts"] == {"run": 1, "sit": 2}
    ((path, reason),) = read["unusable"]
    assert path.endswith("run/B_run_x_0.avi")
    assert reason == "is not there, and run_test_split1.txt names it"


def test_long_lists_are_cut_unless_all_is_asked_for(tmp_path):
    for i in range(22):
        (tmp_path / f"class{i:02}").mkdir()
        write_video(tmp_path / f"class{i:02}" / "a.mp4", numbered(i + 1, 16, 16))
    result = call(tmp_path)
    assert "class19" in result.stdout
    assert "class20" not in result.stdout
    assert "  and 2 more; --all lists them" in result.stdout
    assert "class21" in call(tmp_path, "--all").stdout


def test_verbs_have_no_files():
    result = call("verbs")
    assert result.exit_code == 2
    assert "drawn, not read" in result.output
    with pytest.raises(UserError, match="is not made of files"):
        check(open_data("verbs", per_class=1))
