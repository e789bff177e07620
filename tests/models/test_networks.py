"""The networks: shapes, what each of them can and cannot see, and that they learn."""

import json
import re

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import models, nn, optim
from tinyvid.errors import UserError
from tinyvid.models.parts import AverageOfFrames

SMALL = [
    "single_frame",
    "multires",
    "fovea",
    "context",
    "late_fusion",
    "late_fusion_gap",
    "early_fusion",
    "slow_fusion",
    "cnn_lstm",
]
WORKED = ["worked_late_fusion", "worked_early_fusion", "worked_slow_fusion"]
KARPATHY = [name for name in models.names() if name.startswith("karpathy")]
CNN_M = ["cnn_m_spatial", "cnn_m_temporal"]
NARROW = {"width": 1, "hidden": 8}


def clips(n, clip, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *clip)).astype(np.float32)


def scores(model, x):
    with tinyvid.no_grad():
        return model(tinyvid.tensor(x)).numpy()


def test_a_network_that_is_planned_is_no_typo():
    with pytest.raises(UserError, match="two_stream is no network of its own: train single_fr"):
        models.build("two_stream", 5)
    assert not set(models.INSTEAD) & set(models.names())


@pytest.mark.parametrize("name", SMALL + WORKED)
@pytest.mark.parametrize("clip", [(3, 16, 32, 40), (2, 9, 37, 32)])
def test_output_shape(name, clip):
    model = models.build(name, 5, clip)
    x = clips(2, clip)
    for mode in (True, False):
        y = scores(model.train(mode), x)
        assert y.shape == (2, 5)
        assert y.dtype == np.float32
        assert np.isfinite(y).all()


@pytest.mark.parametrize("name", SMALL)
def test_single_frames_are_clips_too(name):
    model = models.build(name, 3, (3, 1, 32, 32)).eval()
    assert scores(model, clips(2, (3, 1, 32, 32))).shape == (2, 3)


