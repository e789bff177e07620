"""What results are compared with: `taps` against the reference, and planted faults found."""

from dataclasses import replace

import numpy as np
import pytest
from compare import assert_close

from tinyvid.bench import problems, taps
from tinyvid.bench.problems import BY_TAPS, tasks
from tinyvid.checking.suite import PROBLEMS
from tinyvid.errors import UserError
from tinyvid.kernels import kernels
from tinyvid.kernels.conv3d.cases import ConvCase
from tinyvid.kernels.rounding import to_bf16

BY_NAME = {kernel.name: kernel for kernel in kernels()}


def small(op):
    return [case.name for case in PROBLEMS[op][0] if not case.large]


@pytest.mark.parametrize("kernel", BY_TAPS)
def test_taps_agree_with_the_reference(kernel):
    op, _, pass_ = kernel.rpartition("_")
    names = small(op)[:: 3 if op == "conv3d" else 2]
    for task in tasks(op, names, [pass_], seed=0):
        args = [a.astype(np.float64) if getattr(a, "dtype", "") == "f4" else a for a in task.args]
        wanted = task.kernel.variants["reference"].function(*args)
        got = BY_TAPS[kernel](*args)
        pairs = [(got, wanted)] if not isinstance(got, tuple) else zip(got, wanted, strict=True)
        for y, want in pairs:
            assert_close(y, want, atol=1e-12 * max(1, np.abs(want).max(initial=0)))


LAYER = ConvCase("layer", (2, 5, 4, 6, 7), (6, 5, 3, 3, 3), padding=1, large=True)
FLAT = ConvCase("flat", (2, 3, 4, 6, 7), (6, 12, 3, 2), stride=2, padding=1, large=True)


def task_of(case, pass_, monkeypatch):
    op = "conv2d" if case is FLAT else "conv3d"
    monkeypatch.setitem(PROBLEMS, op, ([case], PROBLEMS[op][1]))
    (task,) = tasks(op, passes=[pass_])
    return task


def result(task):
    return BY_NAME[task.kernel.name].variants["reference"].function(*task.args)


