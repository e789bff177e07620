"""The checker: what is right passes, what is wrong fails with the right words, kinks are named."""

import warnings

import numpy as np
import pytest
from compare import assert_close
from mutations import FAULTS

import tinyvid
from tinyvid import gradcheck, gradgradcheck
from tinyvid.errors import UserError
from tinyvid.gradcheck import GradcheckError, KinkWarning
from tinyvid.tensor import Tensor, record


def leaf(values, dtype=np.float64):
    return Tensor(np.asarray(values, dtype), requires_grad=True)


def normal(*shape, seed=0, dtype=np.float64):
    return leaf(np.random.default_rng(seed).standard_normal(shape), dtype)


# Faults


@pytest.mark.parametrize("mode", ["full", "random"])
@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name, mode):
    fn, arrays, kinds = FAULTS[name]
    inputs = [leaf(a) for a in arrays]
    if mode == "full" and sum(a.size for a in arrays) > 200:
        pytest.skip("too large for a full Jacobian")
    if (name, mode) == ("float32_inside", "random"):
        pytest.skip("roundings average out along a random direction")
    result = gradcheck(fn, inputs, mode=mode, raise_exception=False, kinks="ignore")
    assert not result
    found = {failure.kind for failure in result.failures}
    if kinds == {"linearity"} and mode == "random":
        kinds = {"gradient"}  # a random cotangent is no sum of single ones
    assert found & kinds, result
    with pytest.raises(GradcheckError, match=f"gradients of {name} failed"):
        gradcheck(fn, inputs, mode=mode, kinks="ignore")


def test_the_message_of_a_full_check_tells_where_and_what():
    fn, arrays, _ = FAULTS["one_border_element"]
    result = gradcheck(fn, leaf(arrays[0]), raise_exception=False)
    (failure,) = [f for f in result.failures if f.kind == "gradient"]
    x = arrays[0][4, 0]
    assert (failure.input, failure.element) == (0, (4, 0))
    assert (failure.output, failure.output_element) == (0, (4, 0))
    assert failure.numerical == pytest.approx(np.cos(x), rel=1e-10)
    assert failure.analytical == pytest.approx(np.cos(x) * (1 + 1e-6), rel=1e-12)
    assert failure.error == pytest.approx(1e-6, rel=1e-3)
    assert result.wrong == 1
    assert "derivative of output 0 at [4, 0] by input 0 at [4, 0]: analytical" in str(result)
    assert "numerical" in str(result)
    assert "relative error 1e-06" in str(result)
    assert "float64" in str(result)


def test_the_verdict_counts_what_agrees_or_what_differs():
    x = tinyvid.randn(2, dtype=np.float64, requires_grad=True)
    assert str(gradcheck(lambda x: x * x, [x])).startswith("passed: 4 comparisons agree, largest")
    wrong = gradcheck(
        lambda x: record(x.data * 2, (x, lambda g, y: g * 3)), [x], raise_exception=False
    )
    assert str(wrong).startswith("failed: 2 of 4 comparisons differ, largest")


def test_a_random_check_finds_the_element_by_halving():
    fn, arrays, _ = FAULTS["one_element_of_many"]
    other = normal(2, 3)

    def two(a, ignored, b):
        return [tinyvid.exp(a), fn(b)]

    result = gradcheck(two, [other, 7, leaf(arrays[0])], mode="random", raise_exception=False)
    failure = result.failures[0]
    assert (failure.input, failure.element) == (2, (17, 3))
    assert (failure.output, failure.output_element) == (1, (17, 3))
    assert failure.error == pytest.approx(1e-3, rel=1e-2)


def test_an_input_with_small_derivatives_is_checked_too():
    def fn(a, b):
        wrong = record(b.data * 1e-6, (b, lambda g, y: g * 1.1e-6))
        return tinyvid.exp(a), wrong

    result = gradcheck(fn, [normal(30), normal(30, seed=1)], mode="random", raise_exception=False)
    assert [f.input for f in result.failures] == [1]


def test_an_output_with_small_derivatives_is_checked_too():
    def fn(x):
        wrong = record(x.data * 1e-4, (x, lambda g, y: g * 1.1e-4))
        return x * 1e6, wrong

    result = gradcheck(fn, normal(30), mode="random", raise_exception=False)
    assert [f.output for f in result.failures] == [1]


