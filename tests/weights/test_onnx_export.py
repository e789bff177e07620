"""ONNX: every network gives there the scores that it gives here."""

import json
import sys

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import models, nn
from tinyvid.errors import UserError
from tinyvid.models.parts import Network
from tinyvid.weights.onnx_export import export_onnx

CLIPS = {
    "karpathy_slow_fusion": (3, 10, 75, 91),
    "c3d": (3, 16, 32, 40),
    "c3d_lecture": (3, 16, 32, 40),
}
RNG = np.random.default_rng(0)


def narrow(name):
    """Return a network with few channels, its numbers drawn at random, and its clip."""
    large = name.startswith(("karpathy", "cnn_m"))
    clip = CLIPS.get(name, (3, 5, 91, 107) if large else (3, 5, 32, 40))
    known = models.entry(name).defaults
    small = {"width": 2, "hidden": 6}
    options = {key: value for key, value in small.items() if key in known}
    tinyvid.manual_seed(0)
    model = models.build(name, 4, clip, **options)
    weights = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    for key, array in weights.items():
        if key.endswith("running_var"):
            weights[key] = RNG.uniform(0.5, 2, array.shape).astype(array.dtype)
        elif key.endswith(("running_mean", "bias")):
            weights[key] = RNG.normal(size=array.shape).astype(array.dtype)
    model.load_state_dict(weights)
    return model, clip


def run(path, x):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"clips": x})
    return scores


def agree(model, path, x):
    ours = model.eval()(tinyvid.tensor(x)).numpy()
    theirs = run(path, x)
    largest = float(np.abs(ours).max())
    assert_close(theirs, ours, atol=1e-5 * max(1.0, largest))
    assert np.ptp(ours) > 1e-3 * largest  # so that the comparison says something


@pytest.mark.parametrize("name", models.names())
def test_every_network_agrees(name, tmp_path):
    pytest.importorskip("onnx")
    model, clip = narrow(name)
    before = model.training
    export_onnx(model, tmp_path / "net.onnx", clip)
    assert model.training == before
    assert not any("forward" in vars(module) for module in model.modules())
    for batch in (1, 3):  # the batch is free
        agree(model, tmp_path / "net.onnx", RNG.normal(size=(batch, *clip)).astype(np.float32))


class Layers(Network):
    def __init__(self, *layers):
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


LSTM = {"batch_first": True, "num_layers": 2, "bidirectional": True, "bias": False}
CASES = {
    "convolution with everything": (
        (4, 5, 9, 8),
        [nn.Conv3d(4, 6, (2, 3, 2), (1, 2, 1), (1, 0, 2), (1, 2, 1), groups=2, bias=False)],
    ),
    "padding that is not even": ((2, 4, 7, 7), [nn.Conv3d(2, 3, (2, 4, 3), padding="same")]),
    "pools": (
        (2, 6, 9, 8),
        [nn.MaxPool3d(2, 1, 1, (1, 2, 1)), nn.AvgPool3d((2, 3, 1), (1, 2, 1), (1, 1, 0))],
    ),
    "average without padding": (
        (2, 6, 9, 8),
        [nn.AvgPool3d(3, 2, 1, count_include_pad=False), nn.Sigmoid()],
    ),
    "norms": (
        (3, 2, 4, 5),
        [nn.BatchNorm3d(3, affine=False), nn.LayerNorm((4, 5)), nn.LayerNorm(5, bias=False)],
    ),
    "linear on many": ((2, 3, 4, 5), [nn.Linear(5, 3), nn.Linear(3, 2, bias=False), nn.Tanh()]),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_agree(case, tmp_path):
    pytest.importorskip("onnx")
    clip, layers = CASES[case]
    model = Layers(*layers).eval()
    export_onnx(model, tmp_path / "net.onnx", clip)
    agree(model, tmp_path / "net.onnx", RNG.normal(size=(2, *clip)).astype(np.float32))


class Sequences(Network):
    def __init__(self, **options):
        self.pool, self.lstm = nn.GlobalAvgPool(), nn.LSTM(3, 4, **options)

    def forward(self, x):
        n, c, t, h, w = x.shape
        x = self.pool(x.permute(0, 2, 1, 3, 4).reshape(n * t, c, h, w)).reshape(n, t, c)
        return self.lstm(x if self.lstm.batch_first else x.permute(1, 0, 2))[0]


@pytest.mark.parametrize("options", [{"batch_first": True}, LSTM, {"num_layers": 2}])
def test_lstms_agree(options, tmp_path):
    pytest.importorskip("onnx")
    model = Sequences(**options)
    export_onnx(model, tmp_path / "net.onnx", (3, 6, 2, 2))
    agree(model, tmp_path / "net.onnx", RNG.normal(size=(2, 3, 6, 2, 2)).astype(np.float32))


def test_metadata_and_names(tmp_path):
    onnx = pytest.importorskip("onnx")
    model, clip = narrow("worked_slow_fusion")
    export_onnx(model, tmp_path / "net.onnx", clip, {"classes": ["a", "b"], "mean": [0.5]})
    read = onnx.load(tmp_path / "net.onnx")
    assert {p.key: json.loads(p.value) for p in read.metadata_props} == {
        "classes": ["a", "b"],
        "mean": [0.5],
    }
    names = {tensor.name for tensor in read.graph.initializer}
    assert set(model.state_dict()) <= names
    (given,) = read.graph.input
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["N", *clip]


class Unknown(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        (Unknown(), r"layers\.0 is a Unknown, which cannot be written"),
        (nn.MaxPool3d(2, ceil_mode=True), "rounds up"),
        (nn.AvgPool3d(2, divisor_override=3), "divides by a number of its own"),
        (nn.Flatten(2), "joins other axes"),
        (nn.BatchNorm3d(3, track_running_stats=False), "keeps no running statistics"),
    ],
)
def test_what_cannot_be_written_is_named(layer, fault, tmp_path):
    pytest.importorskip("onnx")
    model = Layers(layer)
    with pytest.raises(UserError, match=fault):
        export_onnx(model, tmp_path / "net.onnx", (3, 4, 6, 6))
    assert list(tmp_path.iterdir()) == []
    assert not any("forward" in vars(module) for module in model.modules())


def test_without_onnx(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    model, clip = narrow("worked_slow_fusion")
    with pytest.raises(UserError, match=r"pip install 'tinyvid\[onnx\]'"):
        export_onnx(model, tmp_path / "net.onnx", clip)
