"""Element-wise operations: values, broadcasting, dtypes, and what they refuse."""

import math

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import Tensor, UserError, gradcheck, gradgradcheck, no_grad, tensor

f32 = np.float32


def leaf(values, dtype=np.float64):
    return tensor(np.array(values, dtype), requires_grad=True)


def draw(*shape, seed=0):
    return leaf(np.random.default_rng(seed).normal(size=shape))


UNARY = {
    # name: (input, value, derivative), worked by hand
    "neg": (2.0, -2.0, -1.0),
    "square": (3.0, 9.0, 6.0),
    "exp": (0.0, 1.0, 1.0),
    "log": (1.0, 0.0, 1.0),
    "sqrt": (4.0, 2.0, 0.25),
    "tanh": (0.0, 0.0, 1.0),
    "sigmoid": (0.0, 0.5, 0.25),
    "relu": (-1.0, 0.0, 0.0),
    "abs": (-3.0, 3.0, -1.0),
    "sin": (math.pi / 2, 1.0, math.cos(math.pi / 2)),
    "cos": (0.0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_by_hand(name):
    at, value, slope = UNARY[name]
    x = leaf([at])
    y = getattr(tinyvid, name)(x)
    y.backward()
    assert_close(y, np.array([value]), atol=1e-15)
    assert_close(x.grad, np.array([slope]), atol=1e-15)


BINARY = {
    # name: (a, b, value, d/da, d/db)
    "add": (2.0, 5.0, 7.0, 1.0, 1.0),
    "sub": (2.0, 5.0, -3.0, 1.0, -1.0),
    "mul": (2.0, 5.0, 10.0, 5.0, 2.0),
    "div": (2.0, 5.0, 0.4, 0.2, -0.08),  # −a / b² = −2 / 25
    "pow": (2.0, 3.0, 8.0, 12.0, 8 * math.log(2)),  # b a^(b−1), a^b log a
    "maximum": (2.0, 5.0, 5.0, 0.0, 1.0),
    "minimum": (2.0, 5.0, 2.0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_by_hand(name):
    at_a, at_b, value, slope_a, slope_b = BINARY[name]
    a, b = leaf([at_a]), leaf([at_b])
    y = getattr(tinyvid, name)(a, b)
    y.backward()
    assert_close(y, np.array([value]), rtol=1e-15)
    assert_close(a.grad, np.array([slope_a]), rtol=1e-15)
    assert_close(b.grad, np.array([slope_b]), rtol=1e-15)


SHAPES = [
    ((3,), (2, 3)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((), (2, 2)),
    ((2, 2), ()),
    ((), ()),
    ((1, 2, 1), (3, 1, 2)),
]


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum"])
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_broadcasting_in_each_direction(name, left, right):
    function = getattr(tinyvid, name)
    a, b = draw(*left, seed=1), draw(*right, seed=2)
    gradcheck(function, (a, b))
    gradgradcheck(function, (a, b))


@pytest.mark.parametrize(("left", "right"), [((0, 3), (1, 3)), ((2, 0), ()), ((1,), (0,))])
def test_empty_tensors_broadcast_and_get_gradients(left, right):
    a, b = draw(*left), draw(*right)
    y = a * b
    y.backward(np.zeros(y.shape))
    assert y.shape == np.broadcast_shapes(left, right)
    assert_close(a.grad, np.zeros(left))
    assert_close(b.grad, np.zeros(right))


def test_operators_with_numbers_and_arrays_on_either_side():
    # f(x) = (2 − x) · 3 / (1 + x) at x = 1: 1.5; the quotient's derivative: −9 / (1 + x)² = −2.25
    x = leaf([1.0])
    y = (2 - x) * 3 / (1 + x)
    y.backward()
    assert_close(y, np.array([1.5]))
    assert_close(x.grad, np.array([-2.25]))
    assert_close(np.array([4.0]) - x, np.array([3.0]))
    assert_close(np.array([4.0]) / x, np.array([4.0]))
    assert_close(2**x, np.array([2.0]))
    assert_close(abs(-x), np.array([1.0]))
    assert_close(6 / tensor([4.0]), np.array([1.5], f32))


def test_sigmoid_and_tanh_of_huge_values_saturate_without_a_warning():
    x = tensor(np.array([-1e30, -100.0, 100.0, 1e30], f32))
    assert_close(tinyvid.sigmoid(x), np.array([0, 0, 1, 1], f32))
    assert_close(tinyvid.tanh(x), np.array([-1, -1, 1, 1], f32))


# Kinks


def test_gradients_at_kinks_are_the_documented_ones():
    x = leaf([0.0])
    assert_close(tinyvid.grad(x.relu(), x), np.zeros(1))
    assert_close(tinyvid.grad(x.abs(), x), np.zeros(1))
    a, b = leaf([1.0]), leaf([1.0])
    for function in (tinyvid.maximum, tinyvid.minimum):
        ga, gb = tinyvid.grad(function(a, b), [a, b])
        assert_close(ga, np.array([0.5]))
        assert_close(gb, np.array([0.5]))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_powers_at_zero_have_finite_derivatives(exponent):
    x = leaf([0.0])
    first = tinyvid.grad(x**exponent, x, create_graph=True)
    second = tinyvid.grad(first, x)
    assert_close(first, np.array([1.0 if exponent == 1 else 0.0]))
    assert_close(second, np.array([2.0 if exponent == 2 else 0.0]))  # b (b − 1) 0^(b−2)


def test_pow_with_an_array_of_exponents():
    a, b = leaf([1.5, 2.0, 0.5]), leaf([2.0, -1.0, 0.5])
    gradcheck(tinyvid.pow, (a, b))
    gradgradcheck(tinyvid.pow, (a, b))


# Where and clamp


def test_where_by_hand_and_with_numbers():
    a, b = leaf([1.0, 2.0]), leaf([[10.0], [20.0]])
    chosen = np.array([[True, False], [False, False]])
    y = tinyvid.where(chosen, a, b)
    assert_close(y, np.array([[1.0, 10.0], [20.0, 20.0]]))
    ga, gb = tinyvid.grad(y, [a, b], np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert_close(ga, np.array([1.0, 0.0]))
    assert_close(gb, np.array([[2.0], [7.0]]))
    assert_close(tinyvid.where(tensor([True, False]), 1.0, 2.0), np.array([1, 2], f32))
    assert_close(tinyvid.where(tensor([True, False]), a, 0), np.array([1.0, 0.0]))
    gradgradcheck(lambda a, b: tinyvid.where(chosen, a * a, b * b), (a, b))


def test_where_keeps_its_own_condition():
    a, chosen = leaf([1.0, 2.0]), np.array([True, False])
    y = tinyvid.where(chosen, a, 0.0)
    chosen[:] = False
    y.backward(np.ones(2))
    assert_close(a.grad, np.array([1.0, 0.0]))


@pytest.mark.parametrize(
    ("limits", "value", "slope"),
    [
        ({"min": 0}, [0, 0.5, 2], [0, 1, 1]),
        ({"max": 1}, [-1, 0.5, 1], [1, 1, 0]),
        ({"min": -0.5, "max": 1.5}, [-0.5, 0.5, 1.5], [0, 1, 0]),
    ],
)
def test_clamp_by_hand(limits, value, slope):
    x = leaf([-1.0, 0.5, 2.0])
    y = x.clamp(**limits)
    y.backward(np.ones(3))
    assert_close(y, np.array(value, float))
    assert_close(x.grad, np.array(slope, float))


# Dtypes


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (f32, np.int64, f32),
        (np.int64, f32, f32),
        (f32, np.float64, np.float64),
        (np.float64, np.uint8, np.float64),
        (np.uint8, np.int64, np.int64),
        (np.bool_, f32, f32),
    ],
)
@pytest.mark.parametrize("name", ["add", "mul", "maximum"])
def test_common_dtype(a, b, dtype, name):
    x, y = tensor(np.ones(2, a)), tensor(np.full(2, 1, b))
    got = getattr(tinyvid, name)(x, y)
    assert_close(
        got,
        getattr(np, {"add": "add", "mul": "multiply"}.get(name, name))(
            x.data.astype(dtype), y.data.astype(dtype)
        ),
    )


def test_gradients_of_mixed_dtypes_keep_each_input_s_own():
    a, b = leaf([2.0], f32), leaf([3.0])
    counts = tensor([4])
    (a * b * counts).backward()
    assert_close(a.grad, np.array([12.0], f32))
    assert_close(b.grad, np.array([8.0]))


def test_numbers_take_part_in_integer_arithmetic_as_they_are():
    assert_close(tensor([True, False]) * 2, np.array([2, 0]))
    assert_close(tensor(np.array([250], np.uint8)) + 300, np.array([550], np.uint16))
    assert_close(tensor(np.array([250], np.uint8)) * 2 == 500, np.array([False]))  # wraps
    assert_close(tensor(np.array([3], np.uint8)) - 5.5, np.array([-2.5], f32))
    assert_close(tensor([1, 2]) * -1, np.array([-1, -2]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_integers_become_float32_where_the_result_is_none(dtype):
    x = tensor(np.array([0, 1, 4], dtype))
    assert_close(x / 2, np.array([0, 0.5, 2], f32))
    for name in ("exp", "sqrt", "tanh", "sigmoid", "sin", "cos"):
        want = getattr(tinyvid, name)(tensor(x.data.astype(f32)))
        assert_close(getattr(tinyvid, name)(x), want.data)
    assert_close(tinyvid.log(x[1:]), np.log(np.array([1, 4], f32)))


def test_cast_there_and_back_is_differentiable_and_to_integers_is_not():
    x = leaf([1.5, 2.5])
    (x.astype(f32) * 2).sum().backward()
    assert_close(x.grad, np.array([2.0, 2.0]))
    assert not x.astype(np.int64).requires_grad
    assert_close(x.astype(np.int64), np.array([1, 2]))
    assert x.astype(np.float64) is x


# Comparisons


def test_comparisons_are_masks():
    x = tensor([1.0, 2.0, 3.0])
    assert_close(x == 2, np.array([False, True, False]))
    assert_close(x != tensor([1.0, 0.0, 3.0]), np.array([False, True, False]))
    assert_close(x < 2, np.array([True, False, False]))
    assert_close(x <= np.array([0.0, 2.0, 4.0], f32), np.array([False, True, True]))
    assert_close(x >= 3, np.array([False, False, True]))
    assert_close(tensor(np.array([200], np.uint8)) < 300, np.array([True]))


# Writing in place


def test_in_place_with_a_differentiable_operand_names_a_new_result():
    x, sum_of = leaf([3.0]), tensor(np.zeros(1))
    total = sum_of
    total += x * x
    total += x
    total.backward()
    assert_close(x.grad, np.array([7.0]))
    assert_close(sum_of, np.zeros(1))


def test_in_place_keeps_the_dtype_or_refuses():
    counts = tensor([1, 2])
    counts += 1
    assert_close(counts, np.array([2, 3]))
    with pytest.raises(UserError, match=r"int64 cannot hold float32"):
        counts /= 2
    half = tensor([1.0], dtype=f32)
    half += np.array([0.5])
    assert_close(half, np.array([1.5], f32))


def test_values_that_require_a_gradient_are_not_written_unrecorded():
    x, t = leaf([1.0, 2.0]), tensor(np.zeros(2))
    with pytest.raises(UserError, match="where, cat"):
        t[0] = x[0]
    with pytest.raises(UserError, match="no_grad"):
        t.copy_(x)
    with no_grad():
        t.copy_(x)
        t[1] = x[0]
    assert_close(t, np.array([1.0, 1.0]))


def test_the_result_of_an_operation_cannot_be_given_new_values():
    x = leaf([1.0])
    y = x.exp()
    with no_grad(), pytest.raises(UserError, match=r"result of an operation.*detach"):
        y.copy_([5.0])
    with pytest.raises(UserError, match="result of an operation"):
        y.data = np.array([5.0])
    y.backward()
    assert_close(x.grad, np.exp([1.0]))


# What is refused


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "maximum", "minimum"])
def test_shapes_that_do_not_broadcast_are_named(name):
    a, b = tensor(np.ones(2)), tensor(np.ones(3))
    with pytest.raises(UserError, match=rf"{name}: shapes \(2,\) and \(3,\)"):
        getattr(tinyvid, name)(a, b)


def test_other_shape_errors():
    a, b = tensor(np.ones(2)), tensor(np.ones(3))
    with pytest.raises(UserError, match=r"__eq__: shapes \(2,\) and \(3,\)"):
        a == b  # noqa: B015
    with pytest.raises(UserError, match=r"where: shapes \(2,\), \(3,\) and \(3,\)"):
        tinyvid.where(a > 0, b, b)
    with pytest.raises(UserError, match="clamp: give min, max"):
        a.clamp()
    assert isinstance(a * 2, Tensor)


def test_clamp_keeps_the_dtype_of_floats_and_gives_integers_float_bounds():
    for bound in (0.5, np.float64(0.5), 1):
        assert Tensor([0.25, 2.0]).clamp(bound).dtype == np.float32
    halves = Tensor(np.array([0, 2])).clamp(0.5)
    assert halves.dtype == np.float32
    assert halves.tolist() == [0.5, 2.0]
    assert Tensor(np.array([0, 2])).clamp(1).dtype == np.int64
    x = Tensor([1.0, 2.0], requires_grad=True)
    x.clamp(np.float64(1.5)).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]
    with pytest.raises(UserError, match="maximum and minimum take tensors"):
        x.clamp(Tensor(1.5))