@pytest.mark.parametrize("pass_", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("case", [LAYER, FLAT], ids=lambda case: case.name)
def test_random_sums_pass_what_is_right_and_find_any_one_wrong_element(case, pass_, monkeypatch):
    task = task_of(case, pass_, monkeypatch)
    expected = task.expectation()
    assert "random signs" in expected.how
    y = result(task)
    assert expected.fault((y,)) is None
    rng = np.random.default_rng(0)
    for _ in range(5):
        wrong = y.copy()
        wrong[tuple(rng.integers(size) for size in y.shape)] += np.abs(y).max() / 100
        assert "result 0 is wrong: off by" in expected.fault((wrong,))
    wrong = y.copy()
    wrong[0, 0] = np.nan
    assert "off by inf" in expected.fault((wrong,))
    assert "is wrong" in expected.fault((np.zeros_like(y),))
    assert "of shape" in expected.fault((y[:1],))
    assert "is float64" in expected.fault((y.astype(np.float64),))
    assert "is wrong" in expected.fault((y[..., ::-1],))


def test_what_a_variant_rounds_is_rounded_for_its_expectation_too(monkeypatch):
    task = task_of(LAYER, "fprop", monkeypatch)
    x, w, geometry = task.args
    rounded = (result(replace(task, args=(to_bf16(x), to_bf16(w), geometry))),)
    assert task.expectation().fault(rounded) is not None
    assert task.expectation().fault(rounded, "bf16") is None
    assert task.expectation(to_bf16).fault(rounded) is None


@pytest.mark.parametrize("op", ["max_pool3d", "lstm", "conv3d_uint8"])
def test_element_for_element_finds_a_wrong_one_in_each_result(op):
    for task in tasks(op, small(op)[-1:], seed=0):
        expected = task.expectation()
        assert "every element" in expected.how
        results = result(task)
        results = results if isinstance(results, tuple) else (results,)
        assert expected.fault(results) is None
        for place, y in enumerate(results):
            wrong = y.copy()
            wrong.reshape(-1)[-1] += 1
            found = expected.fault((*results[:place], wrong, *results[place + 1 :]))
            assert f"result {place} is wrong" in found


def test_work_by_hand():
    (fprop, dgrad) = tasks("conv3d", ["c3d_conv1"], ["fprop", "dgrad"])
    x, w, y = 3 * 16 * 112**2, 64 * 3 * 27, 64 * 16 * 112**2
    assert fprop.work.flops == 2 * y * 81
    assert (fprop.work.read, fprop.work.written) == (4 * (x + w), 4 * y)
    assert (dgrad.work.read, dgrad.work.written) == (4 * (y + w), 4 * x)
    (pool,) = tasks("max_pool3d", ["halves"], ["fprop"])
    assert pool.work.flops == 0
    assert pool.work.bytes == 2 * 5 * (4 * 6 * 8 * 4 + 2 * 3 * 4 * (4 + 1))
    (lstm,) = tasks("lstm", ["batch of one"], ["fprop"])  # N 1, L 6, I 5, H 3
    assert lstm.work.flops == 2 * 6 * 12 * 8
    assert lstm.work.written == 4 * 6 * (3 + 3 + 12)
    for task in tasks("lstm", ["batch of one"]):
        outputs = result(task)
        assert task.work.written == sum(a.nbytes for a in outputs)


def test_inputs_are_new_in_each_run_and_never_zero():
    first, second, third = (
        next(iter(tasks("conv3d", ["plain"], seed=s))).args[0] for s in (None, None, 5)
    )
    (again, *_) = tasks("conv3d", ["plain"], seed=5)
    assert not np.array_equal(first, second)
    assert np.array_equal(third, again.args[0])
    assert np.count_nonzero(first) == first.size


def test_a_batch_of_another_size():
    (task,) = tasks("conv3d", ["plain"], ["fprop"], batch=5)
    assert task.args[0].shape == (5, 3, 4, 5, 6)
    (task,) = tasks("lstm", ["batch of one"], ["fprop"], batch=4)
    assert task.args[0].shape == (4, 6, 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"op": "conv4d"}, "no operation is called 'conv4d'. Did you mean 'conv"),
        ({"op": "conv3d", "cases": ["c3d_conv9"]}, "no case of conv3d is called 'c3d_conv9'"),
        ({"op": "conv3d", "passes": ["bprop"]}, "no pass of conv3d is called 'bprop'. Did you"),
        ({"op": "conv3d", "variants": ["cpu/x"]}, "no variant of conv3d is called 'cpu/x'"),
        ({"op": "conv3d", "cases": ["plain"], "batch": 0}, "--batch 0: at least 1"),
        ({"op": "lstm", "cases": ["unequal lengths"], "batch": 2}, "lengths of their own"),
    ],
)
def test_what_there_is_not(given, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        list(tasks(**given))


def test_every_kernel_can_be_a_task():
    for op in PROBLEMS:
        for task in tasks(op, small(op)[:1]):
            assert task.work.bytes > 0, task.name
            assert task.name.startswith(f"{op} ")
    assert problems.TOLERANCE["float32"] < problems.TOLERANCE["tf32"] < problems.TOLERANCE["bf16"]
    assert taps.planes(np.zeros((2, 3, 4, 5, 6)), FLAT.geometry).shape == (2, 12, 5, 6)


def test_an_argmax_of_a_fused_pooling_may_be_any_place_where_the_maximum_stands(monkeypatch):
    op = "conv3d_relu_max_pool"
    case = replace(PROBLEMS[op][0][3], large=True)
    monkeypatch.setitem(PROBLEMS, op, ([case], PROBLEMS[op][1]))
    (task,) = tasks(op, passes=["fprop"], seed=0)
    expected = task.expectation()
    y, argmax = result(task)
    assert expected.fault((y, argmax)) is None
    zero = np.argwhere(y == 0)[0]  # all of the window is 0: any of its cells will do
    other = argmax.copy()
    other[tuple(zero)] = 5
    assert expected.fault((y, other)) is None
    other[tuple(np.argwhere(y > 1)[0])] ^= 1
    assert "result 1 is wrong" in expected.fault((y, other))
    assert "off by inf" in expected.fault((y, np.full_like(argmax, 200)))
