"""The commands that train and test: what they print, and what bad input gets."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import tinyvid
from tinyvid.cli import app
from tinyvid.config import load_config
from tinyvid.crossval import cross_validate
from tinyvid.data import write_verbs
from tinyvid.errors import UserError
from tinyvid.train import Listener, fit

TINY = {
    "data.options.per_class": "3",
    "data.options.size": "16",
    "data.options.frames": "8",
    "data.options.classes": '["grow", "move_left", "move_right"]',
    "data.workers": "0",
    "data.val_fraction": "0.34",
    "clip.frames": "8",
    "clip.stride": "1",
    "clip.height": "16",
    "clip.width": "16",
    "model.options.width": "2",
    "run.batch_size": "8",
}
SETS = [arg for key, value in TINY.items() for arg in ("--set", f"{key}={value}")]
CROSSVAL = ["crossval", "slow_fusion", "--data", "verbs"]


def run(*args: object):
    return CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of one epoch."""
    out = tmp_path_factory.mktemp("cli") / "made"
    result = run("train", "slow_fusion", "--data", "verbs", *SETS, "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return write_verbs(tmp_path_factory.mktemp("files"), 1, size=32, frames=12)


def test_train_says_what_it_does(tmp_path):
    out = tmp_path / "run"
    result = run("train", "slow_fusion", "--data", "verbs", *SETS, "--epochs", 2, "--out", out)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "verbs: 9 videos, 3 classes, each video a group of its own"
    assert lines[1].startswith("note: 2 steps in all are few")
    assert lines[2] == "slow_fusion: videos 6 train, 3 val"
    assert lines[3].startswith("Hit@1: share whose most probable class is right; val: ")
    assert lines[4].startswith("epoch 1/2  loss ")
    assert lines[5].startswith("epoch 2/2  loss ")
    assert "  Clip Hit@1 " in lines[4]
    assert "  Video Hit@1 " in lines[4]
    assert lines[6].startswith("best: epoch ")
    assert max(map(len, lines[3:6])) <= 80
    assert lines[-1] == f"next: tinyvid test {out}"


def test_without_out_runs_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["train", "slow_fusion", *SETS, "--epochs", "1"]
    for name in ("slow_fusion-verbs", "slow_fusion-verbs-2", "slow_fusion-verbs-3"):
        result = run(*train)
        assert f"next: tinyvid test runs/{name}\n" in result.output
    resumed = run("train", "slow_fusion", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "runs/slow_fusion-verbs-3:" in resumed.output


def test_test_prints_the_metrics(made):
    result = run("test", made, "--clips", 2)
    assert result.exit_code == 0, result.output
    for word in ("Clip Hit@1", "Video Hit@1", "95% interval", "mean class accuracy", "move_left"):
        assert word in result.stdout
    assert "Video Hit@3" in result.stdout
    assert "(3 of 3 classes)" in result.stdout  # k is capped, and it is said
    again = run("test", made, "--from-scores", "--fusion", "max")
    assert again.exit_code == 0, again.output
    assert "fused by max" in again.stdout
    names = {p.name for p in (made / "test").iterdir()}
    closing = result.stdout.splitlines()[-1].rpartition(": ")[2]
    assert set(closing.split(", ")) == names
    assert names == {"confusion.csv", "confusion.png", "metrics.json", "scores.npz", "videos.csv"}


def test_testing_on_validation_videos_is_said(made):
    result = run("test", made, "--part", "val", "--clips", 1, "--out", made.parent / "val")
    assert "the best epoch was chosen by these very videos" in result.stdout
    assert "chosen by" not in run("test", made, "--clips", 1).stdout


def test_predict_prints_bars_and_times(made, files):
    videos = sorted(files.rglob("*.mp4"))[:2]
    result = run("predict", made, *videos, "--clips", 2, "--top", 2)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == str(videos[0])
    assert str(videos[1]) in lines
    assert all("█" in line or "%" in line for line in lines[1:3])
    assert lines[3].startswith("  when    0.0 –   ")
    assert [line.startswith("  when") for line in lines].count(True) == 2


def test_crossval_prints_a_table(tmp_path):
    out = tmp_path / "cv"
    args = ["crossval", "slow_fusion", "--data", "verbs", *SETS, "--epochs", 1, "--clips", 1]
    result = run(*args, "--by", 3, "--seeds", "0,5", "--out", out)
    assert result.exit_code == 0, result.output
    assert "seed 5, fold 3/3: Video Hit@1" in result.stdout
    for word in ("seed 0", "seed 5", "mean", "± std of seeds", "all videos", "would give 33.3%"):
        assert word in result.stdout
    again = run(*args, "--by", 3, "--seeds", "0,5", "--out", out)
    assert again.stdout.count("(finished before)") == 6


def test_show_config_is_a_config(tmp_path):
    result = run("train", "c3d", "--set", "optim.lr=0.5", "--show-config")
    assert result.exit_code == 0
    path = tmp_path / "c.toml"
    path.write_text(result.stdout)
    again = run("train", "--config", path, "--show-config")
    assert again.stdout == result.stdout
    assert "lr = 0.5\n" in result.stdout
    assert 'name = "c3d"\n' in result.stdout


def errors():
    yield "folder", ["train", "slow_fusion", "--data", "nowhere"], "nowhere: no such file or folder"
    yield "model", ["train", "slowfusion"], "no network is called 'slowfusion'. Did you mean"
    yield "key", ["train", "slow_fusion", "--set", "optim.lrr=1"], "Did you mean 'optim.lr'?"
    yield "value", ["train", "slow_fusion", "--set", "optim.lr=x"], "optim.lr = 'x': give a number"
    yield "config", ["train", "slow_fusion", "--config", "no.toml"], "config no.toml: No such file"
    if not tinyvid.cuda.is_available():
        yield "no GPU", ["train", "slow_fusion", "--device", "cuda"], "or use the device 'emulator'"
    yield "no device", ["train", "slow_fusion", "--device", "gpu"], "run.device = 'gpu': give one"
    yield "no resume", ["train", "--resume"], "--resume: name the run with --out"
    yield "none", ["train", "--resume", "--out", "none"], "--resume: none holds no run"
    yield "default", ["train", "c3d", "--resume"], "there is no run in runs/c3d-verbs"
    yield "run", ["test", "none"], "none is no run: it has no config.toml"
    yield "fusion", ["test", "none", "--fusion", "mean"], "--fusion mean: give one of mean_prob"
    yield "predict", ["predict", "none", "a.mp4"], "none is no run"
    yield "seeds", [*CROSSVAL, "--seeds", "a"], "--seeds a: give whole numbers"
    yield "twice", [*CROSSVAL, "--seeds", "1,1"], "seeds must be different"
    yield "by", [*CROSSVAL, "--by", "x"], "by='x': give 'group', or a number"


@pytest.mark.parametrize(("args", "message"), [pytest.param(*e[1:], id=e[0]) for e in errors()])
def test_what_the_user_got_wrong_is_one_sentence(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_run_is_not_overwritten(made):
    before = (made / "last.safetensors").read_bytes()
    result = run("train", "slow_fusion", *SETS, "--out", made)
    assert result.exit_code == 2
    assert "holds a run already: go on with --resume" in result.stderr
    assert (made / "last.safetensors").read_bytes() == before


def test_resuming_with_other_options_is_refused(made):
    result = run("train", "--resume", "--out", made, "--epochs", 5)
    assert result.exit_code == 2
    assert "was started with run.epochs = 1, not 5" in result.stderr


def test_a_damaged_checkpoint(made, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes((made / "best.safetensors").read_bytes()[:1000])
    result = run("test", made, "--weights", path)
    assert result.exit_code == 2
    assert "w.safetensors cannot be read, it is damaged or truncated" in result.stderr


def test_a_run_that_cannot_be_tested(made, tmp_path):
    """No such folder, no finished epoch, no scores: each is one sentence that names the path."""
    new = tmp_path / "new"
    new.mkdir()
    for name in ("config.toml", "run.json", "split.json"):
        (new / name).write_bytes((made / name).read_bytes())
    none = tmp_path / "elsewhere"
    for args, message in (
        ([none], f"{none} is no run: it has no config.toml."),
        ([new], f"{new} has finished no epoch yet: it has no best.safetensors"),
        (
            [new, "--from-scores"],
            f"{new / 'test' / 'scores.npz'} does not exist: test the run once to make it",
        ),
    ):
        result = run("test", *args)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"error: {message}\n"


def test_files_that_cannot_be_predicted(made, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    for name in ("none.mp4", "a.mp4"):
        result = run("predict", made, tmp_path / name)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {tmp_path / name}: ")


def test_skipped_files_are_counted_and_listed(files, tmp_path):
    bad = files / "grow" / "broken.mp4"
    bad.write_bytes(b"no video")
    sets = [a for a in SETS if not a.startswith("data.options")]
    sets = [
        a for i, a in enumerate(sets) if not (a == "--set" and sets[i + 1 : i + 2] == ["--set"])
    ]
    args = ["train", "slow_fusion", "--data", files, *sets, "--set", "data.val_fraction=0"]
    result = run(*args, "--epochs", 1, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert f"skipped 1 files that cannot be used:\n  {bad}: " in result.stdout
    test = ["test", tmp_path / "run", "--data", files, "--clips", 1]
    crossval = ["crossval", *args[1:], "--by", 2, "--epochs", 1, "--out", tmp_path / "cv"]
    for command in ([*args, "--out", tmp_path / "strict"], test, crossval):
        strict = run(*command, "--strict")
        assert strict.exit_code == 2, command
        assert strict.stderr.startswith(f"error: {bad}: ")
    narrow = CliRunner().invoke(app, list(map(str, test)), env={"COLUMNS": "30"})
    assert f"skipped 1 files that cannot be used:\n  {bad}: " in narrow.stdout
    bad.unlink()


def test_nan_stops_with_exit_code_2(tmp_path):
    sets = ["--set", "optim.lr=1e30", "--set", "optim.name=sgd", "--set", "optim.clip_norm=none"]
    with np.errstate(all="ignore"):
        result = run("train", "slow_fusion", *SETS, *sets, "--epochs", 5, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "training stops" in result.stderr
    assert ", step " in result.stderr


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyvid.train.fit", interrupted)
    result = run("train", "slow_fusion", *SETS, "--out", tmp_path / "my run")
    assert result.exit_code == 130
    assert result.stderr == f"stopped; to go on: tinyvid train --resume --out '{tmp_path}/my run'\n"
    monkeypatch.setattr("tinyvid.crossval.cross_validate", interrupted)
    result = run(*CROSSVAL, *SETS, "--out", tmp_path / "cv")
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr("tinyvid.train.fit", broken)
    result = run("train", "slow_fusion", *SETS, "--out", tmp_path / "run")
    assert isinstance(result.exception, RuntimeError)


def test_reading_is_told_to_whoever_opens_the_data(files, tmp_path):
    class Told(Listener):
        def __init__(self):
            self.told = []

        def reading(self, done, total):
            self.told.append((done, total))

    count = len(list(files.rglob("*.mp4")))
    data = {"data.path": str(files)}
    wrong = load_config(named={**data, "data.fold": "x"})
    calls = {
        "data.fold = 'x'": lambda listener: fit(wrong, tmp_path, listener=listener),
        "by='x'": lambda listener: cross_validate(
            load_config(named=data), tmp_path, by="x", listener=listener
        ),
    }
    for message, call in calls.items():  # both stop once the videos are read
        listener = Told()
        with pytest.raises(UserError, match=message):
            call(listener)
        assert listener.told == [(i + 1, count) for i in range(count)]


def test_an_interrupt_elsewhere_is_no_traceback(monkeypatch, made):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyvid.evaluate.score", interrupted)
    result = run("test", made)
    assert result.exit_code == 130
    assert result.stderr == "stopped\n"
