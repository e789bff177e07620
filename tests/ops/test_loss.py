"""Softmax and losses: by hand, against PyTorch's definitions, with huge values."""

import math

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, tensor

f32 = np.float32
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 3))
CLASSES = np.array([2, 0, 1, 2])
WEIGHT = np.array([0.5, 2.0, 1.5])
SOFT = RNG.dirichlet(np.ones(3), size=4)


def leaf(array):
    return tensor(np.array(array, np.float64), requires_grad=True)


def logp(logits):
    e = np.exp(logits)
    return np.log(e / e.sum(1, keepdims=True))


def test_softmax_by_hand():
    x = tensor([[0.0, math.log(3)]])  # e^0 : e^log 3 = 1 : 3
    assert_close(tinyvid.softmax(x), np.array([[0.25, 0.75]], f32), rtol=1e-6)
    assert_close(tinyvid.log_softmax(x), np.log(np.array([[0.25, 0.75]], f32)), rtol=1e-6)
    assert_close(tinyvid.logsumexp(x), np.array([math.log(4)], f32), rtol=1e-6)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_derivatives_along_each_dim(name, dim):
    function = getattr(tinyvid, name)
    gradcheck(lambda x: function(x, dim), (leaf(LOGITS),))
    gradgradcheck(lambda x: function(x, dim), (leaf(LOGITS),))


def test_softmax_of_huge_values():
    x = tensor(np.array([[1e30, -1e30, 0], [-1e4, -1e4, -1e4], [88, 89, 1000]], f32))
    assert_close(tinyvid.softmax(x), np.array([[1, 0, 0], [1 / 3] * 3, [0, 0, 1]], f32), rtol=1e-6)
    want = np.array([[0, -2e30, -1e30], [-math.log(3)] * 3, [-912, -911, 0]], f32)
    assert_close(tinyvid.log_softmax(x), want, rtol=1e-6)
    assert_close(tinyvid.logsumexp(x), np.array([1e30, -1e4 + math.log(3), 1000], f32), rtol=1e-6)


def test_infinite_logits():
    inf = math.inf
    x = tensor([[-inf, 0.0, 0.0]])
    assert_close(tinyvid.softmax(x), np.array([[0, 0.5, 0.5]], f32))
    rows = tensor([[-inf, -inf], [inf, 0.0], [-inf, 1.0]])
    assert_close(tinyvid.logsumexp(rows), np.array([-inf, inf, 1.0], f32))
    assert_close(tinyvid.logsumexp(rows, 1, keepdim=True), np.array([[-inf], [inf], [1]], f32))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_a_dim_that_is_not_there(name):
    function = getattr(tinyvid, name)
    for shape, dim in (((2, 3), 9), ((2, 3), -3), ((), -1)):
        with pytest.raises(UserError, match=f"{dim}.*names an axis .* {len(shape)} axes lack"):
            function(tinyvid.ones(shape), dim)


def test_softmax_over_several_axes():
    x = RNG.normal(size=(2, 3, 4))
    e = np.exp(x)
    want = e / e.sum((0, 2), keepdims=True)
    assert_close(tinyvid.softmax(tensor(x), (0, 2)), want, rtol=1e-12)
    assert_close(tinyvid.log_softmax(tensor(x), (0, 2)), np.log(want), rtol=1e-12)
    assert_close(tinyvid.logsumexp(tensor(x), (0, 2)), np.log(e.sum((0, 2))), rtol=1e-12)
    gradcheck(lambda x: tinyvid.logsumexp(x, (0, 2)), (leaf(x),))


# Losses


