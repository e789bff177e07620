"""Operations that move elements: against NumPy, gradients, and what they refuse."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, tensor

f32 = np.float32
X = np.arange(24.0).reshape(2, 3, 4)


def leaf(array):
    return tensor(np.asarray(array, np.float64), requires_grad=True)


CASES = {
    # name: (operation, the same in NumPy)
    "reshape": (lambda x: x.reshape(4, -1), lambda a: a.reshape(4, -1)),
    "reshape tuple": (lambda x: x.reshape((6, 4)), lambda a: a.reshape(6, 4)),
    "reshape numpy int": (lambda x: x.reshape(np.int64(24)), lambda a: a.reshape(24)),
    "flatten": (lambda x: x.flatten(), lambda a: a.reshape(-1)),
    "flatten from 1": (lambda x: x.flatten(1), lambda a: a.reshape(2, 12)),
    "flatten to -2": (lambda x: x.flatten(0, -2), lambda a: a.reshape(6, 4)),
    "flatten one": (lambda x: x.flatten(1, 1), lambda a: a),
    "permute": (lambda x: x.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1)),
    "permute negative": (lambda x: x.permute((-1, 0, -2)), lambda a: a.transpose(2, 0, 1)),
    "transpose": (lambda x: x.transpose(0, -1), lambda a: a.swapaxes(0, 2)),
    "T": (lambda x: x.T, lambda a: a.T),
    "squeeze": (lambda x: x[:1].squeeze(), lambda a: a[0]),
    "squeeze 0": (lambda x: x[:1, :1].squeeze(-3), lambda a: a[0, :1]),
    "squeeze two": (lambda x: x[:1, :1].squeeze((0, 1)), lambda a: a[0, 0]),
    "squeeze longer": (lambda x: x.squeeze(0), lambda a: a),
    "unsqueeze": (lambda x: x.unsqueeze(1), lambda a: a[:, None]),
    "unsqueeze -1": (lambda x: x.unsqueeze(-1), lambda a: a[..., None]),
    "broadcast_to": (lambda x: x.broadcast_to((5, 2, 3, 4)), lambda a: np.stack([a] * 5)),
    "expand": (lambda x: x[:, :1].expand(-1, 5, -1), lambda a: a[:, :1].repeat(5, 1)),
    "expand new": (lambda x: x[0, 0].expand(2, 4), lambda a: np.stack([a[0, 0]] * 2)),
    "flip": (lambda x: x.flip(0, -1), lambda a: a[::-1, :, ::-1]),
    "flip tuple": (lambda x: x.flip((1,)), lambda a: a[:, ::-1]),
    "narrow": (lambda x: x.narrow(1, 1, 2), lambda a: a[:, 1:3]),
    "narrow negative": (lambda x: x.narrow(-1, -2, 2), lambda a: a[..., 2:]),
    "narrow nothing": (lambda x: x.narrow(0, 2, 0), lambda a: a[2:]),
    "select": (lambda x: x.select(1, -1), lambda a: a[:, -1]),
    "split": (lambda x: x.split(2, 1)[1], lambda a: a[:, 2:]),
    "split sizes": (lambda x: x.split([1, 3], -1)[1], lambda a: a[..., 1:]),
    "chunk": (lambda x: x.chunk(2, 2)[0], lambda a: a[..., :2]),
    "slices": (lambda x: x[:, ::-1, 1:3], lambda a: a[:, ::-1, 1:3]),
    "new axis": (lambda x: x[..., None, 0], lambda a: a[..., None, 0]),
    "integer": (lambda x: x[1], lambda a: a[1]),
    "one element": (lambda x: x[1, 2, 3], lambda a: np.array(a[1, 2, 3])),
    "list": (lambda x: x[[1, 0, 1]], lambda a: a[[1, 0, 1]]),
    "empty list": (lambda x: x[[]], lambda a: a[[]]),
    "repeated": (lambda x: x[:, [0, 0, 2]], lambda a: a[:, [0, 0, 2]]),
    "two lists": (lambda x: x[[0, 1, 0], [2, 2, 2]], lambda a: a[[0, 1, 0], [2, 2, 2]]),
    "tensor index": (lambda x: x[tensor([[1], [1]])], lambda a: a[[[1], [1]]]),
    "tensor in tuple": (lambda x: x[0, tensor([2, 2])], lambda a: a[0, [2, 2]]),
    "boolean mask": (lambda x: x[X > 10], lambda a: a[X > 10]),
    "boolean axis": (lambda x: x[:, [True, False, True]], lambda a: a[:, [0, 2]]),
    "mask tensor": (lambda x: x[x > 5], lambda a: a[X > 5]),
    "nothing chosen": (lambda x: x[x > 99], lambda a: a[X > 99]),
    "pad": (lambda x: tinyvid.pad(x, (1, 2)), lambda a: np.pad(a, ((0, 0), (0, 0), (1, 2)))),
    "pad two": (
        lambda x: tinyvid.pad(x, (0, 1, 2, 0), value=7.0),
        lambda a: np.pad(a, ((0, 0), (2, 0), (0, 1)), constant_values=7),
    ),
    "pad crops": (lambda x: tinyvid.pad(x, (-1, -2)), lambda a: a[..., 1:2]),
    "pad and crop": (
        lambda x: tinyvid.pad(x, (-2, 1)),
        lambda a: np.pad(a[..., 2:], ((0, 0), (0, 0), (0, 1))),
    ),
    "pad crops all": (lambda x: tinyvid.pad(x, (-4, 0)), lambda a: a[..., 4:]),
    "pad nothing": (lambda x: tinyvid.pad(x, ()), lambda a: a),
}


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    operation, expected = CASES[name]
    x = leaf(X)
    y = operation(x)
    assert_close(y, np.ascontiguousarray(expected(X)).reshape(expected(X).shape))
    # The operation is linear: <g, y(u)> = <gx, u> for its part in the gradient. The places of
    # all elements, gathered by the operation itself, say where each element of g belongs.
    g = np.random.default_rng(0).normal(size=y.shape)
    with np.errstate(all="raise"):
        y.backward(g)
    want = np.zeros(X.shape)
    places = expected(np.arange(24.0).reshape(X.shape) + 1000)  # told from padding, 0 and 7
    inside = places >= 1000
    np.add.at(want.reshape(-1), (places[inside] - 1000).astype(int), g[inside])
    if x.grad is None:
        assert y.size == 0
    else:
        assert_close(x.grad, want, rtol=1e-12)


SMOOTH = [n for n in CASES if not n.startswith(("mask", "boolean mask", "nothing", "empty"))]


@pytest.mark.parametrize("name", [n for n in SMOOTH if "all" not in n and "nothing" not in n])
def test_second_derivatives(name):
    operation, _ = CASES[name]
    x = leaf(np.random.default_rng(1).normal(size=X.shape))
    gradgradcheck(lambda x: operation(x) * operation(x), (x,), mode="random")


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cat_and_stack(dim):
    a, b, c = leaf(X), leaf(X + 1), leaf(X * 2)
    assert_close(tinyvid.cat([a, b, c], dim), np.concatenate([X, X + 1, X * 2], dim))
    assert_close(tinyvid.stack([a, b, c], dim), np.stack([X, X + 1, X * 2], dim))
    for function in (tinyvid.cat, tinyvid.stack):
        gradcheck(lambda *t, f=function: f([*t, t[0]], dim), (a, b, c), mode="random")


def test_cat_of_unequal_sizes_and_of_one():
    a, b = leaf(X[:, :1]), leaf(X[:, :2])
    y = tinyvid.cat((a, b), -2)
    assert_close(y, np.concatenate([X[:, :1], X[:, :2]], 1))
    ga, gb = tinyvid.grad(y, [a, b], X)
    assert_close(ga, X[:, :1].copy())
    assert_close(gb, X[:, 1:].copy())
    assert_close(tinyvid.cat([a]), X[:, :1].copy())


@pytest.mark.parametrize("function", [tinyvid.cat, tinyvid.stack])
def test_joining_mixed_dtypes_gives_each_its_own_gradient(function):
    a = tensor([1.0], requires_grad=True)  # float32
    b = leaf([2.0])
    y = function([a, b, tensor([3])])
    assert y.dtype == np.float64
    y.backward(np.array([10.0, 20.0, 30.0]).reshape(y.shape))
    assert_close(a.grad, np.array([10], f32))
    assert_close(b.grad, np.array([20.0]))
    assert function([a, tensor([3])]).dtype == f32  # integers have no say


def test_an_index_array_that_changes_afterwards_changes_no_gradient():
    x, index, inner = leaf([1.0, 2.0, 3.0]), np.array([0, 0]), [2]
    y = x[index].sum() + x[inner].sum()
    index[:] = 1
    inner[0] = 1
    y.backward()
    assert_close(x.grad, np.array([2.0, 0.0, 1.0]))


def test_add_at_is_the_adjoint_of_indexing_in_value():
    got = tinyvid.add_at(leaf([1.0, 2.0, 4.0]), ([0, 1, 0],), (3,))
    assert_close(got, np.array([5.0, 2.0, 0.0]))
    assert_close(tinyvid.add_at(leaf([1.0, 2.0]), np.s_[::2], (3,)), np.array([1.0, 0, 2.0]))


def test_views_share_memory_and_are_read_only():
    x = tensor(X)
    views = (x[0], x.T, x.reshape(6, 4), x.flip(0), x.unsqueeze(0), x.broadcast_to((2, 2, 3, 4)))
    for view in views:
        assert np.shares_memory(view.data, x.data)
        assert not view.data.flags.writeable


def test_iteration_and_zero_dimensions():
    assert [row.shape for row in tensor(X)] == [(3, 4), (3, 4)]
    point = leaf(2.0)
    assert point.flatten().shape == (1,)
    assert point.squeeze().shape == ()
    assert point.unsqueeze(0).shape == (1,)
    assert point.permute().shape == ()
    assert point[None].shape == (1,)
    assert tinyvid.stack([point, point]).shape == (2,)


REFUSED = {
    "reshape": (lambda x: x.reshape(5, 5), r"\(2, 3, 4\) cannot become \(5, 5\)"),
    "flatten dim": (lambda x: x.flatten(3), "dim=.*3 axes"),
    "flatten order": (lambda x: x.flatten(2, 1), "start_dim=2 comes after end_dim=1"),
    "permute few": (lambda x: x.permute(0, 1), r"permute: dims=\(0, 1\)"),
    "permute twice": (lambda x: x.permute(0, 0, 1), "twice"),
    "transpose": (lambda x: x.transpose(0, 3), "3 axes"),
    "squeeze": (lambda x: x.squeeze(3), "3 axes"),
    "unsqueeze": (lambda x: x.unsqueeze(5), "4 axes"),
    "broadcast_to": (lambda x: x.broadcast_to((2, 3, 5)), r"cannot be broadcast to \(2, 3, 5\)"),
    "expand": (lambda x: x.expand(3, 4), "fewer axes"),
    "expand size": (lambda x: x.expand(2, 3, 5), "cannot be broadcast"),
    "flip": (lambda x: x.flip(3), "3 axes"),
    "cat shapes": (lambda x: tinyvid.cat([x, x[:, :2]]), r"cat: shapes \(2, 3, 4\), \(2, 2, 4\)"),
    "cat rank": (lambda x: tinyvid.cat([x, x[0]], 1), "cat: shapes"),
    "cat dim": (lambda x: tinyvid.cat([x, x], 3), "3 axes"),
    "cat nothing": (lambda x: tinyvid.cat([]), "cat: there are no tensors"),
    "stack nothing": (lambda x: tinyvid.stack([]), "stack: there are no tensors"),
    "stack shapes": (lambda x: tinyvid.stack([x, x[:1]]), "stack: shapes"),
    "stack dim": (lambda x: tinyvid.stack([x, x], 4), "4 axes"),
    "narrow long": (lambda x: x.narrow(1, 1, 3), "narrow: start=1, length=3 for the size 3"),
    "narrow start": (lambda x: x.narrow(1, -4, 1), "narrow: start=-4"),
    "narrow dim": (lambda x: x.narrow(3, 0, 1), "3 axes"),
    "select dim": (lambda x: x.select(3, 0), "3 axes"),
    "split sum": (lambda x: x.split([1, 1], 1), r"\[1, 1\] do not add up to the size 3 of dim 1"),
    "split 0": (lambda x: x.split(0), "split_size=0"),
    "chunk 0": (lambda x: x.chunk(0), "chunks=0"),
    "chunk dim": (lambda x: x.chunk(2, 3), "3 axes"),
    "pad mode": (lambda x: tinyvid.pad(x, (1, 1), "reflect"), "mode='reflect'"),
    "pad odd": (lambda x: tinyvid.pad(x, (1,)), r"pad=\(1,\)"),
    "pad axes": (lambda x: tinyvid.pad(x, (1,) * 8), "up to 3 axes"),
    "pad crops": (lambda x: tinyvid.pad(x, (-3, -2)), r"crops more than shape \(2, 3, 4\)"),
    "pad crops one side": (lambda x: tinyvid.pad(x, (0, -5)), "crops more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        call(tensor(X))


def test_an_index_out_of_range_is_an_index_error():
    with pytest.raises(IndexError, match="out of bounds"):
        tensor(X)[2]
