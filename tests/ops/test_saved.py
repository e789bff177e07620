"""Given new values after an operation, an input changes no gradient: refused, or the old one."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, no_grad, tensor
from tinyvid.tensor import record

NAMED = tinyvid.ops.__all__
NOT_DIFFERENTIABLE = {"argmax", "argmin"}


def positive(*shape, seed=0):
    return np.asarray(np.random.default_rng(seed).random(shape)) + np.full(shape, 0.5)


X = positive(2, 3)
CLIP = positive(1, 2, 3, 4, 4)
IMAGE = CLIP[:, :, 0]
LSTM = [positive(8, 3), positive(8, 2), positive(8), positive(8)]
BUFFERS = [positive(3), positive(3, seed=1)]


def dropout(x):
    tinyvid.manual_seed(0)
    return tinyvid.dropout(x, 0.3)


# Of each operation: what it is called with, or (function, arrays).
UNARY = "abs cos exp log neg relu sigmoid sin sqrt square tanh softmax log_softmax logsumexp"
REDUCTIONS = "sum mean var std amax amin"
BINARY = "add sub mul div pow maximum minimum"
BYTES = np.arange(3 * 2 * 3 * 3, dtype=np.uint8).reshape(1, 3, 2, 3, 3) + 180
CASES = {name: (getattr(tinyvid, name), [X]) for name in UNARY.split()}
CASES |= {name: (getattr(tinyvid, name), [X, positive(3, seed=1)]) for name in BINARY.split()}
CASES |= {
    name: (getattr(tinyvid, name), [X]) for name in ["sum", "mean", "var", "std", "amax", "amin"]
}
CASES |= {
    "adaptive_avg_pool2d": (lambda x: tinyvid.adaptive_avg_pool2d(x, 3), [IMAGE]),
    "adaptive_avg_pool3d": (lambda x: tinyvid.adaptive_avg_pool3d(x, 2), [CLIP]),
    "adaptive_max_pool2d": (lambda x: tinyvid.adaptive_max_pool2d(x, 3), [IMAGE]),
    "adaptive_max_pool3d": (lambda x: tinyvid.adaptive_max_pool3d(x, 2), [CLIP]),
    "add_at": (lambda x: tinyvid.add_at(x, ([0, 0],), (2, 3)), [X]),
    "avg_pool2d": (lambda x: tinyvid.avg_pool2d(x, 2), [IMAGE]),
    "avg_pool3d": (lambda x: tinyvid.avg_pool3d(x, 2), [CLIP]),
    "batch_norm": (
        lambda x, w, b: tinyvid.batch_norm(x, None, None, w, b, True),
        [X, positive(3), positive(3)],
    ),
    "batch_norm, running": (tinyvid.batch_norm, [X, *BUFFERS, positive(3), positive(3)]),
    "broadcast_to": (lambda x: tinyvid.broadcast_to(x, (2, 2, 3)), [X]),
    "cast": (lambda x: tinyvid.cast(x, np.float32), [X]),
    "cat": (lambda a, b: tinyvid.cat([a, b, a]), [X, X]),
    "chunk": (lambda x: tinyvid.chunk(x, 2)[1], [X]),
    "clamp": (lambda x: tinyvid.clamp(x, 0.7, 1.2), [X]),
    "conv2d": (tinyvid.conv2d, [IMAGE, positive(2, 2, 2, 2), positive(2)]),
    "conv2d, ReLU": (
        lambda x, w, b: tinyvid.conv2d(x, w, b, relu=True),
        [IMAGE, positive(2, 2, 2, 2), positive(2)],
    ),
    "conv2d_uint8": (
        lambda w, b: tinyvid.conv2d_uint8(BYTES, w, b, relu=True),
        [positive(2, 6, 2, 2), positive(2)],
    ),
    "conv3d": (tinyvid.conv3d, [CLIP, positive(2, 2, 2, 2, 2), positive(2)]),
    "conv3d, ReLU": (
        lambda x, w, b: tinyvid.conv3d(x, w, b, relu=True),
        [CLIP, positive(2, 2, 2, 2, 2), positive(2)],
    ),
    "conv3d_uint8": (
        lambda w, b: tinyvid.conv3d_uint8(BYTES, w, b, relu=True),
        [positive(2, 3, 1, 2, 2), positive(2)],
    ),
    "conv3d_relu_max_pool": (
        lambda x, w, b: tinyvid.conv3d_relu_max_pool(x, w, b, (1, 2, 2)),
        [CLIP, positive(2, 2, 2, 3, 3), positive(2)],
    ),
    "cross_entropy": (lambda x, w: tinyvid.cross_entropy(x, [0, 2], w), [X, positive(3)]),
    "cross_entropy, soft": (lambda x, t: tinyvid.cross_entropy(x, t), [X, positive(2, 3)]),
    "dropout": (dropout, [X]),
    "expand": (lambda x: tinyvid.expand(x, 2, 2, 3), [X]),
    "flatten": (tinyvid.flatten, [X]),
    "flip": (lambda x: tinyvid.flip(x, 0), [X]),
    "getitem": (lambda x: x[[0, 0]], [X]),
    "layer_norm": (lambda x, w, b: tinyvid.layer_norm(x, (3,), w, b), [X, X[0], X[1]]),
    "linear": (tinyvid.linear, [X, positive(4, 3), positive(4)]),
    "local_response_norm": (lambda x: tinyvid.local_response_norm(x, 3, 1.0), [X]),
    "lstm": (lambda x, *w: tinyvid.lstm(x, w)[0], [positive(2, 2, 3), *LSTM]),
    "lstm_composed": (lambda x, *w: tinyvid.lstm_composed(x, w)[0], [positive(2, 2, 3), *LSTM]),
    "matmul": (tinyvid.matmul, [X, positive(3, 2)]),
    "matmul, vectors": (tinyvid.matmul, [X[0], X[1]]),
    "max_pool2d": (lambda x: tinyvid.max_pool2d(x, 2), [IMAGE]),
    "max_pool3d": (lambda x: tinyvid.max_pool3d(x, 2), [CLIP]),
    "mse_loss": (tinyvid.mse_loss, [X, positive(2, 3)]),
    "narrow": (lambda x: tinyvid.narrow(x, 1, 1, 2), [X]),
    "nll_loss": (lambda x, w: tinyvid.nll_loss(x, [0, 2], w), [X, positive(3)]),
    "pad": (lambda x: tinyvid.pad(x, (1, -1)), [X]),
    "permute": (lambda x: tinyvid.permute(x, 1, 0), [X]),
    "reshape": (lambda x: tinyvid.reshape(x, 6), [X]),
    "select": (lambda x: tinyvid.select(x, 1, 0), [X]),
    "split": (lambda x: tinyvid.split(x, 2, 1)[0], [X]),
    "squeeze": (lambda x: tinyvid.squeeze(x), [X[:1]]),
    "stack": (lambda a, b: tinyvid.stack([a, b]), [X, X]),
    "standardise": (lambda x: tinyvid.standardise(x, (0,), 1e-5), [X]),
    "transpose": (lambda x: tinyvid.transpose(x, 0, 1), [X]),
    "unbroadcast": (lambda x: tinyvid.unbroadcast(x, (3,)), [X]),
    "unsqueeze": (lambda x: tinyvid.unsqueeze(x, 0), [X]),
    "where": (lambda a, b: tinyvid.where(X > 1, a, b), [X, X]),
}


def test_every_differentiable_operation_has_a_case():
    assert {name.partition(",")[0] for name in CASES} == set(NAMED) - NOT_DIFFERENTIABLE


def first_and_second(y, inputs, g):
    """Return the gradients of y, and those of their squares."""
    first = tinyvid.grad(y, inputs, g, create_graph=True, allow_unused=True)
    second: list = [None] * len(inputs)
    needed = [(t * t).sum() for t in first if t is not None and t.requires_grad]
    if needed:
        second = list(tinyvid.grad(needed, inputs, [None] * len(needed), allow_unused=True))
    return [*first, *second]


class Refused(Exception):
    """The reverse pass met an input with new values, and said so."""


def refusing(function, *args, **options):
    try:
        return function(*args, **options)
    except UserError as error:
        if "new values" in str(error):
            raise Refused from error
        raise


def derivatives(name, change=None, when=None):
    """Return first and second derivatives; input `change` gets new values before pass `when`."""
    function, arrays = CASES[name]
    inputs = [tensor(a, requires_grad=True) for a in arrays]

    def write():
        with no_grad():
            inputs[change] *= 3.0

    y = function(*inputs)
    g = positive(*y.shape, seed=5).astype(y.dtype)
    if when == 1:
        write()
    first = refusing(tinyvid.grad, y, inputs, g, create_graph=True, allow_unused=True)
    if when == 2:
        write()
    squares = [t * t for t in first if t is not None and t.requires_grad]
    second: tuple = (None,) * len(inputs)
    if squares:
        ones = [np.ones(t.shape, t.dtype) for t in squares]
        second = refusing(tinyvid.grad, squares, inputs, ones, allow_unused=True)
    return [*first, *second]


@pytest.mark.parametrize("when", [1, 2], ids=["before backward", "before the second backward"])
@pytest.mark.parametrize("name", CASES)
def test_new_values_give_an_error_or_the_gradient_of_the_old_ones(name, when):
    want = derivatives(name)
    assert any(g is not None for g in want)
    for change in range(len(CASES[name][1])):
        try:
            got = derivatives(name, change, when)
        except Refused:
            continue
        for a, b in zip(got, want, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_close(a, b.data, rtol=1e-9, atol=1e-12)


def test_the_check_sees_a_rule_that_reads_an_input_it_has_not_saved():
    x = tensor(X, requires_grad=True)
    y = record(x.data**2, (x, lambda g, y: g * x.data * 2))
    with no_grad():
        x *= 3.0
    got = tinyvid.grad(y, x, np.ones(X.shape))
    with pytest.raises(AssertionError):
        assert_close(got, 2 * X)