def test_losses_by_hand():
    x = tensor(np.log(np.array([[0.25, 0.75], [0.5, 0.5]], f32)))
    nll = [-math.log(0.75), -math.log(0.5)]
    target = tensor([1, 0])
    for function in (tinyvid.cross_entropy, tinyvid.nll_loss):  # x is log-probabilities already
        assert_close(function(x, target, reduction="none"), np.array(nll, f32), rtol=1e-6)
        assert_close(function(x, target), np.array(sum(nll) / 2, f32), rtol=1e-6)
        assert_close(function(x, target, reduction="sum"), np.array(sum(nll), f32), rtol=1e-6)
        # weights 1 and 3 of the classes 0 and 1: (3 · nll₀ + 1 · nll₁) / (3 + 1)
        got = function(x, target, tensor([1.0, 3.0]))
        assert_close(got, np.array((3 * nll[0] + nll[1]) / 4, f32), rtol=1e-6)
    # d mean / d logits = (softmax − one-hot) / N
    logits = leaf(np.log([[0.25, 0.75], [0.5, 0.5]]))
    tinyvid.cross_entropy(logits, target).backward()
    assert_close(logits.grad, np.array([[0.125, -0.125], [-0.25, 0.25]]), rtol=1e-12)
    # ((1 − 3)² + (2 − 5)²) / 2
    assert_close(tinyvid.mse_loss(tensor([1.0, 2.0]), tensor([3.0, 5.0])), np.array(6.5, f32))
    assert_close(
        tinyvid.mse_loss(tensor([1.0, 2.0]), np.array([3, 5]), "none"), np.array([4, 9], f32)
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_from_its_definition(reduction, smoothing, weighted, soft):
    # loss_n = −Σ_k weight_k q_nk log p_nk with q = (1 − s) · target + s / K. The mean divides by
    # N, but for weighted classes by the sum of the targets' weights.
    weight = WEIGHT if weighted else np.ones(3)
    target = SOFT if soft else np.eye(3)[CLASSES]
    q = (1 - smoothing) * target + smoothing / 3
    losses = -(weight * q * logp(LOGITS)).sum(1)
    count = 4 if soft else weight[CLASSES].sum()
    want = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / count}[reduction]
    args = (SOFT if soft else CLASSES, WEIGHT if weighted else None, -100, reduction, smoothing)
    assert_close(tinyvid.cross_entropy(tensor(LOGITS), *args), np.array(want), rtol=1e-12)
    gradcheck(lambda x: tinyvid.cross_entropy(x, *args), (leaf(LOGITS),))
    gradgradcheck(lambda x: tinyvid.cross_entropy(x, *args), (leaf(LOGITS),))
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS),
        torch.from_numpy(args[0]),
        torch.from_numpy(WEIGHT) if weighted else None,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    assert_close(tinyvid.cross_entropy(tensor(LOGITS), *args), theirs.numpy(), rtol=1e-12)


def test_ignored_targets_by_hand():
    # The second of three samples is ignored, though its probability is 0 and its logits are wild.
    x = tensor(np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]]))
    with np.errstate(divide="ignore"):
        x = tensor(np.log(x.data), requires_grad=True)
    a, b = -math.log(0.75), -math.log(0.5)
    for ignored, target in ((-100, [1, -100, 0]), (7, [1, 7, 0])):
        args = (target, None, ignored)
        assert_close(tinyvid.nll_loss(x, *args, "none"), np.array([a, 0, b]), rtol=1e-12)
        assert_close(tinyvid.nll_loss(x, *args, "sum"), np.array(a + b), rtol=1e-12)
        assert_close(tinyvid.nll_loss(x, *args), np.array((a + b) / 2), rtol=1e-12)
        weight = tensor(np.array([3.0, 1.0]), requires_grad=True)
        loss = tinyvid.nll_loss(x, target, weight, ignored)  # (1 · a + 3 · b) / (1 + 3)
        assert_close(loss, np.array((a + 3 * b) / 4), rtol=1e-12)
        gx, gw = tinyvid.grad(loss, [x, weight])
        assert_close(gx, np.array([[0, -0.25], [0, 0], [-0.75, 0]]))
        # of (w₁ a + w₀ b) / (w₁ + w₀): (b − loss) / 4 and (a − loss) / 4
        assert_close(gw, np.array([b - loss.item(), a - loss.item()]) / 4, rtol=1e-12)
    # A class of its own may be ignored too: what is left is the last sample.
    assert_close(tinyvid.nll_loss(x, [1, 1, 0], None, 1), np.array(b), rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_ignored_targets_are_as_if_they_were_not_there(reduction, smoothing, weighted, ignored):
    classes = np.array([ignored, 0, 1, ignored])
    weight = WEIGHT if weighted else None
    args = (classes, weight, ignored, reduction, smoothing)
    got = tinyvid.cross_entropy(tensor(LOGITS), *args)
    rest = (classes[1:3], weight, -100, reduction, smoothing)
    want = tinyvid.cross_entropy(tensor(LOGITS[1:3]), *rest).data
    if reduction == "none":
        want = np.array([0, *want, 0])
    assert_close(got, want, rtol=1e-12)
    gradcheck(lambda x: tinyvid.cross_entropy(x, *args), (leaf(LOGITS),))
    gradgradcheck(lambda x: tinyvid.cross_entropy(x, *args), (leaf(LOGITS),))
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS),
        torch.from_numpy(classes),
        torch.from_numpy(WEIGHT) if weighted else None,
        ignore_index=ignored,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    assert_close(got, theirs.numpy(), rtol=1e-12)


