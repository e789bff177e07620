"""Training: its parts by themselves, and whole runs on a handful of tiny synthetic videos."""

import csv
import errno
import math
import os
from dataclasses import asdict

import numpy as np
import pytest
from compare import assert_close
from small_training import Notes, StopAt, equal_arrays, tiny, train_command
from typer.testing import CliRunner

from tinyvid import optim
from tinyvid.checkpoint import load_checkpoint
from tinyvid.cli import app
from tinyvid.config import load_config
from tinyvid.data import open_data, write_verbs
from tinyvid.errors import UserError
from tinyvid.evaluate import score, videos_to_test
from tinyvid.metrics import measure
from tinyvid.runs import Run, build_model, resolved
from tinyvid.train import _better, _draw, check_same_config, fit
from tinyvid.trainer import build_optimiser, build_schedule


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "run"
    return fit(tiny("run.epochs=3", "optim.ema=0.9"), out)


def test_a_run_leaves_everything_behind(finished):
    folder = finished.run.path
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "best.safetensors",
        "config.toml",
        "curves.png",
        "last.safetensors",
        "log.csv",
        "run.json",
        "split.json",
    }
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["train_loss"]) for row in rows] == [r.train_loss for r in finished.rows]
    assert list(rows[0]) == list(asdict(finished.rows[0]))
    run = Run.open(folder)
    assert run.config == finished.run.config
    assert run.classes == ["move_left", "move_right"]
    assert {name: len(v) for name, v in run.split.items()} == {"train": 6, "val": 2, "test": 0}
    about = (folder / "run.json").read_text()
    for word in ("tinyvid", "numpy", "numba", "av", "python", "platform", "seed"):
        assert f'"{word}"' in about


def test_training_starts_from_given_weights(finished, tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(finished.run.best.read_bytes())
    settings = ("run.epochs=2", "optim.lr=0", f"model.weights={weights}")
    result = fit(tiny(*settings), tmp_path / "run")
    started, ended = (load_checkpoint(path).weights for path in (weights, result.run.best))
    for name, _ in result.model.named_parameters():
        assert_close(ended[name], started[name])
    weights.unlink()  # what is saved of the run is enough to go on with
    with pytest.raises(UserError, match=r"weights\.safetensors does not exist"):
        fit(tiny(*settings), tmp_path / "another")
    assert not (tmp_path / "another").exists()
    assert len(fit(tiny(*settings), tmp_path / "run", resume=True).rows) == 2


def test_the_curves_are_called_by_network_and_data(finished, monkeypatch):
    titles = []
    monkeypatch.setattr("tinyvid.train.plot_curves", lambda rows, path, title: titles.append(title))
    _draw(finished.rows, finished.run)
    assert titles == ["slow_fusion on verbs"]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(finished, tmp_path):
    again = fit(tiny("run.epochs=3", "optim.ema=0.9", "data.workers=2"), tmp_path / "again")
    equal_arrays(finished.run.last, again.run.last)
    equal_arrays(finished.run.best, again.run.best)
    other = fit(tiny("run.epochs=3", "optim.ema=0.9", "run.seed=1"), tmp_path / "other")
    with pytest.raises(AssertionError):
        equal_arrays(finished.run.last, other.run.last)


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_run_finds_its_data_from_any_folder(tmp_path, monkeypatch, kind):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    data = write_verbs(tmp_path / "here" / "data", 1, frames=8, size=16, codec="mpeg4")
    if kind == "csv":
        files = sorted(p.relative_to(data.parent).as_posix() for p in data.rglob("*.mp4"))
        lines = [f"{name},{name.split('/')[1]},{i}" for i, name in enumerate(files)]
        (data.parent / "data.csv").write_text("\n".join(["path,label,group", *lines]))
    name = "data" if kind == "folder" else "data.csv"
    config = load_config(
        named={
            "data.path": name,
            "data.val_fraction": 0.0,
            "data.workers": 0,
            "clip.frames": 8,
            "clip.stride": 1,
            "clip.height": 16,
            "clip.width": 16,
            "model.options.width": 2,
            "run.epochs": 2,
        }
    )
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "run", listener=StopAt(2, 1))
    run = Run.open(tmp_path / "run")
    assert run.config.data.path == str((tmp_path / "here" / name).resolve())
    check_same_config(run.config, config, "run")  # the name given before means the same
    assert len(videos_to_test(run, part="train")[0]) == 8
    monkeypatch.chdir(tmp_path / "there")
    assert len(videos_to_test(run, part="train")[0]) == 8
    result = fit(run.config, tmp_path / "run", resume=True)
    assert len(result.rows) == 2
    with pytest.raises(UserError, match=r"was started with data\.path"):
        check_same_config(run.config, config, "run")  # here it would be another one


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    """And NumPy says nothing besides: a warning would fail the test."""
    config = tiny("optim.lr=1e30", "optim.name=sgd", "optim.clip_norm=none", "run.epochs=5")
    before = np.geterr()
    with pytest.raises(UserError, match=r"became (nan|inf|not finite) in epoch 1, step \d"):
        fit(config, tmp_path / "run")
    assert np.geterr() == before
    assert not (tmp_path / "run" / "curves.png").exists()
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_too_little_memory_stops_the_run_in_one_sentence(tmp_path, monkeypatch):
    def epoch(*args):
        raise MemoryError("Out of memory allocating 5 bytes")

    monkeypatch.setattr("tinyvid.trainer.Trainer.epoch", epoch)
    with pytest.raises(UserError, match=r"^out of memory: .* 5 bytes; give a smaller run\.batch"):
        fit(tiny(), tmp_path / "run")


