"""What the reverse pass holds while it runs: each array for as long as a rule may read it."""

import tracemalloc
import weakref

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import tensor
from tinyvid.tensor import record

SIZE = 2**16
MIB = 2**20


def peak_of(run):
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def watched(x, seen, watch):
    """Return 2 · x; its rule notes which of the arrays in `watch` are still there."""

    def rule(g, y):
        seen.append([w() is not None for w in watch])
        return g * 2.0

    return record(x.data * 2, (x, rule))


@pytest.mark.parametrize("retain", [False, True])
def test_what_comes_later_is_gone_when_a_rule_runs(retain):
    x = tensor(np.ones(3), requires_grad=True)
    seen, watch = [], []
    y = watched(x, seen, watch)
    for _ in range(3):
        y = (y * 1.5).tanh()
        watch.append(weakref.ref(y.data))
    loss = y.sum()
    del y
    loss.backward(retain_graph=retain)
    assert seen == [[retain] * 3]


def test_gradients_that_have_been_handed_on_are_gone():
    x = tensor(np.ones(3), requires_grad=True)
    seen, watch = [], []
    y = watched(x, seen, watch)
    later = [y]
    for _ in range(3):

        def rule(g, y):
            watch.append(weakref.ref(g.data))
            return g * 1.0

        later.append(record(later[-1].data + 0, (later[-1], rule)))
    loss = later[-1].sum()
    later.clear()
    loss.backward()
    assert len(watch) == 3
    assert not any(seen[0])


def test_a_gradient_of_many_parts_is_summed_in_place():
    x = tensor(np.ones(SIZE), requires_grad=True)
    parts = 12

    def run():
        ys = [x * float(i) for i in range(parts)]
        tinyvid.stack([y.sum() for y in ys]).sum().backward()

    peak = peak_of(run)
    assert_close(x.grad, np.full(SIZE, sum(range(parts)), float))
    # the products, the sum so far, and a part of it
    assert peak < (parts + 3.5) * x.data.nbytes


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_sum_in_place_is_nobody_elses_gradient(create_graph):
    # Each addition hands the same array to both inputs, one of which gets more later.
    x, a, b = (tensor(np.array([1.0, 2.0]), requires_grad=True) for _ in range(3))
    y = (x + a) + (x + b) + (x * 3.0) + x
    g = tensor(np.array([1.0, 10.0]))
    gx, ga, gb = tinyvid.grad(y, [x, a, b], g, create_graph=create_graph)
    assert_close(gx, 6 * g.data)
    for other in (ga, gb, g):
        assert_close(other, np.array([1.0, 10.0]))


def test_a_second_derivative_through_many_parts():
    x = tensor(np.array([0.5, 2.0]), requires_grad=True)
    y = x * x * x + x * x + x
    (first,) = tinyvid.grad(y, [x], np.ones(2), create_graph=True)
    (second,) = tinyvid.grad(first, [x], np.ones(2))
    assert_close(first, 3 * x.data**2 + 2 * x.data + 1)
    assert_close(second, 6 * x.data + 2)


def test_scalars_are_summed_too():
    x = tensor(2.0, requires_grad=True)
    (x * x + x * 3.0 + x + x).backward()
    assert_close(x.grad, np.array(9, np.float32))
