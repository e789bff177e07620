"""The memory of a training step: foretold without taking it, and measured."""

import numpy as np
import pytest

import tinyvid
from tinyvid import meta, models, nn
from tinyvid.bench.memory import traced_peak
from tinyvid.meta import Account, MetaArray
from tinyvid.step_memory import step_memory as foretell
from tinyvid.tensor import _wrap

f32 = np.float32
MIB = 2**20

# Large enough that activations and weights outweigh what is not counted, such as compiled code.
NETWORKS = {
    "slow_fusion": ((3, 8, 96, 96), 8, {}),
    "worked_late_fusion": ((3, 8, 64, 64), 32, {}),
    "worked_slow_fusion": ((3, 20, 64, 64), 4, {}),
    "early_fusion": ((3, 16, 64, 64), 8, {}),
    "single_frame": ((3, 16, 64, 64), 8, {}),
    "cnn_lstm": ((3, 16, 64, 64), 4, {}),
    "c3d": ((3, 16, 56, 56), 2, {"width": 16, "hidden": 512}),
}


def foretold(name, clip, batch, options, **more):
    with nn.shapes_only():
        model = models.build(name, 5, clip, **options)
    return foretell(model, clip, batch, **more)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_peak_is_foretold_within_ten_percent(name):
    clip, batch, options = NETWORKS[name]
    measured = traced_peak(lambda: models.build(name, 5, clip, **options), clip, batch)
    assert measured > 6 * MIB
    assert foretold(name, *NETWORKS[name]).peak == pytest.approx(measured, rel=0.1)


def test_what_is_counted():
    model = nn.Sequential(a=nn.Conv3d(2, 4, 1), flat=nn.Flatten(), b=nn.Linear(4 * 60, 3))
    found = foretell(model, (2, 3, 4, 5), 2, state_arrays=2)
    weights = 4 * (2 * 4 + 4 + 4 * 60 * 3 + 3)
    assert (found.parameters, found.gradients, found.state) == (weights, weights, 2 * weights)
    assert found.clips == 4 * 2 * 2 * 60
    # the output of each layer, and some small arrays of the loss
    kept = 4 * 2 * (4 * 60 + 3)
    assert kept <= found.activations <= kept + 4 * 60 * 2 * 4 + 1000
    assert found.peak > 4 * weights + found.clips + found.activations


def test_more_clips_and_more_state_take_more():
    one, two = (foretold("c3d", *NETWORKS["c3d"][:1], n, NETWORKS["c3d"][2]) for n in (2, 4))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)
    assert (two.parameters, two.clips) == (one.parameters, 2 * one.clips)
    adam = foretold("c3d", *NETWORKS["c3d"], state_arrays=2)
    assert adam.peak - one.peak == adam.state - one.state == one.state


def test_nothing_is_computed_and_the_model_is_left_alone():
    with nn.shapes_only():
        model = models.build("c3d", 101)
    before = {name: t.data for name, t in model.state_dict().items()}
    state = tinyvid.random.generator().bit_generator.state
    assert foretell(model, (3, 16, 112, 112), 4).peak > 900 * MIB
    assert not meta._buffer.any()  # so its pages are no memory
    assert all(t.data is before[name] for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert tinyvid.random.generator().bit_generator.state == state
    assert model.training


def test_recomputing_is_foretold_too():
    class Stages(nn.Module):
        def __init__(self, again):
            self.again = again
            self.stages = nn.ModuleList(
                nn.Sequential(nn.Conv3d(8, 8, 3, padding=1), nn.Tanh()) for _ in range(6)
            )
            self.head = nn.Sequential(nn.GlobalAvgPool(), nn.Linear(8, 2))

        def forward(self, x):
            for stage in self.stages:
                x = tinyvid.recompute(stage, x) if self.again else stage(x)
            return self.head(x)

    plain, again = (foretell(Stages(a), (8, 8, 40, 40), 8) for a in (False, True))
    assert again.activations < 0.6 * plain.activations
    assert plain.peak - again.peak > 4 * 8 * 8 * 8 * 40 * 40


def test_a_clip_that_does_not_fit_is_refused_and_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU())
    weight = model[0].weight.data
    with pytest.raises(tinyvid.UserError):
        foretell(model, (2, 1, 1, 1), 1)
    assert model[0].weight.data is weight


# Arrays without values


def run(function, *arrays):
    """Return what a function of arrays makes of arrays without values, and of ones."""
    account = Account()
    metas = [account.array(a.shape, a.dtype) for a in arrays]
    with account.dry_run():
        return function(*metas), function(*arrays)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: a @ b.T,
        lambda a, b: (a > b) * a,
        lambda a, b: a * 2.0 - 1,
        lambda a, b: np.where(a > 0, a, b),
        lambda a, b: np.concatenate([a, b], 1),
        lambda a, b: np.stack([a, b], -1),
        lambda a, b: np.maximum(a, np.float32(0)).sum(0),
        lambda a, b: a.mean((0, 1), keepdims=True),
        lambda a, b: np.add.reduce(a, 1, keepdims=True),
        lambda a, b: np.clip(a, 0, 1).astype(np.float64),
        lambda a, b: np.broadcast_to(a[:1], (7, 5)),
        lambda a, b: a.reshape(5, 3).T[1:, ::2],
        lambda a, b: np.zeros_like(a, dtype=bool) | (b > 1),
        lambda a, b: a[[0, 2]],
        lambda a, b: a.max() + 1,
    ],
)
def test_shapes_and_dtypes_are_those_of_numpy(function):
    got, want = run(function, np.ones((3, 5), f32), np.ones((3, 5), f32))
    assert isinstance(got, MetaArray)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)


def test_memory_is_counted_while_a_view_is_there():
    account = Account()
    a = account.array((8, 4), f32)
    view = a.reshape(4, 8)[1:].T
    del a
    assert (account.live, account.most) == (128, 128)
    b = view * 2
    assert (account.live, account.most) == (128 + 96, 128 + 96)
    b += view
    assert account.most == 128 + 96
    del view, b
    assert (account.live, account.most) == (0, 128 + 96)


def test_large_results_of_kernels_wait_to_be_used_again():
    account = Account()
    x = _wrap(account.array((1, 2, 8, 128, 128), f32))  # 1 MiB
    with account.dry_run():
        y = tinyvid.max_pool3d(x, 1)
        assert account.store.held() == (MIB, 0)
        del y
        assert account.store.held() == (0, MIB)
        y = tinyvid.max_pool3d(x, 1)
        assert account.store.held() == (MIB, 0)
        del y
    assert account.most == 2 * MIB + MIB // 4  # with one argmax of a byte each


def test_layouts_follow_the_engine():
    account = Account()
    x = account.array((2, 3, 4, 5, 6), f32, (0, 2, 3, 4, 1))
    assert (x * 2).transpose(0, 2, 3, 4, 1).flags.c_contiguous
    assert (x.reshape(2, -1) * 2).flags.c_contiguous