def test_the_last_good_checkpoint_is_kept(tmp_path, monkeypatch):
    import tinyvid.train as module

    whole = fit(tiny(), tmp_path / "run")
    kept = whole.run.last.read_bytes()
    original = module.Trainer.epoch

    def poisoned(self, epoch, listener, run):
        if epoch == 2:
            with_nan = {n: np.full_like(w, np.nan) for n, w in self.weights().items()}
            self.model.load_state_dict(with_nan)
        return original(self, epoch, listener, run)

    monkeypatch.setattr(module.Trainer, "epoch", poisoned)
    monkeypatch.setattr(module, "check_same_config", lambda *_: None)
    curves = whole.run.path / "curves.png"
    curves.unlink()
    with pytest.raises(UserError, match=r"epoch 3, step \d+ .*last\.safetensors keeps epoch 2"):
        fit(tiny("run.epochs=4"), tmp_path / "run", resume=True)
    assert curves.stat().st_size > 0
    assert whole.run.last.read_bytes() == kept


@pytest.mark.parametrize("wrong", ["model.options.widht=3", "model.name=c3d", "optim.lr=1e30"])
def test_a_start_that_fails_leaves_the_folder_free(tmp_path, wrong):
    """The corrected command works, without --resume."""
    out = tmp_path / "run"
    config = tiny("optim.name=sgd", "optim.clip_norm=none", "run.epochs=1")
    config.override(wrong)
    with pytest.raises(UserError):
        fit(config, out)
    assert out.exists() == wrong.startswith("optim"), "an epoch had begun"
    right = CliRunner().invoke(app, [*train_command(out, "run.epochs=1")[3:]])
    assert right.exit_code == 0, right.stderr
    assert Run.open(out).last.exists()


def test_a_full_disk_stops_the_run_and_keeps_the_last_epoch(tmp_path, monkeypatch):
    config = tiny()
    synced = 0
    fsync = os.fsync

    def full(handle):
        nonlocal synced
        synced += 1
        if synced > 6:  # config, run, split, best, last, log: then the disk is full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        fit(config, tmp_path / "run")
    monkeypatch.undo()
    assert len(load_checkpoint(tmp_path / "run" / "last.safetensors").state["rows"]) == 1
    result = fit(config, tmp_path / "run", resume=True)
    equal_arrays(fit(config, tmp_path / "whole").run.last, result.run.last)


def test_without_validation_the_last_epoch_is_the_best(tmp_path):
    result = fit(tiny("data.val_fraction=0"), tmp_path / "run")
    assert result.best == result.rows[-1]
    assert result.best.val_hit1 is None
    equal = load_checkpoint(result.run.best).weights
    for name, array in load_checkpoint(result.run.last).weights.items():
        assert_close(equal[name], array)


def test_best_is_the_higher_hit_then_the_lower_loss(finished):
    from dataclasses import replace

    row = replace(finished.rows[0], val_hit1=0.5, val_loss=1.0)
    assert _better(replace(row, val_hit1=0.6, val_loss=2.0), row)
    assert _better(replace(row, val_loss=0.9), row)
    assert not _better(row, row)
    assert not _better(replace(row, val_hit1=0.4, val_loss=0.1), row)


def test_the_average_is_that_of_the_weights(tmp_path):
    """With decay d, mean <- d * mean + (1 - d) * weights, step by step."""
    import tinyvid.trainer as module

    seen = []
    original = module.Trainer._update_average

    def spy(self, step):
        before = dict(self.average)
        original(self, step)
        seen.append((step, before, self.weights(), dict(self.average)))

    module.Trainer._update_average = spy
    try:
        fit(tiny("optim.ema=0.5", "run.epochs=1"), tmp_path / "run")
    finally:
        module.Trainer._update_average = original
    assert len(seen) == 2
    for step, averages, weights, after in seen:
        before = {name: t.numpy() for name, t in averages.items()}
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in weights.items():
            if value.dtype.kind == "f":
                want = decay * before[name].astype(float) + (1 - decay) * value.astype(float)
                assert_close(after[name], want.astype(value.dtype), atol=1e-6)
            else:
                assert_close(after[name], value)


