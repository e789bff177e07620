"""Training on device `cuda`, on a stand-in for CuPy: a step, and an epoch of the command line."""

import csv
import shutil

import cupy_stand_in
import numpy as np
import pytest
from compare import assert_close
from typer.testing import CliRunner

import tinyvid
from tinyvid import nn, optim
from tinyvid.checkpoint import load_checkpoint
from tinyvid.cli import app
from tinyvid.config import load_config
from tinyvid.evaluate import Scores
from tinyvid.runs import Run
from tinyvid.train import Listener, fit
from tinyvid.trainer import Trainer

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def small_network():
    return nn.Sequential(
        nn.Conv3d(3, 4, 3, padding=1, bias=False),  # BatchNorm would take it away again
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.GlobalAvgPool(),
        nn.Dropout(0.5),
        nn.Linear(4, 3),
    )


OPTIMISERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.01),
}


def train(optimiser, device, after_step=lambda: None, after_loss=lambda: None):
    """Train the small network for three steps; return the losses, and the weights."""
    clips = np.random.default_rng(0).standard_normal((4, 3, 4, 6, 6)).astype(np.float32)
    tinyvid.manual_seed(0)
    model = small_network().to(device)
    optimizer = OPTIMISERS[optimiser](model.parameters())
    x = tinyvid.tensor(clips, device=device)
    labels = tinyvid.tensor(np.array([0, 2, 1, 1]), device=device)
    losses = []
    for _ in range(3):
        loss = tinyvid.cross_entropy(model(x), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        after_step()
        losses.append(loss.item())
        after_loss()
    assert all(type(a) is np.ndarray for a in optimizer.state_dict()["state"].values())
    return losses, {name: t.numpy() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_step_reads_nothing_from_the_device_but_the_loss(cupy, optimiser):
    counts = []

    def count():
        counts.append(list(cupy_stand_in.reads))
        cupy_stand_in.reads.clear()

    losses, weights = train(optimiser, "cuda", count, count)
    assert counts == 3 * [[], [4]]
    want_losses, want_weights = train(optimiser, "cpu")
    assert losses == pytest.approx(want_losses, rel=1e-5)
    assert losses[2] != pytest.approx(losses[0], rel=1e-2)
    for key, want in want_weights.items():
        assert_close(weights[key], want, rtol=1e-3, atol=1e-5)


SETTINGS = [
    *("data.options.per_class=3", "data.options.size=16", "data.options.frames=8"),
    'data.options.classes=["move_left", "move_right"]',
    *("clip.frames=8", "clip.stride=1", "clip.height=16", "clip.width=16"),
    *("data.workers=0", "data.val_fraction=0.34", "optim.ema=0.9"),
    # Two clips at a time in training and in validation: each size is a kernel to compile.
    *("run.batch_size=2", "run.val_clips=1"),
]


def tinyvid_command(*args):
    result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_line_trains_and_tests_the_worked_example(cupy, tmp_path, monkeypatch):
    reads, whole_epoch = [], Trainer.epoch

    def epoch(self, *args):
        cupy_stand_in.reads.clear()
        row = whole_epoch(self, *args)
        reads.extend(cupy_stand_in.reads)
        return row

    monkeypatch.setattr(Trainer, "epoch", epoch)
    logs, scores = {}, {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        command = ("train", "worked_slow_fusion", "--data", "verbs", "--epochs", 1, "--out", out)
        tinyvid_command(
            *command,
            "--device",
            device,
            *(word for setting in SETTINGS for word in ("--set", setting)),
        )
        with (out / "log.csv").open() as file:
            (logs[device],) = csv.DictReader(file)
        tinyvid_command("test", out, "--clips", 1)
        scores[device] = Scores.load(out / "test" / "scores.npz").logits
        assert next(Run.open(out).model()[0].parameters()).device == device
    # In each step the loss, the length of the gradient in float64, the scores of two clips.
    assert reads == int(logs["cuda"]["step"]) * [4, 8, 2 * 2 * 4]
    for key in ("train_loss", "val_loss"):
        assert float(logs["cuda"][key]) == pytest.approx(float(logs["cpu"][key]), rel=1e-5)
    assert_close(scores["cuda"], scores["cpu"], rtol=1e-4, atol=1e-5)
    # What was trained on one device is tested on another, with the same scores.
    tinyvid_command("test", tmp_path / "cuda", "--clips", 1, "--device", "cpu", "--out", tmp_path)
    assert_close(Scores.load(tmp_path / "scores.npz").logits, scores["cuda"], rtol=1e-4, atol=1e-5)


def test_a_run_on_cuda_goes_on_to_the_bit(cupy, tmp_path):
    class Stop(Listener):
        def epoch(self, row, best):
            raise KeyboardInterrupt

    named = {"model.name": "worked_slow_fusion", "run.device": "cuda", "run.epochs": 2}
    config = load_config(overrides=SETTINGS, named=named)
    fit(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "stopped", listener=Stop())
    fit(config, tmp_path / "stopped", resume=True)
    whole, resumed = (
        load_checkpoint(tmp_path / run / "last.safetensors") for run in ("whole", "stopped")
    )
    for name, want in whole.weights.items():
        assert_close(resumed.weights[name], want)
    for name, want in whole.state["average"].items():
        assert_close(resumed.state["average"][name], want)
