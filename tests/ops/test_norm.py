"""Normalisation and dropout: from their definitions, against PyTorch, derivatives, seeds."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, tensor

f32 = np.float32
EPS = 1e-5


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def leaf(array, dtype=np.float64):
    return tensor(np.array(array, dtype), requires_grad=True)


def normalised(x, axes):
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + EPS)


SHAPES = [(4, 3), (3, 2, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)]


def test_batch_norm_by_hand():
    # channel 0: 1, 3 -> mean 2, variance 1; channel 1: 0, 4 -> mean 2, variance 4
    x = tensor([[1.0, 0.0], [3.0, 4.0]])
    mean, var = tensor([10.0, 0.0]), tensor([1.0, 1.0])
    y = tinyvid.batch_norm(x, mean, var, training=True, momentum=0.5, eps=0.0)
    assert_close(y, np.array([[-1, -1], [1, 1]], f32), rtol=1e-6)
    assert_close(mean, np.array([6, 1], f32))  # halfway to 2
    assert_close(var, np.array([1.5, 4.5], f32))  # halfway to the unbiased 2 and 8
    y = tinyvid.batch_norm(x, tensor([1.0, 2.0]), tensor([4.0, 1.0]), eps=0.0)
    assert_close(y, np.array([[0, -2], [1, 2]], f32))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("running", [False, True])
def test_batch_norm_from_its_definition(shape, affine, training, running):
    c = shape[1]
    column = (1, c) + (1,) * (len(shape) - 2)
    axes = (0, *range(2, len(shape)))
    x = draw(*shape) + 1
    weight, bias = (draw(c, seed=1), draw(c, seed=2)) if affine else (np.ones(c), np.zeros(c))
    centre, spread = draw(c, seed=3), draw(c, seed=4) ** 2 + 0.5
    args = [leaf(x), *([leaf(weight), leaf(bias)] if affine else [])]

    def run(x, weight=None, bias=None):
        buffers = (tensor(centre), tensor(spread)) if running else (None, None)
        y = tinyvid.batch_norm(x, *buffers, weight, bias, training, 0.3, EPS)
        run.buffers = buffers
        return y

    if running and not training:
        want = (x - centre.reshape(column)) / np.sqrt(spread.reshape(column) + EPS)
    else:
        want = normalised(x, axes)
    want = want * weight.reshape(column) + bias.reshape(column)
    assert_close(run(*args), want, rtol=1e-11, atol=1e-13)
    if running:
        unbiased = x.var(axes, ddof=1)
        now = (0.7 * centre + 0.3 * x.mean(axes), 0.7 * spread + 0.3 * unbiased)
        for buffer, value in zip(run.buffers, now if training else (centre, spread), strict=True):
            assert_close(buffer, value, rtol=1e-12)
    gradcheck(run, args, mode="random")
    gradgradcheck(run, args, mode="random")


@pytest.mark.parametrize("shape", [(3, 5, 7, 9, 11), (2, 16, 8, 16, 16), (64, 300)], ids=str)
@pytest.mark.parametrize("memory", ["channels-last", "channels-first"])
def test_batch_norm_in_float32_over_many_positions(shape, memory):
    c = shape[1]
    x, g = draw(*shape) * 3 + 5, draw(*shape, seed=1)
    weight, bias = draw(c, seed=2), draw(c, seed=3)

    def run(dtype):
        array = x.astype(dtype)
        if memory == "channels-last":
            array = np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
        w, b = leaf(weight, dtype), leaf(bias, dtype)
        t = tensor(array, requires_grad=True)
        y = tinyvid.batch_norm(t, None, None, w, b, training=True)
        y.backward(g.astype(dtype))
        return [y, t.grad, w.grad, b.grad]

    for got, want in zip(run(f32), run(np.float64), strict=True):
        scale = float(np.abs(want.data).max())
        assert_close(got.data / scale, (want.data / scale).astype(f32), atol=3e-6)


def test_batch_norm_updates_one_buffer_alone_and_casts():
    x, mean = tensor(draw(4, 2).astype(f32)), tensor(np.zeros(2))
    y = tinyvid.batch_norm(x, mean, None, tensor(np.ones(2)), training=True, momentum=1.0)
    assert y.dtype == f32
    assert_close(mean, x.data.mean(0).astype(np.float64), atol=1e-7)


def test_batch_norm_second_backward_does_not_reuse_the_first_ones_gradients():
    x, g = leaf(draw(4, 2)), tensor(draw(4, 2, seed=1))
    y = tinyvid.batch_norm(x, None, None, training=True)
    first = tinyvid.grad(y, x, g, retain_graph=True)
    recorded = tinyvid.grad(y, x, g, create_graph=True)
    assert recorded.requires_grad
    assert_close(recorded, first.data, rtol=1e-9, atol=1e-12)
    g.copy_(g.data * 2)
    assert_close(tinyvid.grad(y, x, g), 2 * first.data, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dims", [(1,), (0, 2), (-1,), (0, 1, 2)], ids=str)
def test_standardise(dims):
    x = draw(3, 4, 5)
    want = normalised(x, dims)
    assert_close(tinyvid.standardise(tensor(x), dims, EPS), want, rtol=1e-11, atol=1e-13)
    gradcheck(lambda x: tinyvid.standardise(x, dims, EPS), (leaf(x),), mode="random")
    gradgradcheck(lambda x: tinyvid.standardise(x, dims, EPS), (leaf(x),), mode="random")


@pytest.mark.parametrize("sizes", [(5,), (4, 5), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm(sizes, affine):
    x, w, b = draw(3, 4, 5), draw(*sizes, seed=1), draw(*sizes, seed=2)
    want = normalised(x, tuple(range(3 - len(sizes), 3)))
    args = [leaf(x)]
    if affine:
        want, args = want * w + b, [leaf(x), leaf(w), leaf(b)]
    function = lambda x, *wb: tinyvid.layer_norm(x, sizes, *wb)  # noqa: E731
    assert_close(function(*args), want, rtol=1e-11, atol=1e-13)
    gradcheck(function, args, mode="random")
    gradgradcheck(function, args, mode="random")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3), (1, 5, 2, 3), (1, 4, 2, 2, 2)], ids=str)
def test_local_response_norm(size, shape):
    x, alpha, beta, k = draw(*shape), 0.3, 0.6, 2.0
    c = shape[1]
    want = np.empty_like(x)
    for i in range(c):
        near = x[:, max(i - size // 2, 0) : min(i + (size - 1) // 2, c - 1) + 1]
        want[:, i] = x[:, i] / (k + alpha * (near**2).sum(1) / size) ** beta
    assert_close(tinyvid.local_response_norm(tensor(x), size, alpha, beta, k), want, rtol=1e-12)
    gradcheck(
        lambda x: tinyvid.local_response_norm(x, size, alpha, beta, k), (leaf(x),), mode="random"
    )


def test_against_torch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, w, b = draw(2, 6, 3, 4), draw(6, seed=1), draw(6, seed=2)
    X, W, B = (torch.from_numpy(a) for a in (x, w, b))
    want = functional.batch_norm(X, None, None, W, B, True)
    got = tinyvid.batch_norm(tensor(x), None, None, tensor(w), tensor(b), True)
    assert_close(got, want.numpy(), rtol=1e-10, atol=1e-12)
    want = functional.layer_norm(X, (3, 4))
    assert_close(tinyvid.layer_norm(tensor(x), (3, 4)), want.numpy(), rtol=1e-10, atol=1e-12)
    for size in (2, 3, 5):
        want = functional.local_response_norm(X, size)
        got = tinyvid.local_response_norm(tensor(x), size)
        assert_close(got, want.numpy(), rtol=1e-10, atol=1e-12)


# Dropout


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [f32, np.float64])
def test_dropout_zeroes_a_share_and_scales_the_rest(p, dtype):
    tinyvid.manual_seed(0)
    x = leaf(np.full(20_000, 3.0), dtype)
    y = tinyvid.dropout(x, p)
    kept = y.data != 0
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / 20_000)
    assert_close(y.data[kept], np.full(kept.sum(), 3 / (1 - p), dtype), rtol=1e-6)
    y.backward(np.ones(20_000, dtype))
    assert_close(x.grad, y.data / dtype(3), rtol=1e-6)


def test_dropout_depends_on_the_seed_alone():
    x, before = tensor(np.ones(100, f32)), None
    for seed in (1, 1, 2):
        tinyvid.manual_seed(seed)
        first, second = tinyvid.dropout(x).data, tinyvid.dropout(x).data
        assert (first != second).any()
        if before is not None:
            assert (first == before).all() == (seed == 1)
        before = first


def test_dropout_at_the_ends_and_at_test_time():
    x = leaf([1.0, 2.0])
    assert tinyvid.dropout(x, 0.0) is x
    assert tinyvid.dropout(x, 0.5, training=False) is x
    y = tinyvid.dropout(x, 1.0)
    y.backward(np.ones(2))
    assert_close(y, np.zeros(2))
    assert_close(x.grad, np.zeros(2))


def test_what_is_refused():
    x = tensor(np.ones((2, 3, 4)))
    two = tensor(np.ones(2))
    refused = [
        (lambda: tinyvid.dropout(x, 1.5), "p=1.5 is not a probability"),
        (lambda: tinyvid.dropout(x, -0.1), "p=-0.1"),
        (lambda: tinyvid.batch_norm(two, None, None), r"\(N, C, ...\).*\(2,\)"),
        (lambda: tinyvid.batch_norm(x[:1, :, :1], None, None, training=True), "more than one"),
        (lambda: tinyvid.batch_norm(x[:0], None, None, training=True), "more than one"),
        (lambda: tinyvid.batch_norm(x, two, None), r"running_mean of shape \(2,\) for 3 channels"),
        (lambda: tinyvid.batch_norm(x, None, two), "running_var of shape"),
        (lambda: tinyvid.batch_norm(x, None, None, two), "weight of shape"),
        (lambda: tinyvid.batch_norm(x, None, None, None, tensor([1.0])), "bias of shape"),
        (lambda: tinyvid.layer_norm(x, (3,)), r"layer_norm over \(3,\).*\(2, 3, 4\)"),
        (lambda: tinyvid.layer_norm(x, ()), r"layer_norm over \(\)"),
        (lambda: tinyvid.layer_norm(x, (4,), tensor([1.0])), r"weight of shape \(1,\)"),
        (lambda: tinyvid.layer_norm(x, (4,), None, tensor([1.0])), r"bias of shape \(1,\)"),
        (lambda: tinyvid.local_response_norm(two, 3), r"\(N, C, ...\)"),
    ]
    for call, message in refused:
        with pytest.raises(UserError, match=message):
            call()