def test_an_output_without_gradient_that_matters_fails():
    def fn(x):
        return [x * 2, tinyvid.sin(x).detach()]

    result = gradcheck(fn, normal(3), raise_exception=False)
    assert {f.output for f in result.failures} == {1}
    result = gradcheck(FAULTS["detached"][0], normal(3), raise_exception=False)
    assert "none (the graph does not lead there)" in str(result)


# No false alarms


SMOOTH = {
    "polynomial": lambda x, y: x * x * x * 3 - x * y + 1.5,
    "quotient": lambda x, y: x / (y * y + 1),
    "softmax": lambda x, y: tinyvid.softmax(x, 1) * y,
    "product": lambda x, y: tinyvid.tanh(x @ y.T) @ tinyvid.sigmoid(y),
    "deep": lambda x, y: tinyvid.sin(tinyvid.exp(tinyvid.sin(x * 2) + y)),
    "two outputs": lambda x, y: (tinyvid.logsumexp(x, 0), [tinyvid.var(y, 1), x.sum()]),
    "unused": lambda x, y: tinyvid.cos(x),
    "constant": lambda x, y: x * 0.0 + 3,
    "itself": lambda x, y: (x, y),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("mode", ["full", "random"])
def test_no_false_alarms(name, mode):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        scale = 10.0 ** rng.integers(-3, 1)
        inputs = [leaf(rng.standard_normal((3, 4)) * scale) for _ in range(2)]
        assert gradcheck(SMOOTH[name], inputs, mode=mode, seed=seed)
        assert gradgradcheck(SMOOTH[name], inputs, mode=mode, seed=seed)


@pytest.mark.parametrize("name", SMOOTH)
def test_no_false_alarms_in_float32(name):
    for seed in range(5):
        inputs = [normal(3, 4, seed=seed, dtype=np.float32), normal(3, 4, dtype=np.float32)]
        result = gradcheck(SMOOTH[name], inputs)
        assert (result.dtype, result.step_dtype) == ("float32", "float64")


def test_random_relu_networks_raise_no_alarm():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(30):
            x, w = normal(8, 12, seed=seed), normal(12, 9, seed=seed + 99)
            assert gradcheck(lambda x, w: tinyvid.relu(x @ w), [x, w], mode="random", seed=seed)


def test_float32_inside_is_tolerated_where_float32_goes_in():
    fn = FAULTS["float32_inside"][0]
    narrow = record(np.ones(1))
    assert not gradcheck(fn, normal(3, 4), raise_exception=False)
    assert gradcheck(lambda x: fn(x * narrow), normal(3, 4), rtol=1e-6)


def test_a_function_that_takes_float32_only_is_checked_in_float32():
    def fn(x):
        if x.dtype != np.float32:
            raise UserError("float32 only")
        return tinyvid.tanh(x)

    result = gradcheck(fn, normal(3, 4, dtype=np.float32))
    assert result.step_dtype == "float32"

    def wrong(x):
        return record(fn(x).data, (x, lambda g, y: g * (1 - y * y) * 1.02))

    assert not gradcheck(wrong, normal(3, 4, dtype=np.float32), raise_exception=False)


def test_a_missing_factor_in_float32_is_caught():
    fn, arrays, _ = FAULTS["missing_factor"]
    assert not gradcheck(fn, leaf(arrays[0], np.float32), raise_exception=False)


# Kinks


def test_relu_at_zero_is_a_kink_and_its_neighbours_are_checked():
    x = leaf([0.0, 1.0, -1.0, 1e-4, -3e-6])
    with pytest.warns(
        KinkWarning, match=r"output 0 at \[0\] has no derivative by input 0 at \[0\]"
    ):
        result = gradcheck(tinyvid.relu, x)
    (kink,) = result.kinks
    assert (kink.input, kink.element, kink.output, kink.output_element) == (0, (0,), 0, (0,))
    assert (kink.left, kink.right) == pytest.approx((0, 1))
    assert result.passed
    assert result.checked == 24  # of 25
    with pytest.raises(GradcheckError, match="0 from the left, 1 from the right"):
        gradcheck(tinyvid.relu, x, kinks="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(gradcheck(tinyvid.relu, x, kinks="ignore").kinks) == 1


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 7.0])
def test_no_gradient_at_a_kink_passes_unnoticed(slope):
    def fn(x):  # at 0 the central difference says 0.5, which proves nothing
        return record(
            np.maximum(x.data, 0), (x, lambda g, y: g * np.where(x.data == 0, slope, x.data > 0))
        )

    result = gradcheck(fn, leaf([0.0, 2.0]), kinks="ignore")
    assert [k.element for k in result.kinks] == [(0,)]


