"""Activations computed again: the same gradients to the bit, of any order, in less memory."""

import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, kernels, nn, no_grad, optim, recompute, tensor
from tinyvid.recompute import is_recomputing

recompute_module = __import__("sys").modules["tinyvid.recompute"]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def leaf(*shape, seed=0):
    return tensor(normal(*shape, seed=seed), requires_grad=True)


def part(seed=3):
    tinyvid.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(2, 3, 3, padding=1),
        nn.BatchNorm3d(3),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.MaxPool3d((1, 2, 2)),
    )


def trained(run, steps=2):
    """Return losses, gradients, state and next random number after some steps."""
    net = nn.Sequential(part(), nn.Flatten(), nn.Linear(3 * 3 * 2 * 2, 4))
    optimiser = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    tinyvid.manual_seed(11)
    found = []
    for step in range(steps):
        x = tensor(normal(3, 2, 3, 4, 5, seed=step).astype(np.float32), requires_grad=True)
        optimiser.zero_grad()
        loss = tinyvid.cross_entropy(net[1:](run(net[0], x)), [0, 3, 1])
        loss.backward()
        optimiser.step()
        found += [loss, x.grad, *(p.grad for p in net.parameters())]
    found += net.state_dict().values()
    return [t.data for t in found] + [tinyvid.random.generator().random(3)]


def same(a, b):
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert left.dtype == right.dtype
        assert np.array_equal(left, right)


def test_training_is_the_same_to_the_bit():
    same(trained(recompute), trained(lambda fn, x: fn(x)))


def test_training_in_nested_parts_is_the_same_to_the_bit():
    def nested(fn, x):
        return recompute(lambda x: recompute(fn[2:], recompute(fn[:2], x)), x)

    same(trained(nested), trained(lambda fn, x: fn(x)))


