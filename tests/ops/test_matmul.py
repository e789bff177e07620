"""Matrix products of every rank, and the linear layer."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, tensor

f32 = np.float32


def draw(*shape, seed=0):
    return tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def test_by_hand():
    a, b = tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[5.0, 6.0], [7.0, 8.0]])
    assert_close(a @ b, np.array([[19, 22], [43, 50]], f32))
    x = tensor([[1.0, 2.0]])
    w, bias = tensor([[3.0, 4.0], [5.0, 6.0], [0.0, 1.0]]), tensor([10.0, 20.0, 30.0])
    assert_close(tinyvid.linear(x, w, bias), np.array([[21, 37, 32]], f32))


SHAPES = [
    ((2, 3), (3, 4)),
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((1, 1), (1, 1)),
    ((2, 0), (0, 3)),
    ((0, 2), (2, 3)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_against_a_loop(left, right):
    a, b = draw(*left), draw(*right, seed=1)
    y = a @ b
    rows = a.data if len(left) > 1 else a.data[None]
    columns = b.data if len(right) > 1 else b.data[:, None]
    batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows = np.broadcast_to(rows, batch + rows.shape[-2:])
    columns = np.broadcast_to(columns, batch + columns.shape[-2:])
    want = np.zeros((*batch, rows.shape[-2], columns.shape[-1]))
    for k in range(rows.shape[-1]):
        want += rows[..., :, k, None] * columns[..., None, k, :]
    assert_close(y, want.reshape(y.shape), rtol=1e-12, atol=1e-14)
    assert y.shape == np.matmul(a.data, b.data).shape
    if a.size and b.size:
        gradcheck(tinyvid.matmul, (a, b), mode="random")
        gradgradcheck(tinyvid.matmul, (a, b), mode="random")
    else:
        ga, gb = tinyvid.grad(y, [a, b], np.ones(y.shape))
        assert (ga.shape, gb.shape) == (left, right)
        assert_close(gb, np.zeros(right))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (0, 3), (2, 1, 4, 3)], ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_linear_over_any_leading_axes(shape, biased):
    x, w = draw(*shape), draw(5, 3, seed=1)
    args = (x, w, draw(5, seed=2)) if biased else (x, w)
    want = x.data @ w.data.T + (args[2].data if biased else 0)
    assert_close(tinyvid.linear(*args), want, rtol=1e-12, atol=1e-14)
    if x.size:
        gradcheck(tinyvid.linear, args, mode="random")
        gradgradcheck(tinyvid.linear, args, mode="random")


def test_mixed_dtypes_and_arrays():
    a = tensor(np.ones((2, 2), f32), requires_grad=True)
    b = tensor(np.full((2, 2), 3.0), requires_grad=True)
    (a @ b).sum().backward()
    assert_close(a.grad, np.full((2, 2), 6, f32))
    assert_close(b.grad, np.full((2, 2), 2.0))
    counts = tensor([[1, 2], [3, 4]])
    assert_close(counts @ a, np.array([[3, 3], [7, 7]], f32))
    assert_close(np.eye(2, dtype=f32) @ a, np.ones((2, 2), f32))
    assert_close(a @ np.eye(2, dtype=f32), np.ones((2, 2), f32))


def test_what_is_refused():
    ones = lambda *shape: tensor(np.ones(shape))  # noqa: E731
    for left, right in (((2, 3), (2, 3)), ((3,), (2,)), ((), (2,)), ((2, 3), (4, 2, 3))):
        with pytest.raises(UserError, match="inner sizes differ"):
            ones(*left) @ ones(*right)
    with pytest.raises(UserError, match=r"\(2, 3, 4\) and \(3, 4, 5\) do not broadcast"):
        ones(2, 3, 4) @ ones(3, 4, 5)
    with pytest.raises(UserError, match=r"linear: input of shape \(2, 3\).*\(5, 4\)"):
        tinyvid.linear(ones(2, 3), ones(5, 4))
    with pytest.raises(UserError, match=r"linear: bias of shape \(4,\)"):
        tinyvid.linear(ones(2, 4), ones(5, 4), ones(4))