@pytest.mark.parametrize(
    ("fn", "values"),
    [
        (tinyvid.abs, 0.0),
        (lambda x: tinyvid.clamp(x, -1, 1), 1.0),
        (lambda x: tinyvid.maximum(x, 2.0), 2.0),
        (lambda x: tinyvid.relu(x) + x * x * 50, 0.0),  # curvature beside the kink
        (lambda x: record(np.sign(x.data), (x, lambda g, y: g * 0.0)), 0.0),  # a jump
        (lambda x: record(np.cbrt(x.data), (x, lambda g, y: g)), 0.0),  # infinitely steep
    ],
)
def test_kinks_jumps_and_poles_are_named(fn, values):
    result = gradcheck(fn, leaf([values, 0.7]), mode="full", kinks="ignore", raise_exception=False)
    assert (0, (0,)) in {(k.input, k.element) for k in result.kinks}
    assert not any(f.element == (0,) for f in result.failures if f.kind == "gradient")


def test_kinks_in_a_random_direction_are_left_out_and_named():
    x = np.random.default_rng(3).standard_normal((20, 30))
    x[4, 5] = 0
    with pytest.warns(KinkWarning, match="along a random direction"):
        result = gradcheck(tinyvid.relu, leaf(x), mode="random")
    assert [k.output_element for k in result.kinks] == [(4, 5)]
    assert result.checked == 2


def test_nothing_but_kinks_is_no_pass():
    result = gradcheck(tinyvid.relu, leaf([0.0]), raise_exception=False, kinks="ignore")
    assert not result
    assert "nothing was checked" in str(result)


@pytest.mark.parametrize("mode", ["full", "random"])
def test_no_elements_are_no_pass(mode):
    with pytest.raises(GradcheckError, match="there are no elements"):
        gradcheck(tinyvid.exp, leaf(np.ones((0, 3))), mode=mode)


def test_the_end_of_a_domain_is_left_by_smaller_steps():
    result = gradcheck(lambda x: tinyvid.log(x) + tinyvid.sqrt(x), leaf([1e-6, 1e-3, 1.0]))
    assert not result.kinks


# Jacobians, arguments, errors


def test_jacobians_are_returned_with_the_shapes_of_output_and_input():
    a, b = normal(2, 3), normal(3, 4, seed=1)
    result = gradcheck(lambda a, b: (a @ b, tinyvid.exp(a)), [a, b], return_jacobians=True)
    want = np.einsum("pm,kn->pnmk", np.eye(2), b.numpy())
    assert_close(result.analytical[0][0], want.transpose(0, 1, 2, 3), rtol=1e-12, atol=1e-14)
    assert_close(result.numerical[0][0], want, rtol=1e-9, atol=1e-10)
    assert result.analytical[0][1].shape == (2, 3, 2, 3)
    assert_close(result.numerical[1][1], np.zeros((2, 3, 3, 4)))
    assert gradcheck(tinyvid.exp, normal(3)).analytical is None


def test_inputs_are_left_as_they_were():
    x = normal(3, 4)
    array, version = x.data, x.data.copy()
    gradcheck(tinyvid.tanh, x)
    assert x.data is array
    assert_close(x.data, version)
    assert x.grad is None
    with pytest.raises(RuntimeError, match="stop"):
        gradcheck(_stop_at_the_third_call(), x)
    assert x.data is array


def _stop_at_the_third_call():
    calls = []

    def fn(x):
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("stop")
        return x * 2

    return fn


def test_tensors_may_be_reached_by_another_way_than_the_arguments():
    w = normal(3, 4)
    assert gradcheck(lambda x, _: tinyvid.tanh(x @ w), [normal(2, 3, seed=1), w])
    hidden = lambda x, _: record((x @ w).data, (x, lambda g, y: g @ w.T))  # noqa: E731
    result = gradcheck(hidden, [normal(2, 3, seed=1), w], raise_exception=False)
    assert {(f.kind, f.input) for f in result.failures} == {("missing", 1)}


def test_a_tensor_given_twice_is_one_variable():
    x = normal(4)
    assert gradcheck(lambda a, b: a * b, [x, x])


