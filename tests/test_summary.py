"""The tables: every number of the lecture's sections 3 and 4, and what the commands print."""

import csv
import io
import json
import math
import re
import tracemalloc

import numpy as np
import pytest
import typer
from compare import assert_close
from typer.testing import CliRunner

import tinyvid
from tinyvid import models, nn
from tinyvid.cli import inspect
from tinyvid.errors import UserError
from tinyvid.kernels import memory
from tinyvid.step_memory import step_memory
from tinyvid.summary import compare_fusion, label, summarise, total
from tinyvid.trace import size_text, trace

# layer, size, RF clipped, RF unclipped: the table of section 3, but for its input row
WORKED = {
    "worked_late_fusion": [
        ("Conv2D(3×3, 3→12)", "12×20×64×64", "1×3×3", "1×3×3"),
        ("Pool2D(4×4)", "12×20×16×16", "1×6×6", "1×6×6"),
        ("Conv2D(3×3, 12→24)", "24×20×16×16", "1×14×14", "1×14×14"),
        ("GAP", "24×1×1×1", "20×64×64", "20×74×74"),
    ],
    "worked_early_fusion": [
        ("Conv2D(3×3, 3·20→12)", "12×64×64", "20×3×3", "20×3×3"),
        ("Pool2D(4×4)", "12×16×16", "20×6×6", "20×6×6"),
        ("Conv2D(3×3, 12→24)", "24×16×16", "20×14×14", "20×14×14"),
        ("GAP", "24×1×1×1", "20×64×64", "20×74×74"),
    ],
    "worked_slow_fusion": [
        ("Conv3D(3×3×3, 3→12)", "12×20×64×64", "3×3×3", "3×3×3"),
        ("Pool3D(4×4×4)", "12×5×16×16", "6×6×6", "6×6×6"),
        ("Conv3D(3×3×3, 12→24)", "24×5×16×16", "14×14×14", "14×14×14"),
        ("GAP", "24×1×1×1", "20×64×64", "30×74×74"),
    ],
}

# layer, kernel, size: the table of section 4
C3D = [
    ("clip", None, "3×16×112×112"),
    ("conv1", "3×3×3", "64×16×112×112"),
    ("pool1", "1×2×2", "64×16×56×56"),
    ("conv2", "3×3×3", "128×16×56×56"),
    ("pool2", "2×2×2", "128×8×28×28"),
    ("conv3a", "3×3×3", "256×8×28×28"),
    ("conv3b", "3×3×3", "256×8×28×28"),
    ("pool3", "2×2×2", "256×4×14×14"),
    ("conv4a", "3×3×3", "512×4×14×14"),
    ("conv4b", "3×3×3", "512×4×14×14"),
    ("pool4", "2×2×2", "512×2×7×7"),
    ("conv5a", "3×3×3", "512×2×7×7"),
    ("conv5b", "3×3×3", "512×2×7×7"),
    ("pool5", "2×2×2", "512×1×3×3"),
    ("fc6", None, "4096"),
    ("fc7", None, "4096"),
    ("fc8", None, "101"),
]


def summary_of(name, classes=101, clip=None):
    with nn.shapes_only():
        model = models.build(name, classes, clip)
    return summarise(model, clip or models.entry(name).clip, fold=True)


@pytest.mark.parametrize("name", WORKED)
def test_worked_example(name):
    rows = summary_of(name, clip=(3, 20, 64, 64))[1:5]
    table = [(r.layer, *map(size_text, (r.size, r.clipped, r.receptive_field))) for r in rows]
    assert table == WORKED[name]
    assert [r.then for r in rows] == [("ReLU",), (), ("ReLU",), ()]


@pytest.mark.parametrize("name", ["c3d_lecture", "c3d"])
def test_c3d_layers(name):
    expected = dict.fromkeys(["c3d_lecture", "c3d"], C3D)[name]
    rows = summary_of(name)
    for row, (layer, kernel, size) in zip(rows, expected, strict=True):
        if name == "c3d" and layer == "pool5":
            size = "512×1×4×4"
        assert (row.name, size_text(row.size)) == (layer, size)
        assert kernel is None or row.layer.partition("(")[2].startswith(kernel)


def test_c3d_receptive_field():
    row = next(r for r in summary_of("c3d") if r.name == "conv5b")
    assert size_text(row.receptive_field) == "68×134×134"
    assert size_text(row.clipped) == "16×112×112"


