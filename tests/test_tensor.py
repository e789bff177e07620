"""The engine: recording, the reverse pass, and what it refuses to do."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import Tensor, UserError, enable_grad, grad, no_grad, tensor
from tinyvid.tensor import record


def leaf(values, dtype=np.float64):
    return tensor(np.array(values, dtype), requires_grad=True)


def pickle_round_trip(t):
    return pickle.loads(pickle.dumps(t))


def test_product_by_hand():
    # f = Σ a·b + a², at a = (2, 3), b = (5, 7): df/da = b + 2a = (9, 13), df/db = a = (2, 3)
    a, b = leaf([2, 3]), leaf([5, 7])
    (a * b + a * a).sum().backward()
    assert_close(a.grad, np.array([9.0, 13.0]))
    assert_close(b.grad, np.array([2.0, 3.0]))


def test_a_tensor_used_twice_gets_both_gradients():
    x = leaf([3.0])
    y = x * 2  # dz/dx = d(y·y + y)/dx = (2y + 1)·2 = (2·6 + 1)·2 = 26
    (y * y + y).backward()
    assert_close(x.grad, np.array([26.0]))


def test_gradients_accumulate_over_calls():
    x = leaf([1.0, 2.0])
    (x * 3).sum().backward()
    (x * 4).sum().backward()
    assert_close(x.grad, np.array([7.0, 7.0]))


def test_inputs_that_got_one_gradient_do_not_share_it():
    a, b = leaf([1.0]), leaf([2.0])
    (a + b).backward()
    a.grad.copy_([5.0])
    assert_close(b.grad, np.array([1.0]))


def test_backward_with_a_cotangent_is_the_transposed_jacobian():
    rng = np.random.default_rng(0)
    m, x, v = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=4)
    t = leaf(x)
    (tensor(m) @ t).backward(v)
    assert_close(t.grad, m.T @ v, rtol=1e-12)


def test_second_and_third_derivative_by_hand():
    x = leaf(2.0)
    first = grad(x**4, x, create_graph=True)  # 4x³ = 32
    second = grad(first, x, create_graph=True)  # 12x² = 48
    third = grad(second, x)  # 24x = 48
    for got, want in ((first, 32.0), (second, 48.0), (third, 48.0)):
        assert_close(got, np.array(want), rtol=1e-12)


def test_backward_with_create_graph_leaves_a_differentiable_grad():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    assert_close(grad(x.grad, x), np.array(18.0), rtol=1e-12)  # 6x


def test_grad_leaves_grad_alone_and_reaches_inner_tensors():
    x = leaf([1.0, 2.0])
    y = x * x
    gy, gx = grad((y * 3).sum(), [y, x])
    assert x.grad is None
    assert_close(gy, np.array([3.0, 3.0]))
    assert_close(gx, np.array([6.0, 12.0]))


def test_grad_sums_over_several_outputs():
    x = leaf([1.0, 2.0])
    g = grad([x * 2, x * x], x, [np.array([1.0, 10.0]), np.array([1.0, 1.0])])
    assert_close(g, np.array([1.0 * 2 + 2, 10.0 * 2 + 4]))


def test_grad_with_respect_to_nothing():
    x = tensor([2.0], requires_grad=True)
    y = x * x
    assert grad(y, []) == ()
    assert_close(grad(y, x), np.array([4.0], np.float32))  # the graph was left alone


def test_grad_computes_only_what_leads_to_the_inputs():
    def refuse(g, y):
        raise AssertionError("this rule leads to no input")

    a, b = leaf(1.0), leaf(2.0)
    branch = record(b.data * 2, (b, refuse))
    assert_close(grad(a * branch, a), np.array(4.0))


def test_an_inner_input_whose_rules_did_not_run_is_not_used_up():
    x = leaf([1.0, 2.0])
    h = x * x
    assert_close(grad((h * 3).sum(), h), np.array([3.0, 3.0]))
    (h * 2).sum().backward()
    assert_close(x.grad, np.array([4.0, 8.0]))


def test_unused_inputs_are_an_error_unless_allowed():
    a, b = leaf(1.0), leaf(2.0)
    with pytest.raises(UserError, match=r"inputs \[1\].*allow_unused"):
        grad(a * 2, [a, b])
    assert grad(a * 2, [a, b], allow_unused=True)[1] is None


def test_the_graph_is_freed_and_a_second_backward_says_so():
    x = leaf([1.0])
    y = x * x
    y.backward()
    with pytest.raises(UserError, match="retain_graph=True"):
        y.backward()
    z = x * x
    z.backward(retain_graph=True)
    z.backward()
    assert_close(x.grad, np.array([6.0]))


def test_memory_of_the_graph_is_freed_by_backward_without_the_garbage_collector():
    gc.disable()
    try:
        x = leaf(np.ones(1000))
        middle = x.exp()
        watch = weakref.ref(middle)
        loss = (middle * 2).sum()
        del middle
        assert watch() is not None
        loss.backward()
        assert watch() is None
        # and so is a graph that is dropped without a backward
        middle = x.exp()
        watch = weakref.ref(middle)
        loss = (middle * 2).tanh().sum()
        del middle, loss
        assert watch() is None
    finally:
        gc.enable()


def test_activations_are_freed_while_backward_runs():
    x = leaf([1.0])
    late = x * 2
    watch = weakref.ref(late)
    seen = []

    def spy(g, y):
        seen.append(watch() is None)
        return g

    early = record(x.data * 1, (x, spy))
    early._order, late._order = 1, 2  # spy's rule runs after the rule of `late`
    loss = early + late * 3
    del late
    loss.backward()
    assert seen == [True]


@pytest.mark.parametrize("depth", [10_000, 100_000])
def test_a_deep_graph_meets_no_recursion_limit(depth):
    x = leaf([1.0])
    y = x
    for _ in range(depth):
        y = y + x
    y.backward()
    assert_close(x.grad, np.array([depth + 1.0]))
    y = x
    for _ in range(depth):
        y = y * 1.0
    del y  # dropping a deep graph does not overflow the stack either


def test_no_grad_records_nothing_and_is_undone_on_error():
    x = leaf([1.0])
    with no_grad():
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        assert not tinyvid.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert tinyvid.is_grad_enabled()


def test_no_grad_decorates_functions_that_call_themselves():
    @no_grad()
    def power(x, n):
        """Return x to the n."""
        assert not tinyvid.is_grad_enabled()
        return power(x, n - 1) * x if n else x * 0 + 1

    y = power(leaf([3.0]), 4)
    assert not y.requires_grad
    assert_close(y, np.array([81.0]))
    assert tinyvid.is_grad_enabled()
    assert power.__doc__ == "Return x to the n."


def test_no_grad_concerns_its_own_thread_only():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(tinyvid.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# Writing in place


def test_writing_into_the_array_fails_where_it_happens():
    x = leaf([1.0, 2.0])
    for array in (x.data, x.numpy(), (x * x).data, x[0:1].data, x.reshape(2, 1).data):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_the_caller_s_array_is_copied():
    array = np.array([1.0, 2.0])
    x = tensor(array, requires_grad=True)
    y = (x * x).sum()
    array[:] = 100
    y.backward()
    assert_close(x.grad, np.array([2.0, 4.0]))


@pytest.mark.parametrize(
    "write",
    [
        lambda t: t.copy_([5.0, 5.0]),
        lambda t: t.__setitem__(0, 5.0),
        lambda t: t.__isub__(1.0),
        lambda t: setattr(t, "data", np.array([5.0, 5.0])),
    ],
    ids=["copy_", "setitem", "isub", "data"],
)
def test_new_values_after_saving_are_caught(write):
    x = leaf([1.0, 2.0])
    y = x * x
    with no_grad():
        write(x)
    with pytest.raises(UserError, match="new values"):
        y.sum().backward()
    assert x.grad is None


def test_new_values_are_fine_where_no_rule_needs_the_old_ones():
    x = leaf([1.0, 2.0])
    y = x + 1
    with no_grad():
        x -= 10
    y.backward(np.ones(2))
    assert_close(x.grad, np.ones(2))
    assert_close(x, np.array([-9.0, -8.0]))


def test_a_view_keeps_its_values_when_its_base_gets_new_ones():
    x = leaf([1.0, 2.0])
    head = x[:1]
    y = head * head
    with no_grad():
        x[...] = 50.0
    y.backward()
    assert_close(x.grad, np.array([2.0, 0.0]))


def test_in_place_operators_outside_the_graph_change_the_tensor_itself():
    t = tensor([1.0, 2.0])
    alias = t
    t += 1
    t *= 2
    t /= 4
    t -= 1
    assert alias is t
    assert_close(t, np.array([0.0, 0.5], np.float32))


def test_in_place_on_a_leaf_that_requires_grad_is_refused():
    x = leaf([1.0])
    with pytest.raises(UserError, match="no_grad"):
        x += 1
    with pytest.raises(UserError, match="no_grad"):
        x[0] = 1


def test_in_place_on_a_result_names_a_new_result():
    x = leaf([3.0])
    y = x * x
    before = y
    y += 1
    assert y is not before
    y.backward()
    assert_close(x.grad, np.array([6.0]))


def test_copy_rejects_another_shape():
    with pytest.raises(ValueError, match="broadcast"):
        tensor([1.0, 2.0]).copy_([1.0, 2.0, 3.0])
    t = tensor([1.0, 2.0])
    with pytest.raises(UserError, match=r"\(3,\).*\(2,\)"):
        t.data = np.zeros(3)


# What a tensor is made of


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([1, 2], np.int64),
        (True, np.bool_),
        (np.array([1.0]), np.float64),
        (np.array([1], np.uint8), np.uint8),
    ],
)
def test_dtype_of_a_new_tensor(data, dtype):
    assert tensor(data).dtype == dtype


def test_numbers_do_not_widen_a_tensor():
    x = tensor([1.0, 2.0])
    for y in (x + 1, 2.0 * x, x / 3, 1 - x, x**2, x > 0.5):
        assert y.dtype in (np.float32, np.bool_)
    assert (tensor([1, 2]) + 0.5).dtype == np.float32
    assert (tensor([1, 2]) + 1).dtype == np.int64


def test_mixed_dtypes_give_each_input_a_gradient_of_its_own_dtype():
    a, b = leaf([1.0, 2.0], np.float32), leaf([3.0, 4.0], np.float64)
    (a * b).sum().backward()
    assert_close(a.grad, np.array([3.0, 4.0], np.float32))
    assert_close(b.grad, np.array([1.0, 2.0]))


def test_only_floats_can_require_a_gradient():
    with pytest.raises(UserError, match="int64"):
        tensor([1, 2], requires_grad=True)
    with pytest.raises(UserError, match="int64"):
        tensor([1, 2]).requires_grad_()
    with pytest.raises(UserError, match="leaves"):
        (leaf([1.0]) * 2).requires_grad_(False)


def test_backward_names_the_shape_it_needs():
    x = leaf([1.0, 2.0])
    with pytest.raises(UserError, match=r"\(2,\) needs its gradient"):
        (x * 2).backward()
    with pytest.raises(UserError, match=r"\(3,\).*\(2,\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(UserError, match="float32"):
        (x * 2).backward(np.ones(2, np.float32))
    with pytest.raises(UserError, match="does not depend"):
        tensor([1.0]).backward()
    with pytest.raises(UserError, match=r"inputs\[0\]"):
        grad(x.sum(), tensor([1.0]))
    with pytest.raises(UserError, match="one for each of the 2"):
        grad([x, x], x, [np.ones(2)])


def test_a_rule_that_returns_the_wrong_shape_is_caught():
    x = leaf([1.0, 2.0])
    wrong = record(x.data.copy(), (x, lambda g, y: g.sum()))
    with pytest.raises(UserError, match=r"rule returned.*\(\).*\(2,\)"):
        wrong.backward(np.ones(2))


def test_a_tensor_of_no_axes_is_formatted_as_its_number():
    assert f"{tensor(2.0 / 3):.3f}" == "0.667"
    assert f"{tensor([1.0, 2.0])}" == repr(tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="format"):
        f"{tensor([1.0, 2.0]):.3f}"


def test_conversions_and_repr():
    t = tensor([[1.0, 2.0]], requires_grad=True)
    assert repr(t) == "tensor([[1., 2.]], requires_grad=True)"
    assert repr(tensor(np.array(1.0))) == "tensor(1., dtype=float64)"
    assert len(t) == 1
    assert [row.shape for row in t] == [(2,)]
    assert float(t[0, 0]) == 1.0
    assert int(t[0, 1]) == 2
    assert bool(t[0, 0] > 0)
    assert t.sum().item() == 3.0
    assert np.asarray(t).tolist() == [[1.0, 2.0]]
    assert (np.ones(2, np.float32) * t).requires_grad
    assert t.detach().requires_grad is False
    assert Tensor(t).data is not t.data
    assert t.to("cpu") is t
    assert t.to(np.float64).dtype == np.float64
    assert t.device == "cpu"
    assert len({t, t}) == 1
    with pytest.raises(UserError, match="no device is called 'gpu'"):
        t.to(device="gpu")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle_round_trip])
def test_a_copy_is_a_leaf_of_its_own_and_as_immutable(duplicate):
    x = leaf([1.0, 2.0])
    twin = duplicate(x)
    assert twin is not x
    assert twin.requires_grad
    assert_close(twin, x.data)
    with pytest.raises(ValueError, match="read-only"):
        twin.data[0] = 5
