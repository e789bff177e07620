"""Large parameters, which compiled loops update, get the numbers of small ones to the bit."""

import math

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import nn, optim
from tinyvid.kernels import updates
from tinyvid.kernels.threads import get_num_threads, set_num_threads
from tinyvid.optim import clipping, optimizer

RNG = np.random.default_rng(5)
SHAPE = (3, updates.CHUNK // 3 + 7)  # a chunk and a rest

OPTIMISERS = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "sgd, decay": lambda p: optim.SGD(p, 0.1, weight_decay=0.3),
    "momentum": lambda p: optim.SGD(p, 0.1, 0.9),
    "dampening, decay": lambda p: optim.SGD(p, 0.1, 0.9, 0.3, 0.2),
    "nesterov": lambda p: optim.SGD(p, 0.1, 0.9, weight_decay=0.2, nesterov=True),
    "adam": lambda p: optim.Adam(p, 0.1),
    "adam, decay, amsgrad": lambda p: optim.Adam(p, 0.1, (0.5, 0.7), 1e-3, 0.2, True),
    "adamw": lambda p: optim.AdamW(p, 0.1, weight_decay=0.5),
}


def trained(make, values, gradients):
    p = nn.Parameter(values)
    optimiser = make([p])
    for g in gradients:
        p.grad = tinyvid.tensor(g)
        optimiser.step()
    return p.numpy(), optimiser.state_dict()["state"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_same_to_the_bit_as_small_ones(name, dtype, monkeypatch):
    values, *gradients = RNG.standard_normal((4, *SHAPE)).astype(dtype)
    gradients[1][0, :3] = np.nan, np.inf, 0
    large, state = trained(OPTIMISERS[name], values, gradients)
    monkeypatch.setattr(updates, "update", None)  # which small ones do without
    monkeypatch.setattr(optimizer, "LARGE", large.size + 1)
    with np.errstate(invalid="ignore"):
        small, wanted = trained(OPTIMISERS[name], values, gradients)
    assert large.dtype == dtype
    assert np.array_equal(large, small, equal_nan=True)
    for key, array in wanted.items():
        assert np.array_equal(state[key], array, equal_nan=True), key


def test_the_order_of_a_gradient_and_the_threads_change_nothing():
    values, g = RNG.standard_normal((2, *SHAPE)).astype(np.float32)
    before, results = get_num_threads(), []
    try:
        for threads, gradient in ((1, g), (3, np.asfortranarray(g))):
            set_num_threads(threads)
            results.append(trained(OPTIMISERS["adamw"], values, [gradient])[0])
    finally:
        set_num_threads(before)
    assert np.array_equal(*results)
    assert not np.array_equal(results[0], values)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_norm_of_a_large_gradient(dtype, monkeypatch):
    p = nn.Parameter(np.zeros(SHAPE, dtype))
    g = RNG.standard_normal(SHAPE).astype(dtype)
    p.grad = tinyvid.tensor(g)
    wanted = math.sqrt(math.fsum((g.astype(np.float64) ** 2).ravel()))
    assert_close(optim.clip_grad_norm_(p, math.inf).numpy(), np.array(wanted), rtol=1e-12)
    monkeypatch.setattr(clipping, "LARGE", g.size + 1)
    assert_close(optim.clip_grad_norm_(p, math.inf).numpy(), np.array(wanted), rtol=1e-12)
    g[1, 1] = np.nan
    p.grad = tinyvid.tensor(g)
    monkeypatch.undo()
    assert np.isnan(optim.clip_grad_norm_(p, 1.0).item())


class Sign(optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def _state_names(self, group):
        return ()

    def _update(self, group, step, new, p, g, state, scratch):
        np.subtract(p, np.sign(g), out=new)


class SignOfSGD(optim.SGD):
    _update = Sign._update


@pytest.mark.parametrize("kind", [Sign, lambda p: SignOfSGD(p, 0.1)])
def test_a_rule_of_ones_own_serves_large_parameters_too(kind):
    values, g = RNG.standard_normal((2, *SHAPE)).astype(np.float32)
    assert_close(trained(kind, values, [g])[0], values - np.sign(g))
