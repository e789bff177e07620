"""The LSTM kernel: the reference against numbers worked by hand, a scalar recurrence and
central differences, then the variants against the reference."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from compare import assert_close

from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.kernels.lstm import reference
from tinyvid.kernels.lstm.cases import CASES, Case
from tinyvid.kernels.lstm.recurrence import tanh
from tinyvid.kernels.threads import get_num_threads, set_num_threads

SMALL = [case for case in CASES if not case.large]
TINY = [case for case in SMALL if case.hidden < 10]
CHECKED = [*SMALL, *(case for case in CASES if case.name.startswith("small features"))]
every_variant = pytest.mark.parametrize("variant", ["reference", "cpu/fused_step"])


class Inputs(NamedTuple):
    """The arguments of fprop."""

    x: np.ndarray
    w_ih: np.ndarray
    w_hh: np.ndarray
    b: np.ndarray
    h0: np.ndarray
    c0: np.ndarray
    lengths: np.ndarray | None
    reverse: bool


FLOATS = Inputs._fields[:6]  # and, in the same order, the gradients that bprop returns


def named(cases: list[Case]):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def inputs_of(case: Case, dtype=np.float64) -> Inputs:
    rng = np.random.default_rng(0)
    n, length, inputs, hidden = case.batch, case.steps, case.inputs, case.hidden
    shapes = [(n, length, inputs), (4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,)]
    arrays = [rng.standard_normal(shape) for shape in [*shapes, (n, hidden), (n, hidden)]]
    arrays[1] /= math.sqrt(inputs)
    arrays[2] /= math.sqrt(hidden)
    lengths = None if case.lengths is None else np.array(case.lengths, np.int64)
    return Inputs(*(a.astype(dtype) for a in arrays), lengths, case.reverse)


def cotangents(case: Case, dtype=np.float64) -> tuple[np.ndarray, np.ndarray]:
    gh, gc = np.random.default_rng(1).standard_normal((2, case.batch, case.steps, case.hidden))
    return gh.astype(dtype), gc.astype(dtype)


def bprop(function, gh, gc, given: Inputs, outputs) -> tuple[np.ndarray, ...]:
    """Call a bprop, which takes all arguments of fprop but b."""
    x, w_ih, w_hh, _, h0, c0, lengths, reverse = given
    return function(gh, gc, x, w_ih, w_hh, h0, c0, lengths, reverse, *outputs)


def ended(case: Case) -> np.ndarray:
    """Which steps (N, L) lie past the end of their sequence."""
    lengths = np.array(case.lengths or [case.steps] * case.batch)
    return np.arange(case.steps) >= lengths[:, None]


# ---------------------------------------------------------------- numbers worked by hand


@every_variant
def test_one_unit_by_hand(variant):
    # Gates' inputs are 0, ln 3, 0 x + 1 h, 0: chosen with b and the weights so that
    #   i = sigmoid(0) = 1/2, f = sigmoid(ln 3) = 3/4, o = sigmoid(0) = 1/2, g = tanh(a_g)
    # a_g = atanh(1/2) * x, so g = 1/2 where x = 1 and 0 where x = 0.
    #   step 0, x = 1, c = 1:   c = 3/4 * 1 + 1/2 * 1/2 = 1,     h = tanh(1) / 2
    #   step 1, x = 0:          c = 3/4 * 1 + 1/2 * 0   = 3/4,   h = tanh(3/4) / 2
    #   step 2, x = 1:          c = 9/16 + 1/4 = 13/16,          h = tanh(13/16) / 2
    x = np.array([1.0, 0, 1]).reshape(1, 3, 1)
    w_ih = np.array([0, 0, math.atanh(0.5), 0]).reshape(4, 1)
    w_hh = np.zeros((4, 1))
    b = np.array([0, math.log(3), 0, 0])
    h0, c0 = np.full((1, 1), 5.0), np.ones((1, 1))
    with kernels.use(lstm=variant):
        h, c, gates = kernels.lstm_fprop(x, w_ih, w_hh, b, h0, c0, None, False)
        want = np.array([1, 3 / 4, 13 / 16])
        assert_close(c.ravel(), want, rtol=1e-15)
        assert_close(h.ravel(), np.tanh(want) / 2, rtol=1e-15)
        rows = [[0.5, 0.75, 0.5, 0.5], [0.5, 0.75, 0, 0.5], [0.5, 0.75, 0.5, 0.5]]
        assert_close(gates[0], np.array(rows), rtol=1e-15, atol=1e-16)

        # The gradient of c at the last step alone: it reaches c0 through three forget gates,
        #   gc0 = 3/4 * 3/4 * 3/4 = 27/64,
        # g of step 2 by i = 1/2, g of step 1 by 1/2 * 3/4, g of step 0 by 1/2 * 9/16, and x by
        # (1 - g^2) * atanh(1/2) more, where g^2 is 1/4, 0, 1/4.
        gc = np.array([0.0, 0, 1]).reshape(1, 3, 1)
        given = Inputs(x, w_ih, w_hh, b, h0, c0, None, False)
        gx, *_, gh0, gc0 = bprop(kernels.lstm_bprop, 0 * gc, gc, given, (h, c, gates))
        assert_close(gc0, np.full((1, 1), 27 / 64), rtol=1e-15)
        by_step = np.array([9 / 32 * 3 / 4, 3 / 8, 1 / 2 * 3 / 4]) * math.atanh(0.5)
        assert_close(gx.ravel(), by_step, rtol=1e-15)
        assert_close(gh0, np.zeros((1, 1)))  # w_hh is 0


@every_variant
def test_saturated_gates_do_not_overflow(variant):
    # a = +-1000 for all gates: sigmoid and tanh are 0, 1 or -1 to the last bit
    for dtype in (np.float32, np.float64):
        one = np.ones((1, 1), dtype)
        b = np.array([1000, -1000, 1000, 1000], dtype)
        with kernels.use(lstm=variant):
            h, c, gates = kernels.lstm_fprop(
                one[None],
                0 * np.ones((4, 1), dtype),
                np.zeros((4, 1), dtype),
                b,
                one,
                one,
                None,
                False,
            )
        assert_close(gates.ravel(), np.array([1, 0, 1, 1], dtype))
        assert_close(c, one[None])
        assert_close(h, np.tanh(one)[None], rtol=1e-6)


# ---------------------------------------------------------------- a recurrence of scalars


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def scalar_lstm(given: Inputs, length_of) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The LSTM one number at a time; a reversed sequence is flipped before and after."""
    n, steps, width = given.x.shape
    hidden = given.w_hh.shape[1]
    h, c, gates = (np.zeros((n, steps, k * hidden)) for k in (1, 1, 4))
    for s in range(n):
        order = list(range(length_of(s)))
        if given.reverse:
            order.reverse()
        h_old, c_old = given.h0[s].tolist(), given.c0[s].tolist()
        for t in order:
            a = []
            for row in range(4 * hidden):
                total = float(given.b[row])
                for k in range(width):
                    total += given.w_ih[row, k] * given.x[s, t, k]
                for k in range(hidden):
                    total += given.w_hh[row, k] * h_old[k]
                a.append(total)
            h_new, c_new = [], []
            for j in range(hidden):
                i, f = sigmoid(a[j]), sigmoid(a[hidden + j])
                g, o = math.tanh(a[2 * hidden + j]), sigmoid(a[3 * hidden + j])
                c_new.append(f * c_old[j] + i * g)
                h_new.append(o * math.tanh(c_new[j]))
                for k, value in enumerate((i, f, g, o)):
                    gates[s, t, k * hidden + j] = value
            h_old, c_old = h_new, c_new
            h[s, t], c[s, t] = h_new, c_new
    return h, c, gates


