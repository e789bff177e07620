"""Reductions: values for every way of naming axes, gradients, accuracy of long sums."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, tensor
from tinyvid.ops import channels

f32 = np.float32
DIMS = [None, 0, 1, -1, (0, 2), (-1, 0), [1], (0, 1, 2), (2, 1)]


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def leaf(array):
    return tensor(np.asarray(array, np.float64), requires_grad=True)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", DIMS, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "amax", "amin"])
def test_value_and_gradients_for_every_way_of_naming_axes(name, dim, keepdim):
    x = leaf(values(2, 3, 4))
    at = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    options = {"ddof": 1} if name in ("var", "std") else {}
    want = getattr(np, name)(x.data, at, keepdims=keepdim, **options)
    function = getattr(tinyvid, name)
    assert_close(function(x, dim, keepdim=keepdim), np.asarray(want), rtol=1e-12)
    gradcheck(lambda x: function(x, dim, keepdim=keepdim), (x,), mode="random")
    gradgradcheck(lambda x: function(x, dim, keepdim=keepdim), (x,), mode="random")


def test_by_hand():
    x = tensor([[1.0, 2.0], [3.0, 6.0]])
    assert_close(x.sum(0), np.array([4, 8], f32))
    assert_close(x.mean(1), np.array([1.5, 4.5], f32))
    assert_close(x.mean(), np.array(3, f32))
    # about the mean 3: 4 + 1 + 0 + 9 = 14; / 3 and / 4
    assert_close(x.var(), np.array(14 / 3, f32), rtol=1e-7)
    assert_close(x.var(correction=0), np.array(3.5, f32))
    assert_close(x.std(correction=0), np.sqrt(np.array(3.5, f32)))
    assert_close(x.amax(0), np.array([3, 6], f32))
    assert_close(x.amin(), np.array(1, f32))
    assert_close(x.argmax(1), np.array([1, 1]))
    assert_close(x.argmin(), np.array(0))
    assert_close(x.argmax(0, keepdim=True), np.array([[1, 1]]))


def test_zero_dimensional_and_empty():
    x = leaf(3.0)
    assert_close(x.sum(), np.array(3.0))
    assert_close(x.amax(), np.array(3.0))
    assert_close(tinyvid.grad(x.mean() * x.sum(), x), np.array(6.0))
    empty = leaf(np.zeros((0, 3)))
    assert_close(empty.sum(0), np.zeros(3))
    (g,) = tinyvid.grad([empty.sum()], [empty])
    assert_close(g, np.zeros((0, 3)))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.int64])
def test_integers_add_up_to_int64_and_average_to_float32(dtype):
    x = tensor(np.array([1, 0, 1], dtype))
    assert_close(x.sum(), np.array(2))
    assert_close(x.mean(), np.array(2 / 3, f32), rtol=1e-7)
    assert tensor(np.full(300, 255, np.uint8)).sum().item() == 300 * 255


def test_equal_extrema_share_the_gradient():
    x = leaf([[2.0, 2.0, 1.0], [0.0, 5.0, 5.0]])
    (g,) = tinyvid.grad(x.amax(1), [x], np.array([6.0, 10.0]))
    assert_close(g, np.array([[3.0, 3.0, 0.0], [0.0, 5.0, 5.0]]))
    (g,) = tinyvid.grad(x.amin((0, 1)), [x])
    assert_close(g, np.array([[0.0, 0, 0], [1, 0, 0]]))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (2, 3), (1, 1), ()])
def test_unbroadcast_is_the_adjoint_of_broadcast_to(shape):
    x, g = values(*shape), values(4, 2, 3, seed=1)
    lifted = tinyvid.broadcast_to(tensor(x), (4, 2, 3)).data
    lowered = tinyvid.unbroadcast(tensor(g), shape).data
    assert lowered.shape == shape
    np.testing.assert_allclose((lifted * g).sum(), (x * lowered).sum(), rtol=1e-12)


# Long sums over channels-last memory


def clip(n, c, *size, mean=3.0, seed=0):
    """Float32 values `N C ...` in channels-last memory."""
    array = np.random.default_rng(seed).standard_normal((n, *size, c), np.float32) + f32(mean)
    return np.moveaxis(array, -1, 1)


# Positions that are a power of two, odd (no lanes), few channels, one, and many channels.
CLIPS = [(4, 16, 8, 32, 32), (3, 5, 7, 31, 33), (2, 1, 5, 99, 101), (5, 300, 3, 9, 7)]


@pytest.mark.parametrize("shape", CLIPS, ids=str)
def test_sums_over_channels_last_memory_keep_float32_s_digits(shape):
    x = clip(*shape)
    dims = (0, 2, 3, 4)
    want = x.sum(dims, dtype=np.float64)
    got = tinyvid.sum(tensor(x), dims)
    assert got.dtype == f32
    np.testing.assert_allclose(got.data, want, rtol=5e-7)
    assert_close(tinyvid.sum(tensor(x), dims, keepdim=True), got.data.reshape(1, -1, 1, 1, 1))


def test_naive_sums_are_worse_which_is_why_there_are_blocks():
    x = clip(16, 16, 16, 32, 32)
    want = x.sum((0, 2, 3, 4), dtype=np.float64)
    naive = np.abs(x.sum((0, 2, 3, 4)) / want - 1).max()
    ours = np.abs(channels.total(x, (0, 2, 3, 4)).ravel() / want - 1).max()
    assert ours < 2e-7 < naive


@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1), (1, 2), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)], ids=str)
def test_total_of_any_axes_in_any_memory_order(dims, order):
    sizes = (60, 70, 80)
    base = np.random.default_rng(0).standard_normal([sizes[i] for i in order], np.float32)
    x = base.transpose(np.argsort(order)) + f32(1)
    want = x.sum(dims, dtype=np.float64, keepdims=True)
    got = channels.total(x, dims)
    assert got.shape == want.shape
    assert got.dtype == f32
    np.testing.assert_allclose(got, want, rtol=2e-6)


@pytest.mark.parametrize("shape", CLIPS, ids=str)
def test_moments_are_accurate_far_from_zero(shape):
    x = clip(*shape, mean=100.0)
    mean, variance = channels.moments(channels.channels_last(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3, 4)), rtol=1e-9)
    np.testing.assert_allclose(variance, exact.var((0, 2, 3, 4)), rtol=5e-7)


def test_results_do_not_depend_on_the_number_of_threads():
    from tinyvid.kernels import threads

    x, before = clip(3, 5, 7, 31, 33), threads.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            threads.set_num_threads(count)
            rows = channels.channels_last(x)
            found.append([channels.total(x, (0, 2, 3, 4)), *channels.moments(rows)])
    finally:
        threads.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert_close(one, two)


# What is refused


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "amax", "amin", "argmax", "argmin"])
@pytest.mark.parametrize("dim", [2, -3])
def test_a_dim_that_does_not_exist(name, dim):
    with pytest.raises(UserError, match=rf"dim={dim} .*2 axes"):
        getattr(tinyvid, name)(tensor(np.ones((2, 3))), dim)


def test_a_dim_named_twice():
    with pytest.raises(UserError, match=r"\(0, -2\) names an axis twice"):
        tensor(np.ones((2, 3))).sum((0, -2))


@pytest.mark.parametrize("name", ["amax", "amin", "argmax", "argmin"])
def test_extrema_of_nothing(name):
    empty = tensor(np.ones((2, 0)))
    with pytest.raises(UserError, match=rf"{name}: shape \(2, 0\) has no elements"):
        getattr(tinyvid, name)(empty, 1)
    if name.startswith("am"):
        assert getattr(tinyvid, name)(empty, 0).shape == (0,)
