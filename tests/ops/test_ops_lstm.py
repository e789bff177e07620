"""The LSTM around its kernel: layers, directions, lengths, states; fused against composed."""

import math

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, tensor
from tinyvid.device import to_device

N, L, I, H = 3, 4, 2, 3  # noqa: E741
LENGTHS = [4, 1, 3]


def draw(*shape, seed=0, dtype=np.float64):
    array = np.random.default_rng(seed).normal(size=shape) * 0.7
    return tensor(array.astype(dtype), requires_grad=True)


def parameters(layers=1, directions=1, dtype=np.float64):
    weights = []
    for layer in range(layers):
        for _ in range(directions):
            width = directions * H if layer else I
            for shape in ((4 * H, width), (4 * H, H), (4 * H,), (4 * H,)):
                weights.append(draw(*shape, seed=len(weights) + 10, dtype=dtype))
    return weights


def states(layers=1, directions=1, dtype=np.float64):
    return tuple(draw(layers * directions, N, H, seed=s, dtype=dtype) for s in (1, 2))


def test_one_step_by_hand():
    # one unit, all weights 0, biases i, f, g, o = 0, 0, 1, 0 and c₀ = 2:
    # c = σ(0) · 2 + σ(0) · tanh 1 = 1 + tanh(1) / 2, h = σ(0) · tanh c
    zeros = tensor(np.zeros((4, 1)))
    bias = tensor(np.array([0.0, 0, 1, 0]))
    state = (tensor(np.zeros((1, 1, 1))), tensor(np.full((1, 1, 1), 2.0)))
    weights = [zeros, zeros, bias, tensor(np.zeros(4))]
    for function in (tinyvid.lstm, tinyvid.lstm_composed):
        y, (h, c) = function(tensor(np.ones((1, 1, 1))), weights, state)
        want = 1 + math.tanh(1) / 2
        assert_close(c, np.full((1, 1, 1), want), rtol=1e-14)
        assert_close(h, np.full((1, 1, 1), math.tanh(want) / 2), rtol=1e-14)
        assert_close(y, h.data, rtol=0)


def loop(x, weights, hx, lengths, bidirectional):
    """Each sequence, step and unit by itself, from the formulas."""
    sigmoid = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    directions = 2 if bidirectional else 1
    hs, cs = hx[0].copy(), hx[1].copy()
    for layer in range(len(weights) // 4 // directions):
        y = np.zeros((*x.shape[:2], directions * H))
        for d in range(directions):
            at = layer * directions + d
            w_ih, w_hh, b_ih, b_hh = weights[4 * at : 4 * at + 4]
            for n in range(x.shape[0]):
                h, c = hs[at, n].copy(), cs[at, n].copy()
                steps = range(lengths[n])
                for t in reversed(steps) if d else steps:
                    z = [w_ih[r] @ x[n, t] + b_ih[r] + w_hh[r] @ h + b_hh[r] for r in range(4 * H)]
                    for u in range(H):
                        i, f, g, o = z[u], z[H + u], z[2 * H + u], z[3 * H + u]
                        c[u] = sigmoid(f) * c[u] + sigmoid(i) * math.tanh(g)
                        h[u] = sigmoid(o) * math.tanh(c[u])
                    y[n, t, d * H : (d + 1) * H] = h
                hs[at, n], cs[at, n] = h, c
        x = y
    return x, hs, cs


CASES = [
    (layers, bidirectional, lengths, given)
    for layers, bidirectional in ((1, False), (1, True), (2, False), (2, True))
    for lengths in (None, LENGTHS)
    for given in (False, True)
]


@pytest.mark.parametrize(("layers", "bidirectional", "lengths", "given"), CASES, ids=str)
def test_against_a_loop_over_units(layers, bidirectional, lengths, given):
    directions = 2 if bidirectional else 1
    x, weights = draw(N, L, I), parameters(layers, directions)
    hx = states(layers, directions) if given else None
    zeros = np.zeros((layers * directions, N, H))
    want = loop(
        x.data,
        [w.data for w in weights],
        [s.data for s in hx] if given else (zeros, zeros),
        lengths or [L] * N,
        bidirectional,
    )
    for function in (tinyvid.lstm, tinyvid.lstm_composed):
        y, (h, c) = function(x, weights, hx, lengths, bidirectional)
        for got, expected in zip((y, h, c), want, strict=True):
            assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("layers", "bidirectional", "lengths", "given"), CASES, ids=str)