@pytest.mark.parametrize(("name", "millions"), [("c3d", 78.41), ("c3d_lecture", 63.73)])
def test_c3d_parameters_and_arithmetic(name, millions):
    rows = summary_of(name)
    assert round(total(rows).parameters / 1e6, 2) == millions
    convs = [r for r in rows if r.layer.startswith("Conv3D")]
    assert round(sum(r.macs for r in convs) / 1e9, 2) == 38.50
    assert round(sum(r.flops for r in convs) / 1e9, 1) == 77.0


def test_arithmetic_and_bytes_by_hand():
    rows = {r.name: r for r in summary_of("worked_slow_fusion", 5)}
    conv = rows["conv2"]
    assert conv.parameters == 24 * 12 * 27 + 24
    assert conv.macs == (24 * 5 * 16 * 16) * (12 * 27)
    assert conv.flops == 2 * conv.macs
    outputs = 24 * 5 * 16 * 16
    assert conv.training_bytes == 4 * outputs * 2  # before and after the ReLU
    assert conv.inference_bytes == 4 * 2 * outputs  # the ReLU's input and output
    pool, cells = rows["pool1"], 12 * 5 * 16 * 16
    assert pool.training_bytes == 5 * cells  # the maximum and, in a byte, where it was
    assert pool.inference_bytes == 4 * (12 * 20 * 64 * 64 + cells)
    assert (rows["fc"].parameters, rows["fc"].macs) == (24 * 5 + 5, 24 * 5)
    sums = total(list(rows.values()))
    assert sums.inference_bytes == 2 * 4 * 12 * 20 * 64 * 64  # at the first ReLU
    assert sums.training_bytes == sum(r.training_bytes for r in rows.values())


def test_lstm_arithmetic():
    row = next(r for r in summary_of("cnn_lstm", 5) if r.name == "lstm")
    assert row.macs == 16 * 4 * 64 * (64 + 64)
    assert row.size == (64, 16)
    assert row.layer == "LSTM(64→64)"


def test_shared_layer_counts_parameters_once():
    layer = nn.Conv3d(1, 1, 1)
    model = nn.Sequential(a=layer, relu=nn.ReLU(), b=layer)
    rows = summarise(model, (1, 2, 3, 3))
    assert sum(r.parameters for r in rows) == 2
    assert sum(r.macs for r in rows) == 2 * 18


@pytest.mark.parametrize("name", ["slow_fusion", "early_fusion", "worked_late_fusion"])
def test_training_bytes_are_what_the_engine_keeps(name):
    clip = (3, 8, 96, 96)
    model = models.build(name, 5, clip)
    frames_last = np.random.default_rng(0).random((2, 8, 96, 96, 3), np.float32)
    x = tinyvid.tensor(frames_last.transpose(0, 4, 1, 2, 3))
    for layer in model.modules():  # looked at, each layer runs by itself
        layer.register_forward_hook(lambda module, inputs, output: None)
    model(x)  # compiles what has to be
    memory.release()  # what is used again would not be seen
    tracemalloc.start()
    try:
        y = model(x)
        kept = tracemalloc.get_traced_memory()[0] / 2
    finally:
        tracemalloc.stop()
    assert y.requires_grad
    expected = total(summarise(model, clip)).training_bytes - 4 * math.prod(clip)
    assert 0.75 * expected < kept < 1.15 * expected


def test_following_shapes_equals_running():
    rng = np.random.default_rng(0)
    for name in ("single_frame", "late_fusion", "early_fusion", "slow_fusion", "cnn_lstm"):
        clip = (2, 4, 36, 32)
        model = models.build(name, 3, clip, width=2).eval()
        names, shapes = {id(m): n for n, m in model.named_modules()}, {}

        def note(m, x, y, names=names, shapes=shapes):
            shapes[names[id(m)]] = (y[0] if isinstance(y, tuple) else y).shape

        handles = [m.register_forward_hook(note) for m in model.modules()]
        model(tinyvid.tensor(rng.random((1, *clip), np.float32)))
        for handle in handles:
            handle.remove()
        for step in trace(model, clip):
            assert shapes[step.name] == step.y, (name, step.name)


