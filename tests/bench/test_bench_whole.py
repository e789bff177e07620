"""Whole operations through the engine: what takes part, and that faults are found."""

import numpy as np
import pytest

import tinyvid
from tinyvid.bench import peers
from tinyvid.bench.run import Settings
from tinyvid.bench.whole import measure_whole, whole
from tinyvid.checking.problems import PROBLEMS
from tinyvid.errors import UserError

CHECK = Settings(check_only=True)
# Awkward ones, and a large one whose result is compared by random sums.
CASES = [
    ("conv3d", "primes", None),
    ("conv3d", "groups", None),
    ("conv3d", "example_conv2", 1),
    ("conv2d", "plain", None),
    ("max_pool3d", "stride > window", None),
    ("avg_pool3d", "time only", None),
    ("lstm", "one input", None),
]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("op", "case", "batch"), CASES)
def test_all_agree(op, case, batch, backward):
    found = peers.chosen(["torch"], "cpu")[0]
    measured = measure_whole(
        whole(op, case, backward, batch), Settings(peers=tuple(found), check_only=True)
    )
    assert [line.fault for line in measured.lines] == [None] * (1 + len(found))
    assert measured.pass_ == ("forward+backward" if backward else "forward")
    assert measured.moved > 0


def test_forward_and_pooling_as_one():
    found = peers.chosen(["torch"], "cpu")[0]
    what = whole("conv3d_relu_max_pool", "cells left over", False)
    measured = measure_whole(what, Settings(peers=tuple(found), check_only=True))
    assert {line.fault for line in measured.lines} == {None}
    with pytest.raises(UserError, match="forward only"):
        whole("conv3d_relu_max_pool", "cells left over", True)


def test_operations_are_counted():
    forward, both = (measure_whole(whole("conv3d", "plain", b), CHECK) for b in (False, True))
    assert both.flops == 3 * forward.flops > 0
    pool = measure_whole(whole("max_pool3d", "halves", True), CHECK)
    assert pool.flops == 0


@pytest.mark.parametrize(("op", "case", "batch"), CASES)
def test_a_wrong_result_or_gradient_is_a_fault(op, case, batch):
    """Each result in turn is off in one element, is NaN there, or has another shape."""
    what = whole(op, case, True, batch)
    expected = what.expectation()
    good = _results(what)
    assert expected.fault(good) is None
    assert len(good) == 1 + len(what.learned)
    for place in range(len(good)):
        for wrong in (np.nan, 1.0):
            bad = [a.copy() for a in good]
            bad[place].flat[-1] += wrong * np.abs(bad[place]).max()
            assert f"result {place} is wrong" in expected.fault(tuple(bad))
        bad = [a[..., None] if at == place else a for at, a in enumerate(good)]
        assert f"result {place} is float32 of shape" in expected.fault(tuple(bad))


def _results(what):
    fn = PROBLEMS[what.op][1](what.case).fn
    inputs = [tinyvid.tensor(a, requires_grad=True) for a in what.inputs]
    y = fn(*inputs)
    y = y[0] if isinstance(y, tuple) else y
    y.backward(tinyvid.tensor(what.gy))
    return tuple(t.numpy() for t in (y.detach(), *(inputs[at].grad for at in what.learned)))


def test_weights_are_new_in_each_backward_run(monkeypatch):
    """What was made of a weight's old values cannot be used again."""
    written = []
    copy = tinyvid.Tensor.copy_
    monkeypatch.setattr(tinyvid.Tensor, "copy_", lambda t, v: (written.append(t.shape), copy(t, v)))
    measure_whole(whole("conv3d", "plain", True), CHECK)
    assert written == [(4, 3, 3, 3, 3), (4,)]
    written.clear()
    measure_whole(whole("conv3d", "plain", False), CHECK)
    assert written == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("conv4d", "plain", False), "Did you mean 'conv"),
        (("conv3d", "plane", False), "Did you mean 'plain'"),
        (("conv3d_uint8", "plain", False), "cannot be timed as a whole"),
        (("lstm", "reversed", False), "only one direction"),
        (("conv3d", "plain", False, 0), "at least 1"),
    ],
)
def test_what_there_is_not(args, message):
    with pytest.raises(UserError, match=message):
        whole(*args)