def test_gradients_equal_those_of_the_composed_lstm(layers, bidirectional, lengths, given):
    directions = 2 if bidirectional else 1
    x, weights = draw(N, L, I), parameters(layers, directions)
    hx = states(layers, directions) if given else None
    inputs = [x, *weights, *(hx or ())]
    found = []
    for function in (tinyvid.lstm, tinyvid.lstm_composed):
        y, (h, c) = function(x, weights, hx, lengths, bidirectional)
        gs = [draw(*t.shape, seed=90 + i).data for i, t in enumerate((y, h, c))]
        first = tinyvid.grad([y, h, c], inputs, gs, retain_graph=True)
        recorded = tinyvid.grad([y, h, c], inputs, gs, create_graph=True)
        total = sum(((g * g).sum() for g in recorded[1:]), recorded[0].exp().sum())
        found.append([*first, *recorded, *tinyvid.grad(total, inputs)])
    for fused, composed in zip(*found, strict=True):
        assert_close(fused, composed.data, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=str)
def test_first_and_second_derivatives(lengths):
    args = [draw(N, L, I), *states(1, 2), *parameters(1, 2)]

    def run(x, h, c, *weights):
        y, (h, c) = tinyvid.lstm(x, weights, (h, c), lengths, bidirectional=True)
        return y, h, c

    gradcheck(run, args, mode="random")
    gradgradcheck(run, args, mode="random")


def test_an_initial_state_computed_from_the_input():
    # The second derivative must not count twice what x owes to h₀, or two uses of a weight.
    x, weights = draw(N, L, H), [draw(4 * H, H, seed=3)] * 2 + [draw(4 * H, seed=4)] * 2

    def run(function, x, w, b):
        state = (x.mean(1)[None], x[:, 0][None])
        return function(x, [w, w, b, b], state)[0]

    args = (x, weights[0], weights[2])
    for function in (tinyvid.lstm, tinyvid.lstm_composed):
        gradcheck(lambda *a, f=function: run(f, *a), args, mode="random")
        gradgradcheck(lambda *a, f=function: run(f, *a), args, mode="random")


def test_batch_second():
    x, weights = draw(N, L, I), parameters(2)
    want, (h, c) = tinyvid.lstm(x, weights, lengths=LENGTHS)
    y, (h2, c2) = tinyvid.lstm(x.transpose(0, 1), weights, lengths=LENGTHS, batch_first=False)
    assert_close(y, want.data.swapaxes(0, 1))
    assert_close(h2, h.data)
    assert_close(c2, c.data)


@pytest.mark.parametrize("lengths", [LENGTHS, tuple(LENGTHS), np.array(LENGTHS), tensor(LENGTHS)])
def test_outputs_past_the_end_are_zero_and_their_inputs_have_no_gradient(lengths):
    x = draw(N, L, I)
    y, _ = tinyvid.lstm(x, parameters(1, 2), lengths=lengths, bidirectional=True)
    y.backward(np.ones(y.shape))
    for n, end in enumerate(LENGTHS):
        assert_close(y.data[n, end:], np.zeros((L - end, 2 * H)))
        assert_close(x.grad.data[n, end:], np.zeros((L - end, I)))
        assert (x.grad.data[n, :end] != 0).all()