@pytest.mark.parametrize("name", [*KARPATHY, *CNN_M, "c3d", "c3d_lecture"])
def test_full_size_networks_run_narrow(name):
    clip = models.entry(name).clip
    clip = (*clip[:2], clip[2] // 2 + 16, clip[3] // 2 + 16)
    model = models.build(name, 4, clip, **NARROW)
    x = tinyvid.tensor(clips(2, clip))
    y = model(x)
    assert y.shape == (2, 4)
    tinyvid.cross_entropy(y, tinyvid.tensor([0, 1])).backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_overfits_eight_clips(name):
    """Each of 8 clips of noise has a class of its own; one can be told by any of its frames."""
    tinyvid.manual_seed(0)
    clip, steps = (3, 4, 32, 32), 40
    still = np.repeat(clips(8, (3, 1, 32, 32)), 4, axis=2)
    x = tinyvid.tensor(still + 0.3 * clips(8, clip, seed=1))
    labels = tinyvid.tensor(np.arange(8))
    model = models.build(name, 8, clip, dropout=0.0)
    optimiser = optim.AdamW(model.parameters(), lr=5e-3)
    first = None
    for _ in range(steps):
        loss = tinyvid.cross_entropy(model(x), labels)
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 < 1.5 < first
    for _ in range(30):  # let the running statistics come to rest at the final weights
        scores(model, x.numpy())
    assert (scores(model.eval(), x.numpy()).argmax(1) == np.arange(8)).all()


# What a network sees


@pytest.mark.parametrize(
    ("name", "blind"),
    [
        ("single_frame", True),
        ("multires", True),
        ("late_fusion_gap", True),
        ("worked_late_fusion", True),
        ("late_fusion", False),
        ("early_fusion", False),
        ("slow_fusion", False),
        ("cnn_lstm", False),
        ("worked_early_fusion", False),
        ("worked_slow_fusion", False),
    ],
)
def test_order_of_frames(name, blind):
    clip = (3, 8, 32, 32)
    model, x = models.build(name, 4, clip).eval(), clips(2, clip)
    given, reversed_ = scores(model, x), scores(model, x[:, :, ::-1])
    if blind:
        assert_close(reversed_, given, atol=1e-5)
    else:
        assert np.abs(reversed_ - given).max() > 1e-4


@pytest.mark.parametrize("other", [(3, 12, 32, 32), (3, 8, 32, 64)])
def test_late_fusion_says_which_clip_it_was_built_for(other):
    clip = (3, 8, 32, 32)
    model = models.build("late_fusion", 4, clip).eval()
    told = r"built for clips \(C, T, H, W\) = \(3, 8, 32, 32\), .* head='gap' does"
    with pytest.raises(UserError, match=told):
        scores(model, clips(1, other))
    assert scores(model, clips(1, clip)).shape == (1, 4)
    pooled = models.build("late_fusion_gap", 4, clip).eval()
    assert scores(pooled, clips(1, other)).shape == (1, 4)


def test_single_frame_averages_probabilities():
    clip = (3, 5, 32, 32)
    model, x = models.build("single_frame", 4, clip).eval(), clips(3, clip)
    each = [tinyvid.softmax(model.frames(tinyvid.tensor(x[:, :, [t]])), 2) for t in range(5)]
    expected = np.mean([p.numpy()[:, 0] for p in each], axis=0)
    probabilities = np.exp(scores(model, x))
    assert_close(probabilities, expected, rtol=1e-5)
    assert_close(probabilities.sum(1), np.ones(3, np.float32), atol=1e-5)


def test_average_of_frames_by_hand():
    logits = np.log(np.array([[[0.25, 0.75], [0.5, 0.5]]], np.float32))
    assert_close(
        np.exp(AverageOfFrames()(tinyvid.tensor(logits)).numpy()),
        np.array([[0.375, 0.625]], np.float32),
        rtol=1e-6,
    )
    # e^-200 is 0 in float32, but its logarithm is not
    far = AverageOfFrames()(tinyvid.tensor(np.array([[[0, 200.0], [0, 200.0]]], np.float32)))
    assert_close(far, np.array([[-200, 0]], np.float32), atol=1e-4)


def test_average_of_frames_gradient():
    logits = tinyvid.tensor(clips(2, (3, 4)).astype(np.float64), requires_grad=True)
    assert tinyvid.gradcheck(AverageOfFrames(), (logits,))


def test_single_frame_trains_on_one_random_frame():
    clip = (3, 6, 32, 32)
    tinyvid.manual_seed(3)
    model = models.build("single_frame", 4, clip)
    seen = []
    for _ in range(4):
        x = tinyvid.tensor(clips(8, clip), requires_grad=True)
        weights = tinyvid.tensor(clips(8, (4,), seed=1))
        (model(x) * weights).sum().backward()
        used = (x.grad.numpy() != 0).any((1, 3, 4))  # (N, T)
        assert (used.sum(1) == 1).all()
        seen.append(used.argmax(1))
    assert len(np.unique(np.stack(seen))) == 6  # every frame is drawn some time
    assert (seen[0] != seen[1]).any()
    tinyvid.manual_seed(7)
    a = scores(model, clips(8, clip))
    tinyvid.manual_seed(7)
    assert_close(scores(model, clips(8, clip)), a)


def test_karpathy_late_fusion_sees_two_frames():
    clip = (3, 16, 75, 75)
    model, x = models.build("karpathy_late_fusion", 4, clip, **NARROW).eval(), clips(1, clip)
    given = scores(model, x)
    for t in range(16):
        other = x.copy()
        other[:, :, t] += 1
        assert (np.abs(scores(model, other) - given).max() > 1e-6) == (t in (0, 15)), t


@pytest.mark.parametrize(
    ("name", "sees_border", "sees_detail"),
    [("fovea", False, True), ("context", True, False), ("multires", True, True)],
)
def test_what_each_stream_sees(name, sees_border, sees_detail):
    """The fovea is blind to what is beyond the middle half; the context to what averages away."""
    clip = (3, 1, 32, 32)
    model, x = models.build(name, 4, clip).eval(), clips(2, clip)
    border, detail = x.copy(), x.copy()
    border[..., :8, :] += 1
    border[..., 24:] += 1
    detail[..., 10:22:2] += 1
    detail[..., 11:22:2] -= 1
    before = scores(model, x)
    for changed, seen in ((border, sees_border), (detail, sees_detail)):
        after = scores(model, changed)
        if seen:
            assert np.abs(after - before).max() > 1e-3
        else:
            assert_close(after, before, atol=1e-5)


def test_multires_streams():
    model = models.build("karpathy_multires", 4, (3, 1, 96, 96), **NARROW)
    assert [name for name, _ in model.frames.streams.named_children()] == ["fovea", "context"]
    with pytest.raises(UserError, match="no option 'streams'"):
        models.build("multires", 3, streams="fovea")


def test_karpathy_norm_is_krizhevskys():
    """b_i = a_i / (k + α Σ a_j²)^β over 5 neighbours, with k=2, α=1e-4, β=0.5."""
    norm = models.build("karpathy_single_frame", 2, (3, 1, 75, 75), **NARROW).frames.norm1
    a = 100 * np.abs(clips(2, (8, 3, 3)))
    squares = np.stack([(a[:, max(0, i - 2) : i + 3] ** 2).sum(1) for i in range(8)], axis=1)
    assert_close(norm(tinyvid.tensor(a)), a / np.sqrt(2 + 1e-4 * squares), rtol=1e-5)


def test_karpathy_sizes():
    with nn.shapes_only():
        shapes = {
            name: [p.shape for p in models.build(name, 487).parameters() if p.ndim > 1]
            for name in KARPATHY
        }
    tail = [(256, 96, 5, 5), (384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3)]
    head = [(4096, 256 * 6 * 6), (4096, 4096), (487, 4096)]
    stream = [(96, 3, 11, 11), *tail]
    assert shapes == {
        "karpathy_single_frame": [(96, 3, 11, 11), *tail, *head],
        "karpathy_multires": [*stream, *stream, (4096, 2 * 256 * 6 * 6), *head[1:]],
        "karpathy_fovea": [*stream, *head],
        "karpathy_context": [*stream, *head],
        "karpathy_late_fusion": [(96, 3, 11, 11), *tail, (4096, 2 * 256 * 6 * 6), *head[1:]],
        "karpathy_early_fusion": [(96, 3 * 10, 11, 11), *tail, *head],
        "karpathy_slow_fusion": [
            (96, 3, 4, 11, 11),
            (256, 96, 2, 5, 5),
            (384, 256, 2, 3, 3),
            (384, 384, 1, 3, 3),
            (256, 384, 1, 3, 3),
            *head,
        ],
    }


def test_two_stream_sizes():
    with nn.shapes_only():
        both = [models.build(name, 101) for name in CNN_M]
        spatial, temporal = ([p.shape for p in m.parameters() if p.ndim > 1] for m in both)
    tail = [(256, 96, 5, 5), (512, 256, 3, 3), (512, 512, 3, 3), (512, 512, 3, 3)]
    tail += [(4096, 512 * 6 * 6), (2048, 4096), (101, 2048)]
    assert spatial == [(96, 3, 7, 7), *tail]
    assert temporal == [(96, 2 * 10, 7, 7), *tail]
    # by hand: 14,208 + 614,656 + 1,180,160 + 2 · 2,359,808 + 75,501,568 + 8,390,656 + 206,949
    assert sum(p.size for p in both[0].parameters()) == 90_627_813
    norms = [[m for m in net.modules() if isinstance(m, nn.LocalResponseNorm)] for net in both]
    assert [len(found) for found in norms] == [2, 1]


def test_cnn_lstm_steps_know_the_past_only():
    clip = (3, 6, 32, 32)
    model, x = models.build("cnn_lstm", 4, clip).eval(), clips(2, clip)
    with tinyvid.no_grad():
        steps = model.steps(tinyvid.tensor(x)).numpy()
        changed = x.copy()
        changed[:, :, 4] += 1
        after = model.steps(tinyvid.tensor(changed)).numpy()
    assert steps.shape == (2, 6, 4)
    assert_close(steps[:, -1], scores(model, x), atol=1e-6)
    assert_close(after[:, :4], steps[:, :4], atol=1e-6)
    assert (np.abs(after[:, 4:] - steps[:, 4:]).max((0, 2)) > 1e-5).all()


# Building by name


@pytest.mark.parametrize("name", models.names())
def test_config_rebuilds_the_network(name):
    options = {k: v for k, v in NARROW.items() if k in models.entry(name).defaults}
    with nn.shapes_only():
        model = models.build(name, 3, **options)
        again = models.rebuild(json.loads(json.dumps(model.config)))
    assert model.config["clip"] == list(models.entry(name).clip)
    assert type(again) is type(model)
    assert {k: p.shape for k, p in again.named_parameters()} == {
        k: p.shape for k, p in model.named_parameters()
    }


def test_weights_load_into_the_rebuilt_network():
    clip = (3, 8, 32, 32)
    model = models.build("late_fusion", 3, clip, width=4, hidden=8).eval()
    again = models.rebuild(model.config).eval()
    x = clips(2, clip)
    assert np.abs(scores(model, x) - scores(again, x)).max() > 1e-4
    again.load_state_dict(model.state_dict())
    assert_close(scores(again, x), scores(model, x))


def test_seed_decides_the_weights():
    weights = []
    for seed in (1, 1, 2):
        tinyvid.manual_seed(seed)
        state = models.build("slow_fusion", 3, (3, 8, 32, 32)).state_dict()
        weights.append(state["trunk.conv1.weight"].numpy())
    assert_close(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_names_and_lines():
    assert len(models.names()) == len(set(models.names())) == 24
    lines = [models.entry(name).line for name in models.names()]
    assert len(set(lines)) == 24
    assert SMALL == [
        "single_frame",
        "multires",
        "fovea",
        "context",
        "late_fusion",
        "late_fusion_gap",
        "early_fusion",
        "slow_fusion",
        "cnn_lstm",
    ]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("slow_fuson", 3), {}, "Did you mean 'slow_fusion'"),
        (("slow_fusion", 3), {"widht": 8}, "no option 'widht'. Did you mean 'width'"),
        (("c3d", 3), {"pad_pool5": False}, "no option 'pad_pool5'"),
        (("worked_slow_fusion", 3), {"dropout": 0.5}, "It has: none."),
        (("slow_fusion", 0), {}, "num_classes=0"),
        (("slow_fusion", True), {}, "num_classes=True"),
        (("slow_fusion", 3), {"width": 0}, "width=0"),
        (("slow_fusion", 3), {"dropout": 2}, "p=2"),
        (("slow_fusion", 3, (16, 64, 64)), {}, "give channels, frames, height, width"),
        (("slow_fusion", 3, (3, 16, 64.0, 64)), {}, "give channels, frames"),
        (
            ("slow_fusion", 3, (3, 16, 8, 64)),
            {},
            "with clips of 3×16×8×64: trunk.pool3 gets 64×4×1×8",
        ),
        (("single_frame", 3, (3, 16, 8, 8)), {}, "frames.pool3 gets 64×16×1×1"),
        (("c3d", 3, (3, 15, 112, 112)), {}, "pool5 gets 512×1×7×7"),
        (("karpathy_slow_fusion", 3, (3, 3, 170, 170)), {}, "conv1 gets 3×3×170×170"),
        (("worked_slow_fusion", 3, (3, 3, 64, 64)), {}, "pool1 gets 12×3×64×64"),
    ],
)
def test_build_refuses(arguments, options, message):
    with pytest.raises(UserError) as error, nn.shapes_only():
        models.build(*arguments, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(1, 4, 8, 32, 32), (3, 32, 32)])
def test_wrong_clips_are_refused(name, training, shape):
    model = models.build(name, 3, (3, 8, 32, 32)).train(training)
    with pytest.raises(UserError, match=re.escape(str(shape[1:])[1:-1])):
        model(tinyvid.tensor(clips(1, shape)))


@pytest.mark.parametrize("name", SMALL)
def test_a_network_takes_an_array(name):
    model = models.build(name, num_classes=3).eval()
    clips = np.random.default_rng(0).normal(size=(2, *models.entry(name).clip))
    clips = clips.astype(np.float32)
    assert_close(model(clips), model(tinyvid.tensor(clips)).data)