def test_tracing_leaves_the_model_as_it_was():
    model = models.build("slow_fusion", 3, (3, 8, 32, 32), width=2)
    assert model.training
    assert all(m.training and "forward" not in vars(m) for m in model.modules())
    with pytest.raises(UserError, match=r"trunk\.conv1 gets 5×8×32×32"):
        trace(model, (5, 8, 32, 32))
    assert all(m.training and "forward" not in vars(m) for m in model.modules())


def test_linear_and_lstm_that_do_not_fit():
    with pytest.raises(UserError, match="it takes 7 features"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), (1, 1, 2, 2))
    with pytest.raises(UserError, match="sequences of 3 features"):
        trace(nn.Sequential(nn.Flatten(), nn.LSTM(3, 2)), (1, 1, 2, 2))


def test_labels():
    clip = (4, 4, 8, 8)
    layers = {
        "Conv3D(1×3×5, 4→6, stride 1×2×2)": nn.Conv3d(4, 6, (1, 3, 5), (1, 2, 2)),
        "AvgPool3D(2×2×2)": nn.AvgPool3d(2),
        "Pool3D(3×3×3, stride 2, padding 1×1×1)": nn.MaxPool3d(3, 2, 1),
        "BatchNorm": nn.BatchNorm3d(4),
        "LRN": nn.LocalResponseNorm(5),
        "GAP": nn.GlobalAvgPool(),
        "Dropout(0.5)": nn.Dropout(),
        "Flatten": nn.Flatten(),
    }
    for text, layer in layers.items():
        (step,) = trace(layer, clip)
        assert label(step) == text


def test_early_fusion_beside_3d_convolution():
    early, slow = compare_fusion((3, 20, 64, 64), 12)
    assert (early.weight, early.output) == ((12, 3 * 20, 3, 3), (12, 64, 64))
    assert (slow.weight, slow.output) == ((12, 3, 3, 3, 3), (12, 20, 64, 64))
    assert (early.weights, slow.weights) == (12 * 3 * 20 * 9, 12 * 3 * 27)
    assert (early.macs, slow.macs) == (64 * 64 * 12 * 540, 20 * 64 * 64 * 12 * 81)


def test_only_3d_convolution_is_shift_equivariant():
    rng = np.random.default_rng(0)
    clip = rng.standard_normal((1, 2, 9, 5, 5)).astype(np.float32)
    later = np.roll(clip, 1, axis=2)
    early = nn.Conv2d(2 * 9, 3, 3, padding="same", bias=False)
    slow = nn.Conv3d(2, 3, 3, padding="same", bias=False)
    a, b = (slow(tinyvid.tensor(x)).numpy() for x in (clip, later))
    assert_close(b[:, :, 3:-1], a[:, :, 2:-2], atol=1e-5)
    a, b = (early(tinyvid.tensor(x)).numpy() for x in (clip, later))
    assert np.abs(a - b).max() > 0.1


# What the commands print


@pytest.fixture(scope="module")
def command():
    app = typer.Typer()
    for name in ("models", "summary", "budget"):
        app.command(name)(getattr(inspect, name))

    def run(*args, columns=None):
        env = {"COLUMNS": None if columns is None else str(columns)}
        result = CliRunner().invoke(app, list(map(str, args)), env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return run


def cells(line):
    return [cell for cell in re.split(r"\s{2,}", line.strip()) if cell]


@pytest.mark.parametrize("name", WORKED)
def test_summary_prints_the_worked_example(command, name):
    lines = command("summary", name, "--clip", "3x20x64x64").splitlines()
    for layer, size, clipped, whole in WORKED[name]:
        field = clipped if clipped == whole else f"{clipped} [{whole}]"
        assert any({layer, size, field} <= set(cells(line)) for line in lines), layer


def test_summary_prints_c3d(command):
    text = command("summary", "c3d_lecture", "--classes", 101)
    lines = [cells(line) for line in text.splitlines()]
    for name, _, size in C3D:
        assert any(line[:1] == [name] and size in line for line in lines), name
    assert "16×112×112 [68×134×134]" in text
    assert "38.50 GMAC = 76.99 GFLOP" in text
    assert "clipped to the clip [unclipped, if larger]" in text
    assert "63,729,509" in text
    assert "78,409,573" in command("summary", "c3d")


def test_summary_prints_the_memory_of_a_training_step(command):
    found = []
    for batch in (1, 4):
        text = command("summary", "slow_fusion", "--batch", batch)
        size, unit = re.search(rf"step on {batch} clips holds (\S+) (.iB) of arrays", text).groups()
        found.append(float(size) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit[0]])
    with nn.shapes_only():
        model = models.build("slow_fusion", models.entry("slow_fusion").classes)
    clip = models.entry("slow_fusion").clip
    assert found == pytest.approx([step_memory(model, clip, n).peak for n in (1, 4)], rel=1e-3)


