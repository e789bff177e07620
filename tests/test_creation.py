"""Making tensors, and the generator behind random ones."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, tensor
from tinyvid.device import check_device

f32 = np.float32


def test_zeros_ones_and_full():
    assert_close(tinyvid.zeros(2, 3), np.zeros((2, 3), f32))
    assert_close(tinyvid.ones((2, 1)), np.ones((2, 1), f32))
    assert_close(tinyvid.zeros([2], dtype=np.int64), np.zeros(2, np.int64))
    assert_close(tinyvid.ones(np.int64(2)), np.ones(2, f32))
    assert_close(tinyvid.zeros(()), np.zeros((), f32))
    assert_close(tinyvid.full((2,), 7.5), np.full(2, 7.5, f32))
    assert_close(tinyvid.full(3, 7, dtype=np.uint8), np.full(3, 7, np.uint8))


def test_like_keeps_shape_and_dtype():
    x = tensor(np.array([[1.5, 2.5]]))
    assert_close(tinyvid.zeros_like(x), np.zeros((1, 2)))
    assert_close(tinyvid.ones_like(x), np.ones((1, 2)))


@pytest.mark.parametrize(
    ("args", "want"),
    [
        ((4,), np.array([0, 1, 2, 3])),
        ((1, 4), np.array([1, 2, 3])),
        ((5, 0, -2), np.array([5, 3, 1])),
        ((0.0, 1.0, 0.25), np.array([0, 0.25, 0.5, 0.75], f32)),
        ((0,), np.zeros(0, np.int64)),
    ],
)
def test_arange(args, want):
    assert_close(tinyvid.arange(*args), want)


def test_arange_of_a_given_dtype():
    assert_close(tinyvid.arange(3, dtype=np.float64), np.array([0.0, 1, 2]))


def test_from_numpy_and_tensor_copy():
    array = np.array([1.0, 2.0])
    for function in (tinyvid.from_numpy, tensor):
        x = function(array)
        assert x.dtype == np.float64
        assert not np.shares_memory(x.data, array)
    assert_close(tensor([1, 2], dtype=f32), np.array([1, 2], f32))


@pytest.mark.parametrize("name", ["zeros", "ones", "rand", "randn"])
def test_requires_grad_makes_a_leaf(name):
    x = getattr(tinyvid, name)(2, requires_grad=True)
    assert x.is_leaf
    (x * x).sum().backward()
    assert_close(x.grad, 2 * x.data)
    assert getattr(tinyvid, name)(2).requires_grad is False


def test_only_floats_can_require_a_gradient():
    with pytest.raises(UserError, match="int64"):
        tinyvid.zeros(2, dtype=np.int64, requires_grad=True)
    with pytest.raises(UserError, match="int64"):
        tinyvid.full(2, 1, dtype=np.int64, requires_grad=True)


@pytest.mark.parametrize("dtype", [f32, np.float64])
def test_random_numbers_have_their_distribution_and_their_seed(dtype):
    tinyvid.manual_seed(0)
    uniform, normal = tinyvid.rand(40_000, dtype=dtype), tinyvid.randn(200, 200, dtype=dtype)
    assert uniform.dtype == normal.dtype == dtype
    assert normal.shape == (200, 200)
    assert uniform.data.min() >= 0
    assert uniform.data.max() < 1
    assert abs(uniform.data.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 40_000)
    assert abs(normal.data.mean()) < 5 / np.sqrt(40_000)
    assert abs(normal.data.std() - 1) < 0.02
    tinyvid.manual_seed(0)
    assert_close(tinyvid.rand(40_000, dtype=dtype), uniform.data)
    assert tinyvid.manual_seed(1).random() != tinyvid.manual_seed(2).random()


def test_devices():
    assert check_device("cpu") == "cpu"
    message = r"no device is called 'cdua'; there is 'cpu', .*Did you mean 'cuda'"
    with pytest.raises(UserError, match=message):
        check_device("cdua")
    assert tensor([1.0]).to(device="cpu").dtype == f32
    assert tensor([1.0]).to(np.float64, device="cpu").dtype == np.float64


MAKERS = {
    "tensor": [1.0],
    "zeros": 2,
    "ones": 2,
    "full": (2,),
    "rand": 2,
    "randn": 2,
    "arange": 2,
    "zeros_like": tensor([1.0]),
    "ones_like": np.ones(2, f32),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_maker_takes_a_device(name):
    args = (MAKERS[name], 3.0) if name == "full" else (MAKERS[name],)
    make = getattr(tinyvid, name)
    want = make(*args)
    for device in ("cpu", "emulator", None):
        got = make(*args, device=device)
        assert got.device == (device or "cpu")
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
    with pytest.raises(UserError, match="no device is called 'gpu'"):
        make(*args, device="gpu")
