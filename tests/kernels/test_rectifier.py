"""The ReLU of large arrays gives the numbers of NumPy's formula, in the order of its input."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid.kernels import rectifier
from tinyvid.kernels.rectifier import rectified, where_positive
from tinyvid.kernels.threads import get_num_threads, set_num_threads
from tinyvid.ops.elementwise import LARGE

RNG = np.random.default_rng(3)
SHAPE = (2, 3, rectifier.CHUNK // 3 + 5)  # two chunks and a rest
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0]


def drawn(dtype=np.float32, shape=SHAPE):
    """Return an array of channels-last memory, with some NaN, infinities and zeros."""
    n, c, length = shape
    a = RNG.standard_normal((n, length, c)).astype(dtype)
    a.reshape(-1)[: min(len(SPECIAL), a.size)] = SPECIAL[: a.size]
    return np.moveaxis(a, -1, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1), (2, 0, 3)], ids=str)
def test_the_numbers_of_the_formula(dtype, shape):
    x, g = drawn(dtype, shape), drawn(dtype, shape)[..., ::-1]
    y, gx = rectified(x), where_positive(g, x)
    assert y.dtype == gx.dtype == dtype
    assert np.array_equal(y, np.maximum(x, dtype(0)), equal_nan=True)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(gx, g * (x > 0), equal_nan=True)
    if x.size > 1:
        assert y.strides == gx.strides == x.strides


def test_any_order_of_axes_and_gaps():
    x = np.moveaxis(drawn(), 1, 0)[:, :, ::-2]
    assert np.array_equal(rectified(x), np.maximum(x, np.float32(0)), equal_nan=True)


def test_threads_change_nothing():
    before, x = get_num_threads(), drawn()
    try:
        set_num_threads(1)
        one = rectified(x)
        set_num_threads(3)
        assert np.array_equal(one, rectified(x), equal_nan=True)
    finally:
        set_num_threads(before)


def test_the_operation_takes_it_for_large_arrays_only(monkeypatch):
    taken = []
    for name in ("rectified", "where_positive"):
        whole = getattr(rectifier, name)
        monkeypatch.setattr(rectifier, name, lambda *a, f=whole, n=name: taken.append(n) or f(*a))
    for size in (LARGE - 1, LARGE):
        values = RNG.standard_normal(size)
        x = tinyvid.tensor(values, requires_grad=True)
        tinyvid.relu(x).backward(tinyvid.tensor(values + 1))
        assert_close(x.grad.numpy(), (values + 1) * (values > 0))
        assert len(taken) == (0 if size < LARGE else 2)


def test_its_gradient_can_be_differentiated():
    x = tinyvid.tensor(RNG.standard_normal(LARGE), requires_grad=True)
    (g,) = tinyvid.grad([tinyvid.relu(x).square().sum()], [x], create_graph=True)
    g.square().sum().backward()
    assert_close(x.grad.numpy(), 8 * np.maximum(x.numpy(), 0))