def test_summary_of_no_classes_is_refused(command):
    assert "3 classes" in command("summary", "slow_fusion", "--classes", 3)
    with pytest.raises(UserError, match="num_classes=0"):
        command("summary", "slow_fusion", "--classes", 0)


@pytest.mark.parametrize("name", ["c3d", "slow_fusion", "worked_early_fusion"])
def test_summary_fits_a_narrow_terminal(command, name):
    text = command("summary", name, columns=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for row in summary_of(name, models.entry(name).classes):
        assert text.count(f"\n{row.name} ") == 2  # once in each of the two tables


def test_summary_of_every_layer_and_of_options(command):
    text = command("summary", "slow_fusion", "--all", "-o", "width=8")
    assert "Conv3D(3×3×3, 3→8, stride 1×2×2)" in text
    assert [cells(line)[1] for line in text.splitlines() if line.startswith("relu")] == ["ReLU"] * 4


def test_summary_as_json_and_csv(command):
    rows = json.loads(command("summary", "worked_slow_fusion", "--json"))
    assert rows[1]["size"] == [12, 20, 64, 64]
    assert rows[1]["flops"] == 2 * rows[1]["macs"] == 2 * 20 * 64 * 64 * 12 * 81
    text = command("summary", "worked_slow_fusion", "worked_late_fusion", "--csv")
    table = list(csv.DictReader(io.StringIO(text)))
    assert {r["model"] for r in table} == {"worked_slow_fusion", "worked_late_fusion"}
    assert table[1]["size"] == "12×20×64×64"
    assert table[1]["then"] == "ReLU"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["c3f"], "Did you mean 'c3d'"),
        (["c3d", "--clip", "3x16x112"], "--clip 3x16x112"),
        (["c3d", "--clip", "3x8x56x56"], "pool5 gets 512×1×3×3"),
        (["c3d", "--batch", "0"], "at least 1"),
        (["c3d", "-o", "width"], "write name=value"),
        (["c3d", "-o", "widht=3"], "Did you mean 'width'"),
    ],
)
def test_summary_refuses(command, args, message):
    with pytest.raises(UserError, match=message):
        command("summary", *args)


@pytest.mark.parametrize("columns", [None, 80])
def test_models_lists_them_all(command, columns):
    text = command("models", columns=columns)
    lines = {line[0]: line for line in map(cells, text.splitlines()) if line}
    assert set(models.names()) <= set(lines)
    assert lines["c3d"][1:4] == ["3×16×112×112", "78.41 M", "38.55 G"]
    assert columns is None or max(map(len, text.splitlines())) <= columns
    listed = {r["name"]: r for r in json.loads(command("models", "--json"))}
    assert listed["c3d"]["parameters"] == 78_409_573
    assert listed["c3d"]["clip"] == [3, 16, 112, 112]


def test_budget_prints_the_lecture(command):
    text = command("budget", "--seconds", 3.2, "--fps", 5, "--size", 112)
    clip = next(cells(line) for line in text.splitlines() if "the clip" in line)
    assert clip[1:] == ["16", "112×112", "602,112", "588 KiB"]
    assert ["1,658,880,000", "1.545 GiB"] in [cells(line)[-2:] for line in text.splitlines()]
    assert ["11,197,440,000", "10.43 GiB"] in [cells(line)[-2:] for line in text.splitlines()]
    found = json.loads(command("budget", "--height", 48, "--width", 64, "--bits", 8, "--json"))
    assert found["frame_bytes"] == 48 * 64
    assert found["clip_bytes"] == 16 * 48 * 64
    assert max(map(len, command("budget", columns=80).splitlines())) <= 80


def test_the_legend_says_what_is_kept_and_fits_80_columns(command):
    text = command("summary", "worked_slow_fusion", columns=80)
    assert inspect.LEGEND in text
    assert max(map(len, inspect.LEGEND.splitlines())) <= 80
    assert "what each layer gave" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.000 k"), (78_409_573, "78.41 M"), (999_960, "1.000 M")],
)
def test_count(number, text):
    assert inspect.count(number) == text
