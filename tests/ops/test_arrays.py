"""Arrays in place of tensors: every operation takes them, with the values of the tensors."""

import numpy as np
import pytest
from compare import assert_close
from test_saved import CASES

import tinyvid
from tinyvid import UserError, tensor
from tinyvid.tensor import Tensor, takes_arrays

f32 = np.float32
X = np.array([[-1.0, 2.0], [3.0, 4.0]], f32)
CALLS = {name: CASES[name] for name in CASES if not name.startswith(("getitem", "where"))}
CALLS |= {name: (getattr(tinyvid, name), CASES["amax"][1]) for name in ("argmax", "argmin")}
CALLS["getitem"] = tinyvid.getitem, [X, [0, 0]]
CALLS["where"] = tinyvid.where, [X > 0, X, X + 1]


def test_every_operation_is_called():
    assert {name.partition(",")[0] for name in CALLS} == set(tinyvid.ops.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_give_what_tensors_give(name):
    function, arrays = CALLS[name]
    got = function(*arrays)
    assert isinstance(got, Tensor)
    assert_close(got, function(*map(tensor, arrays)).data)


def test_numbers_and_lists_too():
    assert_close(tinyvid.relu([-1.0, 2.0]), np.array([0, 2], f32))
    assert_close(tinyvid.exp(0), np.array(1, f32))
    assert_close(tinyvid.sum(input=[[1.0, 2.0]], dim=1), np.array([3], f32))


def test_gradients_reach_a_weight_beside_an_array():
    w = tensor([[1.0, 2.0]], requires_grad=True)
    tinyvid.linear(X, w).sum().backward()
    assert_close(w.grad, X.sum(0, keepdims=True))


def test_the_array_is_copied():
    x = X.copy()
    y = tinyvid.reshape(x, 4)
    x[:] = 0
    assert_close(y, X.reshape(4))


def test_running_moments_that_are_written_to_must_be_tensors():
    with pytest.raises(UserError, match="running_mean and running_var: give Tensors"):
        tinyvid.batch_norm(X, np.zeros(2, f32), np.ones(2, f32), training=True)


def test_the_decorator_leaves_name_doc_and_tensors_alone():
    @takes_arrays
    def same(input, other=None):
        """Doc."""
        return input

    x = tensor(X)
    assert same(x) is x
    assert same(x, other=X) is x
    assert (same.__name__, same.__doc__) == ("same", "Doc.")
