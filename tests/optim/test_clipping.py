"""Gradient clipping."""

import math

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import nn, optim
from tinyvid.errors import UserError


def parameters(*gradients):
    params = []
    for g in gradients:
        params.append(nn.Parameter(np.zeros_like(g)))
        params[-1].grad = tinyvid.tensor(g)
    return params


def test_norm_over_all_gradients_together():
    p, q = parameters(np.array([3.0, 0.0]), np.array([[4.0]]))
    unused = nn.Parameter([1.0])
    held = p.grad
    assert optim.clip_grad_norm_([p, unused, q], 1.0) == 5
    assert_close(p.grad, np.array([0.6, 0.0]), rtol=1e-6)
    assert_close(q.grad, np.array([[0.8]]), rtol=1e-6)
    assert_close(held, np.array([3.0, 0.0]))
    assert unused.grad is None


def test_a_norm_within_the_limit_changes_nothing():
    (p,) = parameters(np.array([3.0, 4.0], np.float32))
    held = p.grad
    assert optim.clip_grad_norm_(p, 5.1) == 5
    assert p.grad is held


@pytest.mark.parametrize(
    ("norm_type", "norm"), [(1, 7.0), (2, 5.0), (3, 91 ** (1 / 3)), (math.inf, 4.0)]
)
def test_norm_types(norm_type, norm):
    p, q = parameters(np.array([3.0], np.float32), np.array([-4.0, 0.0], np.float32))
    total = optim.clip_grad_norm_([p, q], norm / 2, norm_type)
    assert_close(total, np.array(norm), rtol=1e-12)
    assert_close(q.grad, np.array([-2.0, 0.0], np.float32), rtol=1e-6)


def test_long_gradients_are_summed_in_float64():
    (p,) = parameters(np.full(100_000, 1e20, np.float32))  # its squares overflow float32
    total = optim.clip_grad_norm_([p], 1.0)
    assert_close(total, np.array(1e20 * math.sqrt(1e5)), rtol=1e-6)


def test_no_gradients():
    assert optim.clip_grad_norm_([nn.Parameter([1.0])], 1.0) == 0
    assert optim.clip_grad_norm_([], 1.0, math.inf) == 0


def test_gradients_that_are_not_finite():
    for bad in (np.nan, np.inf):
        for norm_type in (2, math.inf):
            (p,) = parameters(np.array([1.0, bad, 2.0]))
            held = p.grad
            assert not math.isfinite(optim.clip_grad_norm_([p], 1.0, norm_type))
            assert p.grad is held
            with pytest.raises(UserError, match="norm of the gradients is"):
                optim.clip_grad_norm_([p], 1.0, norm_type, error_if_nonfinite=True)


def test_values():
    p, q = parameters(np.array([3.0, -0.5, -2.0], np.float32), np.array([0.25]))
    optim.clip_grad_value_([p, q, nn.Parameter([0.0])], 1.0)
    assert_close(p.grad, np.array([1.0, -0.5, -1.0], np.float32))
    assert_close(q.grad, np.array([0.25]))


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    gradients = [np.random.default_rng(0).normal(size=s) for s in ((3, 4), (40_000,))]
    for norm_type in (1.0, 2.0, math.inf):
        ours = parameters(*gradients)
        theirs = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in gradients]
        for t, g in zip(theirs, gradients, strict=True):
            t.grad = torch.tensor(g)
        total = optim.clip_grad_norm_(ours, 0.1, norm_type)
        want = torch.nn.utils.clip_grad_norm_(theirs, 0.1, norm_type)
        assert total == pytest.approx(want.item(), rel=1e-12)
        for p, t in zip(ours, theirs, strict=True):
            assert_close(p.grad, t.grad.numpy(), rtol=1e-12)
