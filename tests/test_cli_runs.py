"""Which folder a command writes to, and what it says of it: nothing is overwritten unseen."""

import json
import os
import shutil
from pathlib import Path

import pytest
from test_cli import SETS, run

from tinyvid.cli.folders import folder_to_resume
from tinyvid.config import load_config
from tinyvid.crossval import MOST_FOLDS, cross_validate, fold_names
from tinyvid.data import open_data, write_verbs
from tinyvid.errors import UserError
from tinyvid.evaluate import count_trained, open_videos, result_folder, videos_to_test
from tinyvid.runs import Run, data_name, is_locked, locked
from tinyvid.train import fit

FILE_SETS = [
    arg
    for key, value in (pair.split("=", 1) for pair in SETS[1::2])
    if not key.startswith("data.options")
    for arg in ("--set", f"{key}={value}")
]
TRAIN = ["train", "slow_fusion", *SETS, "--epochs", "1"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A folder of two classes, in each two videos of anna and two of ben."""
    root = tmp_path_factory.mktemp("videos")
    made = write_verbs(root / "made", 4, size=16, frames=8, codec="mpeg4")
    for verb in ("grow", "shrink"):
        for i, file in enumerate(sorted((made / verb).iterdir())):
            place = root / "my_videos" / verb / ("anna", "ben")[i % 2] / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
    return root / "my_videos"


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train = ["train", "slow_fusion", "--data", videos, *FILE_SETS, "--epochs", 1, "--out", out]
    result = run(*train, "--test-group", "anna")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{videos}: 8 videos, 2 classes, 2 groups: anna, ben"
    assert "slow_fusion: videos 4 train (ben), 4 test (anna)" in lines
    assert not is_locked(out)
    assert not (out / ".lock").exists()
    return out


def stopped(folder: Path, epochs: int, done: int) -> None:
    """Leave what a run leaves that was stopped after `done` of `epochs` epochs."""
    config = load_config(named={"run.epochs": epochs})
    Run.create(folder, config, ["a"], {"train": ["a/1"], "val": [], "test": []})
    if done:
        (folder / "last.safetensors").write_bytes(b"")
        (folder / "log.csv").write_text("epoch\n" + "1\n" * done)


def test_a_second_run_says_where_it_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is a run" not in run(*TRAIN).stdout
    result = run(*TRAIN)
    note = "note: there is a run in runs/slow_fusion-verbs already: this one goes to runs/slow_f"
    assert note in result.stdout
    assert result.stdout.splitlines()[-1] == "next: tinyvid test runs/slow_fusion-verbs-2"


def test_a_run_without_an_epoch_is_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/slow_fusion-verbs")
    stopped(folder, 3, 0)
    (folder / "best.safetensors").write_bytes(b"of an epoch that was not finished")
    stopped(folder, 3, 0)
    assert not (folder / "best.safetensors").exists()
    result = run(*TRAIN)
    assert "stopped in its first epoch: it starts anew" in result.stdout
    assert result.stdout.splitlines()[-1] == f"next: tinyvid test {folder}"
    assert Run.open(folder).epochs() == 1
    stopped(Path("runs/slow_fusion-verbs-2"), 3, 0)
    with locked("runs/slow_fusion-verbs-2"):  # it is not stopped: another process is in it
        result = run(*TRAIN)
    assert result.stdout.splitlines()[-1] == "next: tinyvid test runs/slow_fusion-verbs-3"
    assert run(*TRAIN).stdout.splitlines()[-1] == "next: tinyvid test runs/slow_fusion-verbs-2"
    Path("runs/slow_fusion-verbs-4").mkdir()  # whatever it is, it is no run
    assert run(*TRAIN).stdout.splitlines()[-1] == "next: tinyvid test runs/slow_fusion-verbs-5"


def test_two_processes_do_not_share_a_folder(tmp_path):
    config = load_config(overrides=SETS[1::2])
    with locked(tmp_path / "run"), pytest.raises(UserError, match="trained by another process"):
        fit(config, tmp_path / "run")


def test_the_latest_unfinished_run_is_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no run in runs/slow_fusion-verbs"):
        folder_to_resume(None, "slow_fusion", None)
    done = {"": 2, "-2": 1, "-3": 1, "-4": 3, "-x": 1}
    for age, (name, epochs) in enumerate(done.items()):
        folder = Path(f"runs/slow_fusion-verbs{name}")
        stopped(folder, 3, epochs)
        os.utime(folder / "config.toml", (0, age))
    assert folder_to_resume(None, "slow_fusion", None).name == "slow_fusion-verbs-3"
    os.utime("runs/slow_fusion-verbs/config.toml", (0, 9))
    assert folder_to_resume(None, "slow_fusion", None).name == "slow_fusion-verbs"
    with locked("runs/slow_fusion-verbs"):
        assert folder_to_resume(None, "slow_fusion", None).name == "slow_fusion-verbs-3"
    for name in ("", "-2", "-3"):
        shutil.rmtree(f"runs/slow_fusion-verbs{name}")
    assert folder_to_resume(None, "slow_fusion", None).name == "slow_fusion-verbs-4"


@pytest.mark.parametrize(
    ("path", "name"),
    [("verbs", "verbs"), ("a/b", "b"), ("a/b.csv", "b"), ("a/clips.csv", "a"), ("a/..", "here")],
)
def test_names_of_data(tmp_path, monkeypatch, path, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert data_name(path) == name
    assert data_name("clips.csv") == data_name(".") == "here"


def test_no_test_overwrites_another(trained, videos, tmp_path):
    test = ["test", trained, "--clips", 1]
    other = shutil.copytree(videos, tmp_path / videos.name)
    last = ["--weights", trained / "last.safetensors"]
    for args in ([], ["--part", "train"], ["--fusion", "max"], ["--data", videos], last):
        result = run(*test, *args)
        assert result.exit_code == 0, result.output
    assert f"in {trained}/test-last: " in result.stdout
    made = {p.name for p in trained.iterdir() if p.is_dir()}
    assert made == {"test", "test-train", "test-max", "test-my_videos", "test-last"}
    result = run(*test, "--data", other)
    assert f"in {trained}/test-my_videos-2: " in result.stdout
    of = json.loads((trained / "test-my_videos" / "metrics.json").read_text())["of"]
    assert of == f"slow_fusion on {videos}"
    run(*test)  # the same again takes the same folder
    assert not (trained / "test-2").exists()


def test_another_fusion_takes_the_scores_of_the_same_test(trained):
    run("test", trained, "--clips", 2)
    run("test", trained, "--part", "train", "--clips", 1)
    result = run("test", trained, "--from-scores", "--fusion", "mean_logit")
    assert result.exit_code == 0, result.output
    assert f"in {trained}/test-mean_logit: " in result.stdout
    about = json.loads((trained / "test-mean_logit" / "metrics.json").read_text())
    assert (about["clips"], about["of"].split("'")[1]) == (8, "test")
    result = run("test", trained, "--from-scores", "--part", "train", "--fusion", "max")
    about = json.loads((trained / "test-train-max" / "metrics.json").read_text())
    assert (about["clips"], about["of"].split("'")[1]) == (4, "train")
    for option, value in (("--clips", 5), ("--crops", 1), ("--device", "cpu")):
        result = run("test", trained, "--from-scores", option, value)
        assert result.exit_code == 2
        assert f"takes the scores as they are: leave out {option}" in result.stderr


def test_testing_what_was_trained_on_is_said(trained, videos):
    note = "note: the run was trained on 4 of these {} videos"
    assert note.format(4) in run("test", trained, "--clips", 1, "--part", "train").stdout
    assert note.format(8) in run("test", trained, "--clips", 1, "--data", videos).stdout
    assert "trained on" not in run("test", trained, "--clips", 1).stdout


def test_verbs_that_were_trained_on_are_counted(tmp_path):
    made = fit(load_config(overrides=[*SETS[1::2], "run.epochs=1"]), tmp_path / "run").run
    assert count_trained(made, open_videos(made.config)) == len(made.split["train"]) == 6
    assert count_trained(made, videos_to_test(made)[0]) == 0
    assert result_folder(made, "any").name == "test"


def test_crossval_says_how_much_it_will_take(videos, tmp_path):
    args = ["crossval", "slow_fusion", *FILE_SETS, "--set", "data.val_fraction=0", "--epochs", 1]
    args += ["--clips", 1, "--seeds", "0,1"]
    result = run(*args, "--data", videos, "--out", tmp_path / "cv")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{videos}: 8 videos, 2 classes, 2 groups: anna, ben"
    assert lines[1] == "2 folds × 2 seeds: 4 trainings"
    result = run(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --data: name the videos")
    other = shutil.copytree(videos, tmp_path / videos.name)
    for changed in (["--data", other], ["--data", videos, "--by", "2"]):
        result = run(*args, *changed, "--out", tmp_path / "cv")
        assert result.exit_code == 2
        assert f"cv holds a cross-validation of {videos} by group, not of " in result.stderr


def test_crossval_does_not_leave_out_thousands(tmp_path):
    few = open_data("verbs", per_class=7, classes=["grow", "shrink"])
    assert len(fold_names(few, "group")) == 14
    many = open_data("verbs", per_class=MOST_FOLDS // 2 + 1, classes=["grow", "shrink"])
    with pytest.raises(UserError, match=r"leaves out each of 52 groups, .* such as --by 5$"):
        fold_names(many, "group")
    with pytest.raises(UserError, match="such as --by 5"):
        cross_validate(load_config(), tmp_path / "cv")
    assert not (tmp_path / "cv").exists()


def test_broken_files_do_not_keep_others_from_being_predicted(trained, videos, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    good = next(videos.rglob("*.mp4"))
    result = run("predict", trained, tmp_path / "a.mp4", good, videos, "--clips", 1)
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {tmp_path}/a.mp4: ")
    assert second == f"error: {videos}: is a folder: give its files, such as {videos}/*.mp4"
    assert result.stdout.startswith(f"{good}\n")


def test_a_config_for_videos_that_are_not_there_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("train", "--data", "nosuch", "--show-config")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nosuch: no such file or folder" in result.stderr


def test_defaults_are_in_the_help():
    words = " ".join(run("train", "--help").stdout.replace("│", " ").split())
    assert "[default: slow_fusion]" in words
    assert "[default: verbs]" in words