# Each is a fault that the test above must see.
FAULTS = {
    "draws": ("drawing_from", lambda state: nullcontext()),
    "second count": ("_run_again", lambda fn, x: recompute_module._run_on_names(fn, x)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_sees(fault, monkeypatch):
    monkeypatch.setattr(recompute_module, *FAULTS[fault])
    with pytest.raises(AssertionError):
        same(trained(recompute), trained(lambda fn, x: fn(x)))


def test_first_and_second_derivatives():
    w = leaf(3, seed=1)
    for fn in (
        lambda x: recompute(lambda x: (x * w).tanh() * x, x),
        lambda x: recompute(lambda a, b: a.exp() * b + a, x, x * w),
        lambda x: recompute(lambda a: recompute(lambda b: b.sin() * w, a * a) * w, x),
        lambda x: x * recompute(lambda: (w * w).exp()),
    ):
        tinyvid.gradcheck(fn, leaf(2, 3))
        tinyvid.gradgradcheck(fn, leaf(2, 3))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_parameter_on_which_an_input_depends_gets_each_share_once(order):
    def derivatives(run):
        w, x = leaf(3, seed=1), leaf(3, seed=2)
        y = run(lambda a: (a * w).tanh() * w, (x * w).exp())
        grads = []
        for _ in range(order):
            gx, gw = tinyvid.grad(y, [x, w], np.ones(3), create_graph=True)
            grads += [gx, gw]
            y = gx * gw + gw
        return grads

    for got, want in zip(derivatives(recompute), derivatives(lambda f, *x: f(*x)), strict=True):
        assert_close(got, want.data, rtol=1e-10)


def test_a_tensor_may_be_given_twice_and_used_besides():
    x = leaf(4)
    recompute(lambda a, b: a * b * x, x, x).sum().backward()
    assert_close(x.grad, 3 * x.data**2)


def test_other_arguments_are_passed_on_and_other_inputs_get_no_gradient():
    x, labels = leaf(3, 4), tensor(np.array([0, 2, 1]))
    y = recompute(lambda x, t, scale, none: tinyvid.cross_entropy(x * scale, t), x, labels, 2, None)
    y.backward()
    want = leaf(3, 4)
    tinyvid.cross_entropy(want * 2, labels).backward()
    assert_close(x.grad, want.grad.data)
    assert labels.grad is None


def test_only_some_of_the_gradients():
    x, w, v = leaf(3), leaf(3, seed=1), leaf(3, seed=2)
    y = recompute(lambda a: a * w * v, x)
    assert_close(tinyvid.grad(y, w, np.ones(3), retain_graph=True), x.data * v.data)
    assert_close(tinyvid.grad(y, [v, x], np.ones(3))[0], x.data * w.data)


def test_a_graph_may_be_kept_and_gone_through_again():
    x = leaf(3)
    y = recompute(lambda a: a.exp(), x)
    for _ in range(2):
        assert_close(tinyvid.grad(y, x, np.ones(3), retain_graph=True), y.data)


@pytest.mark.parametrize("fn", [lambda x: x, lambda x: x.reshape(3, 1), lambda x: x + 0])
def test_a_function_that_does_little(fn):
    x = leaf(3)
    y = recompute(fn, x)
    tinyvid.sum(y * y).backward()
    assert_close(x.grad, 2 * x.data)


def test_what_needs_no_gradient_runs_once():
    calls = []

    def fn(x):
        calls.append(is_recomputing())
        return x * 2

    assert not recompute(fn, tensor([1.0])).requires_grad
    with no_grad():
        assert not recompute(fn, leaf(3)).requires_grad
    recompute(fn, leaf(3)).sum().backward()
    assert calls == [False, False, False, True]
    assert not is_recomputing()


def test_the_second_run_takes_the_variants_of_the_first():
    ran = []
    w = leaf(2, 2, 1, 1, 1)

    def fn(x):
        ran.append(kernels.conv3d_fprop.select(x.data, w.data, geometry()).name)
        return tinyvid.conv3d(x, w)

    def geometry():
        return tinyvid.geometry.conv_geometry((1, 2, 1, 1, 1), w.shape)

    with kernels.use(conv3d_fprop="reference"):
        y = recompute(fn, leaf(1, 2, 1, 1, 1))
    y.sum().backward()
    assert ran == ["reference", "reference"]


def deep(run, parts=8):
    x = tensor(np.ones(2**16, np.float32), requires_grad=True)
    y = x
    for _ in range(parts):
        y = run(lambda y: ((y * 1.1).tanh() * 0.9).sigmoid().exp().tanh(), y)
    return x, y.sum()


def peak(run):
    deep(run)[1].backward()  # nothing is built for the first time while it is measured
    tracemalloc.start()
    try:
        x, loss = deep(run)
        loss.backward()
        return tracemalloc.get_traced_memory()[1] / x.data.nbytes
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_the_results_and_of_one_part():
    plain, again = peak(lambda f, y: f(y)), peak(recompute)
    assert plain > 8 * 6
    # eight results, six activations of a part, and gradients on their way
    assert again < 8 + 6 + 6


def test_a_result_from_outside_must_be_an_input():
    x = leaf(3)
    outer = x * 2
    with pytest.raises(UserError, match=r"of shape \(3,\), that is not among its inputs"):
        recompute(lambda a: a * outer, x)
    y = recompute(lambda a, b: a * b, x, outer)
    assert_close(tinyvid.grad(y, x, np.ones(3)), 4 * x.data)


def test_new_values_in_between_are_refused():
    for change in (0, 1):
        tensors = [leaf(3), leaf(3, seed=1)]
        y = recompute(lambda a, w=tensors[1]: a * w, tensors[0])
        with no_grad():
            tensors[change] *= 2.0
        with pytest.raises(UserError, match="new values"):
            y.sum().backward()


def test_one_tensor_must_come_out():
    def pair(x):
        return x, x

    with pytest.raises(UserError, match="pair must return one tensor, not a tuple"):
        recompute(pair, leaf(3))


def test_doing_something_else_the_second_time_is_refused():
    w, ran = leaf(3, seed=1), []

    def shorter(x):
        ran.append(1)
        return x[: 4 - len(ran)]

    with pytest.raises(UserError, match=r"shorter returned \(3,\).* first ran, and \(2,\)"):
        recompute(shorter, leaf(3)).sum().backward()

    def forgetful(x):
        ran.append(1)
        return x * w if len(ran) == 3 else x * 2

    with pytest.raises(UserError, match="no output depends"):
        recompute(forgetful, leaf(3)).sum().backward()
