"""Convolution, ReLU and pooling as one operation of `Sequential`: the same numbers, if unseen."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import nn
from tinyvid.nn import joined

CLIP = (2, 3, 5, 13, 18)
NETWORKS = {
    "conv3d, relu": lambda: [nn.Conv3d(3, 5, 3, padding=1), nn.ReLU()],
    "conv3d, relu, pool": lambda: [nn.Conv3d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool3d(4)],
    "conv3d, relu, pool 1x2x2": lambda: [
        nn.Conv3d(3, 12, (1, 3, 3), (1, 2, 1), bias=False),
        nn.ReLU(),
        nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(12, 4, 3, padding="same", groups=2),
        nn.ReLU(),
    ],
    "early fusion": lambda: [
        nn.Conv2d(15, 6, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Conv2d(6, 4, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ],
}


def run(network, see=None):
    """Return the output and all gradients; `see` is a hook for every layer."""
    tinyvid.manual_seed(0)
    model = nn.Sequential(*NETWORKS[network]())
    if see is not None:
        for layer in model:
            layer.register_forward_hook(see)
    x = tinyvid.tensor(np.random.default_rng(0).standard_normal(CLIP).astype(np.float32))
    x.requires_grad = True
    y = model(x)
    y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32))
    return [y.numpy(), x.grad.numpy(), *(p.grad.numpy() for p in model.parameters())]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pays", [True, False])
def test_equal_to_one_after_the_other(network, pays, monkeypatch):
    monkeypatch.setattr(joined, "_pays", lambda *args: pays)
    seen = []
    want = run(network, lambda module, x, y: seen.append(type(module)))
    assert len(seen) == len(NETWORKS[network]())
    for got, each in zip(run(network), want, strict=True):
        assert_close(got, each, rtol=1e-5, atol=1e-5 * np.abs(each).max())


def counted(monkeypatch):
    """Count how many modules each step runs."""
    counts, first = [], joined.run_first

    def run_first(*args):
        counts.append(first(*args))
        return counts[-1]

    monkeypatch.setattr(nn.containers, "run_first", run_first)
    monkeypatch.setattr(joined, "_pays", lambda *args: True)
    return lambda: [count for count, _ in counts]


def test_how_many_run_at_once(monkeypatch):
    counts = counted(monkeypatch)
    run("conv3d, relu, pool 1x2x2")
    assert counts() == [3, 2]
    run("early fusion")
    assert counts()[2:] == [3, 3]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_hook_or_another_forward_is_respected(at, monkeypatch):
    counts = counted(monkeypatch)
    x = tinyvid.tensor(np.ones(CLIP, np.float32))
    model = nn.Sequential(*NETWORKS["conv3d, relu, pool"]())
    with model[at].register_forward_hook(lambda module, x, y: y * 0):
        assert not model(x).numpy().any()
    after = [1, 1, 1] if at < 2 else [2, 1]
    assert counts() == after
    vars(model[at])["forward"] = lambda x: x * 0
    model(x)
    assert counts()[len(after) :] == after
    del vars(model[at])["forward"]
    before, kind = len(counts()), type(model[at])
    monkeypatch.setattr(kind, "forward", lambda self, x, plain=kind.forward: plain(self, x) * 0)
    assert not model(x).numpy().any()
    assert counts()[before:] == after


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool3d(2, stride=1),
        nn.MaxPool3d(2, padding=1),
        nn.MaxPool3d(2, dilation=2),
        nn.MaxPool3d(2, ceil_mode=True),
        nn.AvgPool3d(2),
    ],
)
def test_other_poolings_run_by_themselves(pool, monkeypatch):
    counts = counted(monkeypatch)
    conv = nn.Conv3d(3, 5, 3)
    x = tinyvid.tensor(np.random.default_rng(0).standard_normal(CLIP).astype(np.float32))
    y = nn.Sequential(conv, nn.ReLU(), pool)(x)
    assert counts() == [2, 1]
    assert_close(y.numpy(), pool(conv(x).relu()).numpy(), rtol=1e-5, atol=1e-6)


def test_a_subclass_keeps_its_own_forward():
    class Doubled(nn.ReLU):
        def forward(self, x):
            return super().forward(x) * 2

    conv, x = nn.Conv3d(3, 2, 1), tinyvid.tensor(np.ones(CLIP, np.float32))
    got, want = nn.Sequential(conv, Doubled())(x), conv(x).relu() * 2
    assert_close(got.numpy(), want.numpy())
