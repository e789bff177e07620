"""Resumed trainings: the same bits, and what must not have changed."""

import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from small_training import Notes, StopAt, equal_arrays, tiny, train_command

from tinyvid.checkpoint import load_checkpoint
from tinyvid.data import open_data
from tinyvid.errors import UserError
from tinyvid.runs import Run
from tinyvid.train import check_same_videos, fit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "run"
    return fit(tiny("run.epochs=3", "optim.ema=0.9"), out)


@pytest.mark.parametrize("at", [(1, 1), (2, 1), (3, 2)])
def test_an_interrupted_run_goes_on_to_the_bit(finished, tmp_path, at):
    config = tiny("run.epochs=3", "optim.ema=0.9")
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "run", listener=StopAt(*at))
    assert (tmp_path / "run" / "curves.png").exists() == (at[0] > 1)
    result = fit(config, tmp_path / "run", resume=True)
    equal_arrays(finished.run.last, result.run.last)
    equal_arrays(finished.run.best, result.run.best)
    timeless = {"seconds": 0, "clips_per_s": 0}
    assert [asdict(r) | timeless for r in result.rows] == [
        asdict(r) | timeless for r in finished.rows
    ]


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_every_optimiser_resumes_to_the_bit(tmp_path, optimiser):
    config = tiny(f"optim.name={optimiser}", "schedule.name=step", "schedule.step_epochs=1")
    whole = fit(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "run", listener=StopAt(2, 2))
    result = fit(config, tmp_path / "run", resume=True)
    equal_arrays(whole.run.last, result.run.last)


def test_a_finished_run_is_not_trained_further(finished):
    before = finished.run.last.read_bytes()
    told = Notes()
    config = tiny("run.epochs=3", "optim.ema=0.9")
    again = fit(config, finished.run.path, resume=True, listener=told)
    (note,) = told.notes
    assert note.startswith(f"{finished.run.path} is finished, with 3 of 3 epochs; to train longer")
    assert again.rows == finished.rows
    assert again.best == finished.best
    assert finished.run.last.read_bytes() == before


def test_resuming_with_another_config_is_refused(finished):
    with pytest.raises(UserError, match=r"was started with optim\.lr = 0\.\d+, not 0\.5"):
        fit(tiny("run.epochs=3", "optim.ema=0.9", "optim.lr=0.5"), finished.run.path, resume=True)


def test_resuming_for_longer_is_refused_with_a_way(finished):
    with pytest.raises(UserError, match=r"run\.epochs = 3, not 4: .* longer start a new run$"):
        fit(tiny("run.epochs=4", "optim.ema=0.9"), finished.run.path, resume=True)


def test_resuming_with_other_videos_is_refused(tmp_path):
    config = tiny("run.epochs=1")
    videos = open_data("verbs", **config.data.options)
    result = fit(config, tmp_path / "run", videos=videos)
    kept = result.run.last.read_bytes()
    train = result.run.split["train"]
    gone = [i for i, v in enumerate(videos.videos) if v.name != train[-1]]
    number = len(train)
    with pytest.raises(UserError, match=rf"{number} videos in part 'train', of which number"):
        fit(config, tmp_path / "run", videos=videos.subset(gone), resume=True)
    other = videos.subset(range(len(videos)))
    other.classes = ["move_left", "move_up"]
    with pytest.raises(UserError, match=r"'move_right' as class 2, the data has 'move_up': "):
        fit(config, tmp_path / "run", videos=other, resume=True)
    other.classes = [*videos.classes, "grow"]
    fewer = Run.open(tmp_path / "run")
    with pytest.raises(UserError, match=r"was started with none as class 3, the data has 'grow'"):
        check_same_videos(fewer, other.classes, {})
    assert result.run.last.read_bytes() == kept


def test_resuming_keeps_what_the_run_was_started_with(tmp_path):
    config = tiny("run.epochs=2")
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "run", listener=StopAt(2, 1))
    about = tmp_path / "run" / "run.json"
    text = about.read_text().replace('"python": "', '"python": "older than ')
    about.write_text(text)
    fit(tiny("run.epochs=2", "data.prefetch=7"), tmp_path / "run", resume=True)
    assert about.read_text() == text
    assert Run.open(tmp_path / "run").config.data.prefetch == 7


def test_resuming_nothing(tmp_path):
    with pytest.raises(UserError, match=r"run is no run: it has no config\.toml"):
        fit(tiny(), tmp_path / "run", resume=True)


def test_a_killed_run_goes_on_to_the_bit(tmp_path):
    """SIGKILL in the middle of an epoch, in a process of its own."""
    many = ["run.epochs=6", "data.options.per_class=24"]
    whole = fit(tiny(*many), tmp_path / "whole")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        train_command(out, *many), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    log = out / "log.csv"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.05)  # well into the next epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    done = len(load_checkpoint(out / "last.safetensors").state["rows"])
    assert 2 <= done < 6, "the run was not killed in the middle"
    resumed = subprocess.run(
        [sys.executable, "-m", "tinyvid", "train", "--resume", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert f"goes on with epoch {done + 1} of 6" in resumed.stdout
    equal_arrays(whole.run.last, out / "last.safetensors")
    equal_arrays(whole.run.best, out / "best.safetensors")
