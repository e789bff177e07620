"""Checkpoints of other programs give the scores that they gave there."""

import json
from itertools import pairwise

import numpy as np
import pytest
from compare import assert_close
from safetensors.numpy import load_file, save_file
from torch_files import Tensor, write
from typer.testing import CliRunner

import tinyvid
from tinyvid import models
from tinyvid.cli import app
from tinyvid.data import normalise
from tinyvid.errors import UserError
from tinyvid.runs import Run, start_from
from tinyvid.weights.convert import convert
from tinyvid.weights.layouts import LAYERS, LAYOUTS

WIDTH, HIDDEN, CLASSES = 2, 5, 3
PLANES = [3, *(factor * WIDTH for factor in (1, 2, 4, 4, 8, 8, 8, 8))]


def checkpoint(layout, side=4, seed=0):
    """Return weights of a narrow C3D in a layout, as its own program would save them."""
    rng = np.random.default_rng(seed)
    shapes = [
        *((k, c, 3, 3, 3) for c, k in pairwise(PLANES)),
        (HIDDEN, PLANES[-1] * side * side),
        (HIDDEN, HIDDEN),
        (CLASSES, HIDDEN),
    ]
    found = {}
    for name, shape in zip(LAYOUTS[layout].layers, shapes, strict=True):
        scale = np.sqrt(2 / np.prod(shape[1:]))
        found[f"{name}.weight"] = (scale * rng.normal(size=shape)).astype(np.float32)
        found[f"{name}.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    return found


def their_scores(weights, layout, frames):
    """Return what their program makes of frames `T H W 3` of RGB bytes."""
    known = LAYOUTS[layout]
    names = known.layers
    x = frames.astype(np.float32) - np.array(known.mean, np.float32)
    if known.colours == "BGR":
        x = x[..., ::-1]
    x = tinyvid.tensor(np.ascontiguousarray(x.transpose(3, 0, 1, 2))[None])

    def layer(name):
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    pools = {0: 1, 1: 2, 3: 2, 5: 2, 7: 2}
    for i, name in enumerate(names[:8]):
        w, b = layer(name)
        x = tinyvid.relu(tinyvid.conv3d(x, w, b, padding=1))
        if i in pools:
            window = (pools[i], 2, 2)
            x = tinyvid.max_pool3d(x, window, padding=(0, 1, 1) if i == 7 else 0)
    x = x.reshape(1, -1)
    for i, name in enumerate(names[8:]):
        w, b = layer(name)
        x = tinyvid.linear(x, w, b)
        x = tinyvid.relu(x) if i < 2 else x
    return x.numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_scores_are_those_of_the_other_program(tmp_path, monkeypatch, layout):
    weights = checkpoint(layout)
    content = {"state_dict": {f"module.{name}": Tensor(a) for name, a in weights.items()}}
    source = write(tmp_path / "theirs.pth", content, monkeypatch, archive=layout != "c3d")
    assert convert(source, tmp_path / "run", ["a", "b", "c"]).name == layout
    run = Run.open(tmp_path / "run")
    assert run.classes == ["a", "b", "c"]
    assert run.config.model.name == "c3d"
    assert (run.config.clip.stride, run.config.clip.fps) == (1, None)
    model, _ = run.model()
    frames = np.random.default_rng(1).integers(0, 256, (16, 112, 112, 3), np.uint8)
    clips = np.ascontiguousarray(frames.transpose(3, 0, 1, 2))[None]
    x = normalise(clips, run.config.clip.mean, run.config.clip.std)
    with tinyvid.no_grad():
        ours = model(tinyvid.tensor(x)).numpy()
        theirs = their_scores(weights, layout, frames)
    assert_close(ours, theirs, rtol=2e-4, atol=2e-4 * float(np.abs(theirs).max()))
    assert np.ptp(theirs) > 1e-2 * np.abs(theirs).max()  # so that the comparison says something


def test_padding_of_pool5_is_told_by_fc6(tmp_path):
    save_file(checkpoint("vgg", side=3), tmp_path / "w.safetensors")
    convert(tmp_path / "w.safetensors", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.config.model.name == "c3d_lecture"
    assert run.classes == ["0", "1", "2"]
    save_file(checkpoint("vgg", side=5), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"classifier\.0 takes 400 numbers, not the 256 or 144 of"):
        convert(tmp_path / "w.safetensors", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_weights_to_train_from(tmp_path):
    theirs = checkpoint("mmaction")
    for part in ("weight", "bias"):
        del theirs[f"cls_head.fc_cls.{part}"]
    save_file(theirs, tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match=r"lacks cls_head\.fc_cls, so it tells no classes apart"):
        convert(tmp_path / "theirs.safetensors", tmp_path / "run")
    convert(tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors")
    assert set(load_file(tmp_path / "ours.safetensors")) == {
        f"{layer}.{part}" for layer in LAYERS[:-1] for part in ("weight", "bias")
    }
    model = models.build("c3d", 7, width=WIDTH, hidden=HIDDEN)
    before = model.head.fc8.weight.numpy().copy()
    assert start_from(model, tmp_path / "ours.safetensors") == ["head.fc8.weight", "head.fc8.bias"]
    assert_close(model.head.fc8.weight.numpy(), before)
    assert_close(model.trunk.conv1.weight.numpy(), theirs["backbone.conv1a.conv.weight"])
    # Only the last layer may differ.
    narrow = models.build("c3d", 7, width=WIDTH, hidden=HIDDEN + 1)
    with pytest.raises(UserError, match=r"another network: head\.fc6\.weight is \(5, 256\)"):
        start_from(narrow, tmp_path / "ours.safetensors")


def test_what_cannot_be_converted(tmp_path):
    theirs = checkpoint("c3d")

    def saved(changes, name="w.safetensors"):
        kept = {k: v for k, v in (theirs | changes).items() if v is not None}
        save_file(kept, tmp_path / name)
        return tmp_path / name

    for changes, fault in (
        (
            {"conv3a.weight": None},
            r"has the names of no known layout of C3D \(c3d, vgg, mmaction\)",
        ),
        ({"conv3a.bias": None}, r"lacks conv3a\.bias, which layout c3d has"),
        ({"fc6.bias": np.zeros(4, np.float32)}, r"fc6 has a weight of .* and a bias of \(4,\)"),
        ({"fc7.weight": np.zeros((5, 4), np.float32)}, r"another network: head\.fc7\.weight is"),
        ({"conv2.weight": np.zeros((4, 2), np.float32)}, r"conv2 has a weight of \(4, 2\)"),
    ):
        with pytest.raises(UserError, match=fault):
            convert(saved(changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    source = saved({})
    with pytest.raises(UserError, match=r"out\.h5: give NAME\.safetensors"):
        convert(source, tmp_path / "out.h5")
    with pytest.raises(UserError, match=r"w\.safetensors exists: choose another name"):
        convert(source, source)
    with pytest.raises(UserError, match="2 names of classes for the 3 of"):
        convert(source, tmp_path / "run", ["a", "b"])
    with pytest.raises(UserError, match="do not exist"):
        convert(tmp_path / "none.pth", tmp_path / "run")


def test_the_command(tmp_path):
    save_file(checkpoint("vgg"), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("run\njump\n\nfall\n")
    out = tmp_path / "run"

    def call(*args):
        return CliRunner().invoke(app, [str(arg) for arg in args])

    source = tmp_path / "w.safetensors"
    done = call("convert", source, out, "--classes", tmp_path / "labels.txt")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("layout vgg: colours BGR, mean 102, 98, 90 (red, green, blue)")
    assert Run.open(out).classes == ["run", "jump", "fall"]
    done = call("test", out)
    assert done.exit_code == 2
    assert "was not trained here: give the videos with --data" in done.output
    done = call("convert", source, tmp_path / "c3d.safetensors")
    assert "next: tinyvid train c3d --data VIDEOS --weights" in done.stdout
    done = call("convert", source, out)
    assert (done.exit_code, "exists: choose another name" in done.output) == (2, True)
    done = call("convert", source, tmp_path / "new", "--classes", tmp_path / "none.txt")
    assert (done.exit_code, "none.txt cannot be read" in done.output) == (2, True)


def test_a_run_becomes_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    save_file(checkpoint("vgg", side=3), tmp_path / "w.safetensors")
    convert(tmp_path / "w.safetensors", tmp_path / "run", ["a", "b", "c"])
    target = tmp_path / "net.onnx"

    def call(source):
        return CliRunner().invoke(app, ["convert", str(source), str(target)])

    done = call(tmp_path / "run")
    assert done.exit_code == 0, done.output
    about = {p.key: json.loads(p.value) for p in onnx.load(target).metadata_props}
    assert about["classes"] == ["a", "b", "c"]
    assert about["mean"] == pytest.approx([102 / 255, 98 / 255, 90 / 255])
    for source, fault in (
        (tmp_path / "run", "exists: choose another name"),
        (tmp_path / "w.safetensors", "make a run of it first"),
    ):
        done = call(source)
        assert (done.exit_code, fault in done.output) == (2, True)
