"""Methods that PyTorch's tensors have: values, gradients, what they refuse."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, no_grad, tensor

f32 = np.float32
X = np.array([[1.0, 7.0, 7.0], [4.0, -2.0, 0.5]])


def leaf(array=X):
    return tensor(np.array(array, np.float64), requires_grad=True)


def test_shapes_and_numbers():
    x = tensor(X)
    assert (x.dim(), x.numel()) == (2, 6)
    assert x.tolist() == X.tolist()
    assert tensor(3).tolist() == 3
    assert_close(x.view(3, -1), X.reshape(3, 2))
    assert_close(x.view((6,)), X.reshape(6))
    assert x.T.contiguous().shape == (3, 2)
    gradcheck(lambda x: x.view(-1).contiguous(), (leaf(),))


def test_dtypes():
    x = tensor(np.array([1, 2]))
    assert_close(x.float(), np.array([1, 2], f32))
    assert_close(x.double(), np.array([1.0, 2.0]))
    a = leaf()
    (a.float() * 3).sum().backward()
    assert_close(a.grad, np.full(X.shape, 3.0))


def test_a_clone_has_gradients_and_a_life_of_its_own():
    x = leaf()
    y = x.clone()
    assert y is not x
    assert not y.is_leaf
    gradcheck(lambda x: x.clone() * x, (x,))
    gradgradcheck(lambda x: x.clone() * x, (x,))
    plain = tensor(X)
    kept = plain.clone()
    plain += 1.0
    assert_close(kept, X)
    with no_grad():
        x *= 2.0
    assert_close(y, X)


def test_extrema_of_all():
    x = leaf()
    assert_close(x.max(), np.array(7.0))
    assert_close(x.min(), np.array(-2.0))
    x.max().backward()
    assert_close(x.grad, np.array([[0, 0.5, 0.5], [0, 0, 0]]))


@pytest.mark.parametrize("keepdim", [False, True])
def test_extrema_along_an_axis(keepdim):
    x = leaf()
    top = x.max(1, keepdim)
    values, indices = top
    assert top.values is values
    assert top.indices is indices
    shape = (2, 1) if keepdim else (2,)
    assert_close(values, np.array([7.0, 4.0]).reshape(shape))
    assert_close(indices, np.array([1, 0]).reshape(shape))
    values.sum().backward()
    assert_close(x.grad, np.array([[0.0, 1, 0], [1, 0, 0]]))
    values, indices = x.min(dim=0, keepdim=keepdim)
    shape = (1, 3) if keepdim else (3,)
    assert_close(values, np.array([1.0, -2.0, 0.5]).reshape(shape))
    assert_close(indices, np.array([0, 1, 1]).reshape(shape))


def test_gather_by_hand():
    x = leaf()
    index = np.array([[2, 0], [1, 1]])
    assert_close(x.gather(1, index), np.array([[7.0, 1.0], [-2.0, -2.0]]))
    assert_close(x.gather(-2, tensor([[1, 0]])), np.array([[4.0, 7.0]]))
    x.gather(1, index).sum().backward()
    assert_close(x.grad, np.array([[1.0, 0, 1], [0, 2, 0]]))
    gradcheck(lambda x: x.gather(1, index) ** 2, (leaf(),))
    gradgradcheck(lambda x: x.gather(1, index) ** 2, (leaf(),))


def test_beside_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    array = rng.permutation(60).reshape(3, 4, 5).astype(f32)
    x, theirs = tensor(array), torch.from_numpy(array)
    for dim in (0, 1, -1):
        for name in ("max", "min"):
            for mine, want in zip(getattr(x, name)(dim), getattr(theirs, name)(dim), strict=True):
                assert_close(mine, want.numpy())
        index = rng.integers(0, 3, (2, 3, 4))
        want = theirs.gather(dim, torch.from_numpy(index))
        assert_close(x.gather(dim, index), want.numpy())


def test_what_is_refused():
    x = tensor(X)
    refused = [
        (lambda: x.max(2), "2 axes lack"),
        (lambda: tinyvid.zeros(2, 0).max(1), "no elements"),
        (lambda: x.view(4), "cannot become"),
        (lambda: x.gather(1, [0, 1]), r"index of shape \(2,\)"),
        (lambda: x.gather(1, np.zeros((3, 1), int)), r"index of shape \(3, 1\)"),
        (lambda: x.gather(1, [[3]]), "0 … 2"),
        (lambda: x.gather(1, [[-1]]), "0 … 2"),
        (lambda: x.gather(1, [[0.0]]), "integers"),
    ]
    for call, message in refused:
        with pytest.raises(UserError, match=message):
            call()