def test_integers_and_other_objects_pass_through():
    index = tinyvid.tensor(np.array([2, 0]))
    assert gradcheck(lambda x, i, k: (x[i] * k, tinyvid.argmax(x)), [normal(3), index, 3])


def test_it_works_under_no_grad():
    with tinyvid.no_grad():
        assert gradcheck(tinyvid.tanh, normal(3))
        assert not tinyvid.is_grad_enabled()


def test_seeded_dropout_passes_and_unseeded_is_noticed():
    def seeded(x):
        tinyvid.manual_seed(3)
        return tinyvid.dropout(x, 0.5)

    assert gradcheck(seeded, normal(5, 6))
    result = gradcheck(lambda x: tinyvid.dropout(x, 0.5), normal(5, 6), raise_exception=False)
    assert any(f.kind == "nondeterminism" for f in result.failures)
    assert "seed inside the function what is random" in str(result)


def test_small_differences_between_runs_can_be_allowed():
    fn = FAULTS["random_gradient"][0]
    options = {"raise_exception": False, "rtol": 1e-6, "nondet_tol": 1e-6}
    assert gradcheck(fn, normal(3, 4), **options)


@pytest.mark.parametrize(
    ("fn", "inputs", "options", "message"),
    [
        (tinyvid.exp, tinyvid.tensor([1.0]), {}, "no input is a tensor with requires_grad=True"),
        (tinyvid.log, leaf([-1.0, 1.0]), {}, r"output 0 at \[0\] is nan"),
        (lambda x: 3.0, leaf([1.0]), {}, "must return tensors, not float"),
        (tinyvid.argmax, leaf([1.0]), {}, "returned no floating-point tensor"),
        (tinyvid.exp, [Tensor(np.ones(2) * 1j)], {}, r"inputs\[0\] is complex128"),
        pytest.param(
            tinyvid.exp,
            tinyvid.tensor(np.ones(2, np.longdouble), requires_grad=True),
            {},
            r"float\d+ cannot be checked, only those of float64",
            marks=pytest.mark.skipif(np.longdouble == np.double, reason="the two are one here"),
        ),
        (tinyvid.exp, leaf([1.0]), {"mode": "fast"}, "mode='fast' must be one of"),
        (tinyvid.exp, leaf([1.0]), {"kinks": "hide"}, "kinks='hide' must be one of"),
        (
            tinyvid.exp,
            leaf([1.0]),
            {"mode": "random", "return_jacobians": True},
            "needs mode='full'",
        ),
    ],
)
def test_what_cannot_be_checked_is_an_error(fn, inputs, options, message):
    with pytest.raises(UserError, match=message):
        gradcheck(fn, inputs, **options)


# Second derivatives


def test_second_derivatives_that_are_wrong_are_caught():
    def fn(x):  # the gradient is right, but its own derivative is cut off
        return record(x.data**3, (x, lambda g, y: g * (x * x).detach() * 3))

    assert gradcheck(fn, normal(4))
    result = gradgradcheck(fn, normal(4), raise_exception=False)
    assert not result
    assert {f.input for f in result.failures} == {0}


def test_second_derivatives_take_given_cotangents():
    x = normal(3)
    assert gradgradcheck(tinyvid.sin, x, grad_outputs=np.ones(3))
    assert gradgradcheck(tinyvid.sin, x, grad_outputs=[tinyvid.tensor(np.ones(3))])
    assert gradgradcheck(lambda x: x.sum(), x)


def test_the_derivative_by_torch_agrees():
    torch = pytest.importorskip("torch")
    x = normal(3, 4)
    result = gradcheck(lambda x: tinyvid.softmax(x, 1), x, return_jacobians=True)
    want = torch.autograd.functional.jacobian(
        lambda t: torch.softmax(t, 1), torch.from_numpy(x.numpy().copy())
    )
    assert_close(result.numerical[0][0], want.numpy(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_a_saturated_function_is_smooth(seed):
    rng = np.random.default_rng(seed)
    x = tinyvid.tensor(rng.normal(size=(1, 2, 5, 6, 7)), requires_grad=True)
    w = tinyvid.tensor(rng.normal(size=(3, 2, 3, 3, 3)), requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a kink would warn
        assert gradcheck(lambda x, w: tinyvid.conv3d(x, w, padding=1).tanh(), [x, w], seed=seed)
    small = tinyvid.tensor(rng.normal(size=(2, 30)) * 2, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gradcheck(lambda x: (x.exp() * 3).tanh(), [small], mode="full")