def test_dropout_between_layers_in_training_only():
    x, weights = draw(N, L, I), parameters(2)
    plain = tinyvid.lstm(x, weights)[0].data
    run = lambda **options: tinyvid.lstm(x, weights, dropout=0.5, **options)[0].data  # noqa: E731
    assert_close(run(), plain)
    tinyvid.manual_seed(3)
    dropped = run(training=True)
    assert (dropped != plain).any()
    tinyvid.manual_seed(3)
    assert_close(run(training=True), dropped)
    # by hand: the first layer as it is, its outputs dropped, the second layer
    first = tinyvid.lstm(x, weights[:4])[0]
    tinyvid.manual_seed(3)
    want = tinyvid.lstm(tinyvid.dropout(first, 0.5), weights[4:])[0]
    assert_close(dropped, want.data)
    one = tinyvid.lstm(x, weights[:4], dropout=0.5, training=True)[0]
    assert_close(one, first.data)  # nothing lies between the layers of one


@pytest.mark.parametrize("bidirectional", [False, True])
def test_against_torch(bidirectional):
    torch = pytest.importorskip("torch")
    directions = 2 if bidirectional else 1
    theirs = torch.nn.LSTM(I, H, 2, batch_first=True, bidirectional=bidirectional).double()
    weights = [tensor(p.detach().numpy()) for p in theirs.parameters()]
    x, hx = draw(N, L, I), states(2, directions)
    arrays = [torch.from_numpy(t.data.copy()) for t in (x, *hx)]
    want, (h, c) = theirs(arrays[0], tuple(arrays[1:]))
    got = tinyvid.lstm(x, weights, hx, bidirectional=bidirectional)
    for ours, other in zip((got[0], *got[1]), (want, h, c), strict=True):
        assert_close(ours, other.detach().numpy(), rtol=1e-11, atol=1e-13)


def test_lengths_may_be_on_any_device():
    x, weights = draw(N, L, I), parameters()
    want, _ = tinyvid.lstm(x, weights, lengths=LENGTHS)
    lengths = np.array(LENGTHS)
    for given in (lengths, tensor(lengths), tensor(lengths).to("emulator"), lengths.astype("u1")):
        assert_close(tinyvid.lstm(x, weights, lengths=given)[0], want.data)
    assert_close(tinyvid.lstm(x, weights, lengths=to_device(lengths, "emulator"))[0], want.data)


def test_a_layer_without_biases_stays_on_its_device():
    layer = tinyvid.nn.LSTM(I, H, bias=False, batch_first=True)
    x = draw(N, L, I, dtype=np.float32)
    want, _ = layer(x)
    with tinyvid.kernels.use(lstm="reference"):
        got, _ = layer.to("emulator")(x.to("emulator"))
    assert got.device == "emulator"
    assert_close(got.numpy(), want.data, atol=1e-6)


def test_what_is_refused():
    x, weights = draw(N, L, I), parameters()
    refused = [
        (lambda: tinyvid.lstm(x, weights[:3]), "3 weights"),
        (lambda: tinyvid.lstm(x, []), "0 weights"),
        (lambda: tinyvid.lstm(x, weights, bidirectional=True), "each of 2 direction"),
        (lambda: tinyvid.lstm(x[0], weights), r"\(N, L, I\).*\(4, 2\)"),
        (lambda: tinyvid.lstm(x[:, :0], weights), r"not empty, not of shape \(3, 0, 2\)"),
        (lambda: tinyvid.lstm(x, weights, states(2)), r"h of shape \(2, 3, 3\), expected \(1, 3"),
        (lambda: tinyvid.lstm(x, weights, lengths=[4, 4]), "3 integers from 1 to 4"),
        (lambda: tinyvid.lstm(x, weights, lengths=[4, 0, 1]), r"lengths=\[4, 0, 1\]"),
        (lambda: tinyvid.lstm(x, weights, lengths=[4, 5, 1]), "from 1 to 4"),
        (lambda: tinyvid.lstm(x, weights, lengths=[1.0, 2.0, 3.0]), "integers"),
        (lambda: tinyvid.lstm(draw(N, L, I + 1), weights), r"w_ih|weight|\(12, 2\)"),
        (lambda: tinyvid.lstm(draw(N, L, I, dtype=np.float32), weights), "float32|float64"),
    ]
    for call, message in refused:
        with pytest.raises(UserError, match=message):
            call()