@named(TINY)
def test_reference_against_scalars(case):
    given = inputs_of(case)
    length_of = (case.lengths or [case.steps] * case.batch).__getitem__
    for got, want in zip(reference.fprop(*given), scalar_lstm(given, length_of), strict=True):
        assert_close(got, want, rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------- central differences


def central_differences(given: Inputs, gh, gc, step=1e-5) -> list[np.ndarray]:
    """The gradient of <gh, h> + <gc, c> with respect to each element of each float input."""

    def value(changed: Inputs) -> float:
        h, c, _ = reference.fprop(*changed)
        return float(np.vdot(gh, h) + np.vdot(gc, c))

    gradients = []
    for name in FLOATS:
        array = getattr(given, name)
        gradient = np.zeros_like(array)
        for at in np.ndindex(*array.shape):
            ends = []
            for sign in (1, -1):
                moved = array.copy()
                moved[at] += sign * step
                ends.append(value(given._replace(**{name: moved})))
            gradient[at] = (ends[0] - ends[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_tanh(dtype):
    x = np.concatenate([np.linspace(-25, 25, 10_001), np.logspace(-30, 1, 1_000)]).astype(dtype)
    y = x.copy()
    tanh(y)
    wanted = np.tanh(x.astype(np.longdouble))
    error = np.abs(y - wanted) / np.where(wanted == 0, 1, np.abs(wanted))
    assert error.max() < 6 * np.finfo(dtype).eps
    assert np.abs(y).max() == 1
    special = np.array([np.nan, np.inf, -np.inf, 0, -0.0], dtype)
    y = special.copy()
    tanh(y)
    assert np.array_equal(y, np.tanh(special), equal_nan=True)


def assert_gradients(got, want) -> None:
    for name, a, b in zip(FLOATS, got, want, strict=True):
        try:
            assert_close(a, b, rtol=1e-7, atol=1e-8)
        except AssertionError as error:
            raise AssertionError(f"g{name}: {error}") from error


@named(TINY)
def test_reference_gradients_against_differences(case):
    given, (gh, gc) = inputs_of(case), cotangents(case)
    got = bprop(reference.bprop, gh, gc, given, reference.fprop(*given))
    assert_gradients(got, central_differences(given, gh, gc))


@pytest.mark.parametrize("gate", range(4))
def test_differences_catch_a_wrong_sign_in_one_gate(gate):
    case = next(c for c in CASES if c.name == "reversed")
    given, (gh, gc) = inputs_of(case), cotangents(case)
    got = list(bprop(reference.bprop, gh, gc, given, reference.fprop(*given)))
    rows = slice(gate * case.hidden, (gate + 1) * case.hidden)
    got[3] = got[3].copy()
    got[3][rows] *= -1
    with pytest.raises(AssertionError, match="gb: "):
        assert_gradients(got, central_differences(given, gh, gc))


# ---------------------------------------------------------------- variants


def layouts(array: np.ndarray) -> list[np.ndarray]:
    """The same values in C order, with the first two axes swapped in memory, and with holes."""
    swapped = array if array.ndim < 2 else array.swapaxes(0, 1).copy().swapaxes(0, 1)
    holes = np.full((*array.shape[:-1], 2 * array.shape[-1]), 77, array.dtype)[..., ::-2]
    holes[...] = array
    return [array, swapped, holes]


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@named(CHECKED)
def test_variant_against_the_reference(case, dtype):
    given, (gh, gc) = inputs_of(case, dtype), cotangents(case, dtype)
    outputs = reference.fprop(*given)
    gradients = bprop(reference.bprop, gh, gc, given, outputs)
    close = {"rtol": 2e-5, "atol": 5e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    for k in range(3):
        floats = [frozen(layouts(a)[k]) for a in given[:6]]
        saved = [frozen(layouts(a)[k]) for a in outputs]
        laid = Inputs(*floats, given.lengths, given.reverse)
        gs = [frozen(layouts(a)[k]) for a in (gh, gc)]
        with kernels.use(lstm="cpu/fused_step"):
            for got, want in zip(kernels.lstm_fprop(*laid), outputs, strict=True):
                assert_close(got, want, **close)
            for got, want in zip(
                bprop(kernels.lstm_bprop, *gs, laid, saved), gradients, strict=True
            ):
                assert_close(got, want, **close)


@every_variant
@named([case for case in SMALL if case.lengths])
def test_ended_sequences_are_left_alone(variant, case):
    """Steps past the end give 0, and nothing that stands there matters, not even infinity."""
    given, (gh, gc) = inputs_of(case), cotangents(case)
    out = ended(case)
    assert out.any()
    with kernels.use(lstm=variant):
        outputs = kernels.lstm_fprop(*given)
        gradients = bprop(kernels.lstm_bprop, gh, gc, given, outputs)
        for array in (*outputs, gradients[0]):
            assert not array[out].any()
        for array in (given.x, gh, gc):
            array[out] = math.inf
        with np.errstate(invalid="ignore"):  # inf * 0 in products that are not used
            again = kernels.lstm_fprop(*given)
        for got, want in zip(again, outputs, strict=True):
            assert_close(got, want)
        for got, want in zip(
            bprop(kernels.lstm_bprop, gh, gc, given, again), gradients, strict=True
        ):
            assert_close(got, want)


@pytest.fixture
def threads():
    """Restore the number of threads after a test that sets it."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


def test_results_do_not_depend_on_threads(threads):
    # more units than a chunk of them, and products of several tiles
    case = Case("", batch=5, steps=110, inputs=30, hidden=150, lengths=(110, 3, 50, 7, 109))
    given, (gh, gc) = inputs_of(case, np.float32), cotangents(case, np.float32)
    results = []
    for count in (1, 2, 3):
        threads(count)
        outputs = kernels.lstm_fprop(*given)
        results.append([*outputs, *bprop(kernels.lstm_bprop, gh, gc, given, outputs)])
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


# ---------------------------------------------------------------- PyTorch, where it is installed


@named(SMALL)
def test_against_torch(case):
    torch = pytest.importorskip("torch")
    given, (gh, gc) = inputs_of(case), cotangents(case)
    last = np.array(case.lengths or [case.steps] * case.batch) - 1
    if case.reverse:
        last *= 0
    # PyTorch gives c at the end of a sequence only, so only there may its gradient be anything.
    rows = np.arange(case.batch)
    end = gc[rows, last]
    gc = np.zeros_like(gc)
    gc[rows, last] = end
    if case.lengths is not None:
        gh[ended(case)] = 0

    module = torch.nn.LSTM(
        case.inputs, case.hidden, batch_first=True, bidirectional=case.reverse
    ).double()
    suffix = "_l0_reverse" if case.reverse else "_l0"
    values = {"weight_ih": given.w_ih, "weight_hh": given.w_hh, "bias_ih": given.b}
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name + suffix).copy_(torch.from_numpy(value))
        getattr(module, "bias_hh" + suffix).zero_()
    leaves = [torch.from_numpy(a).requires_grad_() for a in (given.x, given.h0, given.c0)]
    x, h0, c0 = leaves
    directions = 1 + case.reverse
    packed = x
    if case.lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(case.lengths), batch_first=True, enforce_sorted=False
        )
    hx = tuple(torch.stack([s] * directions) for s in (h0, c0))
    output, (_, c_n) = module(packed, hx)
    if case.lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(
            output, batch_first=True, total_length=case.steps
        )
    output = output[..., -case.hidden :]  # of the reversed direction, where there is one
    h, c, gates = kernels.lstm_fprop(*given)
    assert_close(h, output.detach().numpy(), rtol=1e-12, atol=1e-13)
    assert_close(c[rows, last], c_n[-1].detach().numpy(), rtol=1e-12, atol=1e-13)

    loss = (output * torch.from_numpy(gh)).sum() + (c_n[-1] * torch.from_numpy(end)).sum()
    names = ["weight_ih", "weight_hh", "bias_ih"]
    wanted = torch.autograd.grad(
        loss, [x, *(getattr(module, name + suffix) for name in names), h0, c0]
    )
    got = bprop(kernels.lstm_bprop, gh, gc, given, (h, c, gates))
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b.numpy(), rtol=1e-11, atol=1e-12)


# ---------------------------------------------------------------- errors

GOOD = inputs_of(Case("", batch=2, steps=3, inputs=4, hidden=5))
INTS = np.array([3, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": GOOD.x[0]}, r"x has shape \(3, 4\); it must be \(N L I\)"),
        ({"x": GOOD.x[:, :0]}, "there must be at least one step"),
        ({"x": GOOD.x.astype(np.int64)}, "x is int64"),
        ({"x": [1.0]}, "x must be an array, not a list"),
        ({"h0": GOOD.h0[0]}, r"h0 has shape \(5,\); it must be \(N H\)"),
        ({"w_ih": GOOD.w_ih[:5]}, r"w_ih has shape \(5, 4\), not \(20, 4\)"),
        ({"w_hh": GOOD.w_hh.T}, r"w_hh has shape \(5, 20\), not \(20, 5\)"),
        ({"b": GOOD.b[:, None]}, r"b has shape \(20, 1\), not \(20,\)"),
        ({"c0": GOOD.c0[:1]}, r"c0 has shape \(1, 5\), not \(2, 5\)"),
        ({"b": GOOD.b.astype(np.float32)}, "b is float32 and x is float64; all arrays must be"),
        ({"lengths": np.array([3.0, 2.0])}, "lengths must be None or an int64 array .* float64"),
        ({"lengths": INTS[:1]}, r"one length for each of the 2 sequences, not int64 of shape \(1,"),
        ({"lengths": [3, 2]}, r"lengths must be .* not \[3, 2\]"),
        ({"lengths": np.array([3, 0])}, r"lengths=\[3, 0\] must lie between 1 and 3"),
        ({"lengths": np.array([4, 1])}, r"lengths=\[4, 1\] must lie between 1 and 3"),
        ({"reverse": 1}, "reverse=1 must be True or False"),
    ],
)
def test_fprop_errors(change, message):
    with pytest.raises(UserError, match=f"^lstm_fprop: .*{message}"):
        kernels.lstm_fprop(*GOOD._replace(**change))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0, r"gh has shape \(2, 3, 4\), not \(2, 3, 5\)"),
        (1, r"gc has shape \(2, 3, 4\), not \(2, 3, 5\)"),
        (9, r"h has shape \(2, 3, 4\)"),
        (10, r"c has shape \(2, 3, 4\)"),
        (11, r"gates has shape \(2, 3, 19\), not \(2, 3, 20\)"),
    ],
)
def test_bprop_errors(at, message):
    x, w_ih, w_hh, _, h0, c0, lengths, reverse = GOOD
    h, c, gates = kernels.lstm_fprop(*GOOD)
    args = [h, c, x, w_ih, w_hh, h0, c0, lengths, reverse, h, c, gates]
    kernels.lstm_bprop(*args)
    args[at] = args[at][..., :-1]
    with pytest.raises(UserError, match=f"^lstm_bprop: {message}"):
        kernels.lstm_bprop(*args)