def test_weight_decay_spares_biases_and_norms():
    config = resolved(tiny())
    model = build_model(config, 2)
    groups = build_optimiser(model, config.optim).param_groups
    assert [g["weight_decay"] for g in groups] == [config.optim.weight_decay, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2]),
        ("constant", [0.5, 1.0, 1.0, 1.0]),
        ("step", [1.0, 1.0, 0.1, 0.1]),
    ],
)
def test_schedules_by_hand(name, want):
    """Two steps an epoch, three epochs, one of them to warm up; step drops after each epoch."""
    config = tiny(f"schedule.name={name}", "schedule.step_epochs=1", "run.epochs=3", "optim.lr=1")
    optimiser = build_optimiser(build_model(resolved(config), 2), config.optim)
    schedule = build_schedule(optimiser, config, steps=2)
    rates = []
    for _ in want:
        rates.append(optimiser.param_groups[0]["lr"])
        schedule.step()
    assert_close(np.array(rates), np.array(want), rtol=1e-12)


def test_a_constant_rate_needs_nobuild_schedule():
    config = tiny("schedule.name=constant", "schedule.warmup_epochs=0")
    optimiser = optim.SGD(build_model(resolved(config), 2).parameters(), lr=0.1)
    assert build_schedule(optimiser, config, steps=2) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.name=slow_fussion"], "no network is called 'slow_fussion'.*slow_fusion"),
        (["model.options.widht=3"], "no option 'widht'.*Did you mean 'width'"),
        (["data.options.per_clas=3"], "no option 'per_clas'.*Did you mean 'per_class'"),
        (["data.path=verb"], "verb: no such file or folder.*Did you mean 'verbs'"),
        (['data.options.classes=["grow"]'], "verbs has only one class, 'grow': there is nothing"),
        (["clip.frames=9"], "a clip of 9 frames .* is longer than every video"),
        (["augment.scale=[0.9, 0.1]"], "scale must be two rising shares"),
    ],
)
def test_wrong_choices_are_told_before_training(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        fit(tiny(*overrides), tmp_path / "run")


def test_a_network_learns_left_from_right(tmp_path):
    """A learning test on the smallest task: a few videos of two verbs, seen again and again."""
    config = tiny(
        "data.options.per_class=6",
        "data.val_fraction=0",
        "model.options.width=4",
        "run.epochs=30",
        "optim.lr=0.01",
        "optim.label_smoothing=0",
    )
    result = fit(config, tmp_path / "run")
    assert result.rows[-1].train_acc > 0.9
    assert result.rows[-1].train_loss < result.rows[0].train_loss / 2


def test_the_logged_loss_is_that_of_the_labels(tmp_path):
    """With smoothing 1 the gradient is that of uniform targets; the log stays with the labels."""
    plain = tiny("run.epochs=1", "optim.lr=0", "data.val_fraction=0", "optim.label_smoothing=0")
    smooth = tiny("run.epochs=1", "optim.lr=0", "data.val_fraction=0", "optim.label_smoothing=1")
    rows = [fit(c, tmp_path / str(i)).rows[0] for i, c in enumerate((plain, smooth))]
    assert rows[0].train_loss == rows[1].train_loss


def test_few_steps_are_told(tmp_path):
    class Told(Notes):
        def start(self, run, parts, epoch, steps):
            pass

    told = Told()
    fit(tiny("run.epochs=1"), tmp_path / "run", listener=told)
    assert [n.split(",")[0] for n in told.notes] == [
        "2 steps in all are few to learn from: give more --epochs"
    ]
    told = Notes()
    with pytest.raises(AssertionError, match="training began"):
        fit(tiny("run.epochs=50"), tmp_path / "long", listener=told)
    assert told.notes == []


def test_running_statistics_are_the_mean_of_the_first_steps(tmp_path):
    """Weights 1, 1/2, 1/3 ... make it their mean; from the tenth on it follows at 0.1."""
    import tinyvid.trainer as module

    seen = []
    original = module.Trainer._set_momentum

    def spy(self, step):
        original(self, step)
        seen.append((step, {norm.momentum for norm, _ in self.norms}))

    module.Trainer._set_momentum = spy
    try:
        fit(tiny("run.epochs=7"), tmp_path / "run")
    finally:
        module.Trainer._set_momentum = original
    assert seen == [(k, {1 / (k + 1)}) for k in range(9)] + [(k, {0.1}) for k in range(9, 14)]


def test_after_a_few_steps_tested_is_what_was_trained(tmp_path):
    """Running statistics that hold on to where they start take one class for another."""
    config = load_config(
        overrides=[
            "data.options.per_class=3",
            'data.options.classes=["move_left", "move_right", "grow"]',
            "data.val_fraction=0",
            "augment.speed=0",
            "run.batch_size=8",
            "run.epochs=5",
        ]
    )
    result = fit(config, tmp_path / "run")
    assert result.rows[-1].train_acc == 1.0
    videos = open_data("verbs", **config.data.options)
    scores = score(result.model, videos, config, clips=2)
    assert measure(scores.logits, scores.labels, scores.videos).video_hit_1 == 1.0