def test_where_all_targets_are_ignored():
    args = tensor(LOGITS), np.full(4, -100)
    assert_close(tinyvid.cross_entropy(*args, reduction="sum"), np.array(0.0))
    with pytest.warns(RuntimeWarning):  # NumPy's, of 0 / 0
        assert math.isnan(tinyvid.cross_entropy(*args).item())


def test_losses_over_positions():
    x, target = RNG.normal(size=(2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5))
    flat = np.moveaxis(x, 1, -1).reshape(-1, 3)
    want = -logp(flat)[np.arange(40), target.reshape(-1)]
    got = tinyvid.cross_entropy(tensor(x), target, reduction="none")
    assert_close(got, want.reshape(2, 4, 5), rtol=1e-12)
    weighted = (want * WEIGHT[target.reshape(-1)]).sum() / WEIGHT[target].sum()
    got = tinyvid.cross_entropy(tensor(x), target, tensor(WEIGHT))
    assert_close(got, np.array(weighted), rtol=1e-12)
    gradcheck(lambda x: tinyvid.cross_entropy(x, target, WEIGHT), (leaf(x),), mode="random")


def test_gradients_reach_soft_targets_and_weights():
    args = leaf(LOGITS), leaf(SOFT), leaf(WEIGHT)
    gradcheck(tinyvid.cross_entropy, args)
    gradcheck(lambda x, w: tinyvid.cross_entropy(x, CLASSES, w), (args[0], args[2]))


def test_confident_and_wrong_is_finite():
    x = tensor(np.array([[1e4, -1e4]], f32), requires_grad=True)
    loss = tinyvid.cross_entropy(x, [1])
    loss.backward()
    assert_close(loss, np.array(2e4, f32))
    assert_close(x.grad, np.array([[1, -1]], f32))


def test_what_is_refused():
    x, target = tensor(LOGITS), CLASSES
    nll, entropy, mse = tinyvid.nll_loss, tinyvid.cross_entropy, tinyvid.mse_loss
    refused = [
        (lambda: nll(x, [0, 1]), r"target of shape \(2,\) for input of shape \(4, 3\)"),
        (lambda: nll(x, [0, 1, 2, 3]), r"0 … 2, .*got 0 … 3"),
        (lambda: nll(x, [0, 1, 2, -1]), r"0 … 2, .*got -1 … 2"),
        (lambda: nll(x, [0.0, 1, 2, 0]), "integers, not float32"),
        (lambda: nll(tensor([1.0, 2.0]), [0]), r"\(N, K, ...\).*\(2,\)"),
        (lambda: entropy(tensor([1.0, 2.0]), [0]), r"\(N, K, ...\).*\(2,\)"),
        (lambda: entropy(x, target, [1.0, 2.0]), r"weight of shape \(2,\) for 3 classes"),
        (lambda: nll(x, target, [1.0] * 4), r"weight of shape \(4,\) for 3 classes"),
        (lambda: entropy(x, target, reduction="avg"), "reduction='avg'"),
        (lambda: entropy(x, target, label_smoothing=1.5), "label_smoothing=1.5"),
        (lambda: nll(x, [0, 1, -100, 3]), r"0 … 2, or be ignore_index=-100, got 0 … 3"),
        (lambda: entropy(x, SOFT, ignore_index=1), "ignore_index=1 needs classes"),
        (lambda: mse(x, tensor([1.0])), r"target of shape \(1,\) for input of shape \(4, 3\)"),
        (lambda: mse(x, x, "total"), "reduction='total'"),
    ]
    for call, message in refused:
        with pytest.raises(UserError, match=message):
            call()
