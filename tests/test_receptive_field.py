"""Receptive fields: the analytic rule against cells followed one by one, and against gradients."""

import numpy as np
import pytest

import tinyvid
from tinyvid import models, nn
from tinyvid.errors import UserError
from tinyvid.receptive_field import (
    Window,
    cells_through,
    measured_receptive_field,
    receptive_fields,
)
from tinyvid.trace import trace


def follow(layers, size):
    """Return, for each unit after the layers, the set of cells of the input that it sees."""
    cells = [{i} for i in range(size)]
    for kernel, stride, padding, dilation in layers:
        reach = dilation * (kernel - 1)
        starts = range(-padding, len(cells) + padding - reach, stride)
        taps = [[s + dilation * k for k in range(kernel)] for s in starts]
        cells = [set().union(*(cells[t] for t in tap if 0 <= t < len(cells))) for tap in taps]
    return cells


def test_fields_against_cells_followed_one_by_one():
    rng = np.random.default_rng(0)
    whole = 0
    for _ in range(300):
        layers = []
        for _ in range(3):
            kernel = int(rng.integers(1, 5))
            stride, padding = rng.integers(1, kernel + 1), rng.integers(0, kernel // 2 + 1)
            dilation = int(rng.integers(1, 3)) if padding == 0 else 1
            layers.append((kernel, int(stride), int(padding), dilation))
        expected = follow(layers, 60)
        window, seen = Window(), [(i, i + 1) for i in range(60)]
        for n, layer in enumerate(layers, 1):
            window = window.through(*layer)
            seen = cells_through(seen, layer, len(follow(layers[:n], 60)))
        assert list(seen) == [(min(cells), max(cells) + 1) for cells in expected]
        for i, (first, end) in enumerate(seen):
            start = window.start + i * window.jump
            assert first == max(start, 0)
            if start >= 0 and start + window.size <= 40:  # no border in sight
                assert end == start + window.size
                whole += 1
    assert whole > 1000


def test_window_through_dilation():
    window = Window().through(3, 2, 0, 2).through(2, 1, 1, 3)
    assert window == Window(size=5 + 3 * 2, jump=2, start=-2)


def test_cells_left_out_by_a_stride():
    # 8 cells at kernel 3, stride 2: the last is never seen, though later padding lies over it.
    seen = cells_through([(i, i + 1) for i in range(8)], (3, 2, 0, 1), 3)
    assert seen == ((0, 3), (2, 5), (4, 7))
    assert cells_through(seen, (3, 1, 1, 1), 3) == ((0, 5), (0, 7), (2, 7))


# One channel and small widths: what a unit sees does not depend on how many channels look.
SMALL: dict[str, tuple[tuple, dict]] = {
    "single_frame": ((1, 3, 40, 32), {"width": 2}),
    "multires": ((1, 3, 40, 32), {"width": 2}),
    "fovea": ((1, 3, 40, 36), {"width": 2}),
    "context": ((1, 3, 40, 32), {"width": 2}),
    "late_fusion": ((1, 3, 40, 32), {"width": 2, "hidden": 4}),
    "late_fusion_gap": ((1, 3, 40, 32), {"width": 2}),
    "early_fusion": ((1, 4, 40, 32), {"width": 2}),
    "slow_fusion": ((1, 17, 40, 32), {"width": 2}),
    "temporal_stream": ((1, 4, 40, 32), {"width": 2}),
    "cnn_lstm": ((1, 3, 40, 32), {"width": 2, "hidden": 4}),
    "worked_late_fusion": ((1, 3, 20, 16), {}),
    "worked_early_fusion": ((1, 5, 20, 16), {}),
    "worked_slow_fusion": ((1, 9, 20, 16), {}),
    "karpathy_single_frame": ((1, 1, 107, 119), {"width": 2, "hidden": 4}),
    "karpathy_multires": ((1, 1, 115, 120), {"width": 2, "hidden": 4}),
    "karpathy_fovea": ((1, 1, 115, 120), {"width": 2, "hidden": 4}),
    "karpathy_context": ((1, 1, 115, 120), {"width": 2, "hidden": 4}),
    "karpathy_late_fusion": ((1, 5, 107, 119), {"width": 2, "hidden": 4}),
    "karpathy_early_fusion": ((1, 4, 107, 119), {"width": 2, "hidden": 4}),
    "karpathy_slow_fusion": ((1, 10, 107, 119), {"width": 2, "hidden": 4}),
    "cnn_m_spatial": ((1, 1, 107, 120), {"width": 2, "hidden": 4}),
    "cnn_m_temporal": ((1, 4, 107, 120), {"width": 2, "hidden": 4}),
    "c3d": ((1, 16, 40, 48), {"width": 2, "hidden": 4}),
    "c3d_lecture": ((1, 16, 40, 48), {"width": 2, "hidden": 4}),
}


@pytest.mark.parametrize("name", models.names())
def test_analytic_equals_measured(name):
    clip, options = SMALL[name]
    model = models.build(name, 2, clip, **options)
    steps = trace(model, clip)
    fields = receptive_fields(steps, clip)
    slides = (nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.MaxPool3d)
    sliding = [i for i, step in enumerate(steps) if isinstance(step.module, slides)]
    # The first pool, whose maxima hide cells, and the end of the trunk, with its many paths.
    for i, trials in ((sliding[1], 12), (sliding[-1], 6)):
        step, field = steps[i], fields[i]
        sizes = (step.y[0], *step.y[2:]) if len(step.y) == 4 else step.y[2:]
        for unit in ((0, 0, 0), tuple(n // 2 for n in sizes)):
            found = measured_receptive_field(model, clip, step.name, unit, trials)
            assert found == field.cells(unit), (step.name, unit)
    assert fields[-1].clipped(clip) == clip[1:]


@pytest.mark.parametrize("name", SMALL)
def test_scores_see_the_whole_clip(name):
    clip, options = SMALL[name]
    model = models.build(name, 2, clip, **options)
    last = trace(model, clip)[-1].name
    whole = receptive_fields(trace(model, clip), clip)[-1].cells((0, 0, 0))
    assert measured_receptive_field(model, clip, last) == whole
    if name == "fovea":
        assert whole == ((0, 3), (10, 30), (9, 25))  # its pools leave out the last columns
    elif not name.startswith(("c3d", "karpathy", "cnn_m")):  # whose pools leave out the last rows
        assert whole == tuple((0, n) for n in clip[1:])


def test_lstm_step_sees_the_past_only():
    clip = (3, 6, 16, 16)
    model = models.build("cnn_lstm", 2, clip, width=2, hidden=4)
    found = measured_receptive_field(model, clip, "lstm", (3, 0, 0))
    assert found == ((0, 4), (0, 16), (0, 16))


def test_measuring_catches_a_planted_fault():
    """A convolution that pads at one end only sees other cells than the rule says."""

    class Shifted(nn.Conv3d):
        def forward(self, x):
            return super().forward(tinyvid.flip(x, 2))

    clip = (1, 7, 5, 5)
    right, wrong = (nn.Sequential(conv=kind(1, 1, 3, padding=1)) for kind in (nn.Conv3d, Shifted))
    field = receptive_fields(trace(right, clip), clip)[0]
    assert measured_receptive_field(right, clip, "conv") == field.cells((0, 0, 0))
    assert measured_receptive_field(wrong, clip, "conv") != field.cells((0, 0, 0))


def test_measuring_leaves_the_model_as_it_was():
    clip = (1, 4, 6, 6)
    model = nn.Sequential(conv=nn.Conv3d(1, 2, 3), norm=nn.BatchNorm3d(2)).train()
    model[1].eval()
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    measured_receptive_field(model, clip, "norm", trials=1)
    after = model.state_dict()
    assert all(np.array_equal(after[k].numpy(), v) for k, v in before.items())
    assert model.training
    assert not model[1].training
    assert not model[0]._forward_hooks
    assert not model[1]._forward_hooks


def test_measuring_refuses():
    model = nn.Sequential(conv=nn.Conv3d(1, 1, 1))
    with pytest.raises(UserError, match="no layer 'cnov'; it has conv"):
        measured_receptive_field(model, (1, 2, 2, 2), "cnov")
    with pytest.raises(UserError, match=r"unit \(0, 0, 9\)"):
        measured_receptive_field(model, (1, 2, 2, 2), "conv", (0, 0, 9))


def test_unknown_layer_has_no_field():
    class Mystery(nn.Module):
        def forward(self, x):
            return x[:, :, ::2]

    clip = (1, 4, 4, 4)
    model = nn.Sequential(nn.Conv3d(1, 1, 1), Mystery(), nn.ReLU())
    fields = receptive_fields(trace(model, clip), clip)
    assert [f is None for f in fields] == [False, True, True]


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (2, 2), (3, 1), (3, 2)])
def test_average_pools_of_two_and_three_axes(kernel, stride):
    clip = (1, 6, 6, 6)
    flat = nn.Sequential(
        gap=nn.Flatten(1, 2), pool=nn.AvgPool2d(kernel, stride), conv=nn.Conv2d(6, 1, 2)
    )
    solid = nn.Sequential(pool=nn.AvgPool3d(kernel, stride), conv=nn.Conv3d(1, 1, 2))
    size = kernel + stride
    assert receptive_fields(trace(solid, clip), clip)[-1].size == (size, size, size)
    assert receptive_fields(trace(flat, clip), clip)[-1].size[1:] == (size, size)
    for model in (flat, solid):
        field = receptive_fields(trace(model, clip), clip)[-1]
        found = measured_receptive_field(model, clip, "conv", trials=1)
        assert found[1:] == field.cells((0, 0, 0))[1:]
