"""Element-wise operations, with NumPy's broadcasting; the rules stand above the forward.

A rule takes (g, y, a) or (g, y, a, b): the gradient of the final result with respect to y, y
itself, and the inputs. They are tensors where the reverse pass is recorded, and bare arrays
where it is not, which is quicker: rules are written in what both understand, and read as the
formulas of the textbook. What broadcasting and conversion of dtypes did to an input is undone
behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from tinyvid.device import check_device, device_of, on_device_of, one_device, to_device
from tinyvid.errors import UserError
from tinyvid.ops.reduce import unbroadcast
from tinyvid.tensor import Tensor, _mode, _wrap, as_tensor, attach, copied, record, takes_arrays

LARGE = 2**16  # elements from which on compiled loops on all threads pay


def unary(rule: Callable[..., Any], saves: bool = True) -> Callable[..., Callable[..., Tensor]]:
    """Make a differentiable operation of a function of one array.

    Args:
        rule: the gradient, from (g, y, a); see the module's docstring.
        saves: whether the rule reads the input.
    """

    def decorate(forward: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Tensor]:
        @wraps(forward)
        def operation(input: Any) -> Tensor:
            a = input if isinstance(input, Tensor) else as_tensor(input)
            try:
                y = _wrap(forward(a._array))
            except TypeError as error:  # such as the negative of booleans
                raise UserError(
                    f"{forward.__name__}: a tensor of shape {a.shape}, {a.dtype}: {error}"
                ) from error
            if a.requires_grad and _mode.enabled:
                attach(y, ((a, rule),), ((a, a._array),) if saves else (), (a,))
            return y

        return operation

    return decorate


def binary(
    rule_a: Callable[..., Any], rule_b: Callable[..., Any], saves: bool = True
) -> Callable[..., Callable[..., Tensor]]:
    """Make a differentiable operation of a function of two arrays that broadcast.

    Args:
        rule_a, rule_b: the gradients with respect to the two inputs, from (g, y, a, b).
        saves: whether the rules read the inputs.
    """

    def decorate(forward: Callable[[Any, Any], np.ndarray]) -> Callable[..., Tensor]:
        @wraps(forward)
        def operation(input: Any, other: Any) -> Tensor:
            a, b = pair(input, other)
            if type(a._array) is not type(b._array):
                one_device(forward.__name__, a._array, b._array)
            try:
                y = _wrap(forward(a._array, b._array))
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"{forward.__name__}: shapes {a.shape} and {b.shape}: {error}"
                ) from error
            if (a.requires_grad or b.requires_grad) and _mode.enabled:
                saved = ((a, a._array), (b, b._array)) if saves else ()
                attach(y, ((a, rule_a), (b, rule_b)), saved, (a, b))
            return y

        return operation

    return decorate


def either(operation: Callable[..., Tensor], *inputs: Any) -> Any:
    """Return the operation's result for tensors, or its bare forward's for arrays."""
    if isinstance(inputs[0], Tensor):
        return operation(*inputs)
    return operation.__wrapped__(*inputs)  # type: ignore[attr-defined]


def _bare(x: Any) -> Any:
    """Return what is a constant to a rule: the array of a tensor, or the array given."""
    return x._array if isinstance(x, Tensor) else x


def pair(input: Any, other: Any) -> tuple[Tensor, Tensor]:
    """Return the two as tensors of one dtype."""
    if not isinstance(input, Tensor):
        input = as_tensor(input, like=other if isinstance(other, Tensor) else None)
    if not isinstance(other, Tensor):
        other = as_tensor(other, like=input)
    if input._array.dtype is not other._array.dtype:
        dtype = common_dtype(input.dtype, other.dtype)
        return cast(input, dtype), cast(other, dtype)
    return input, other


def common_dtype(a: np.dtype, b: np.dtype) -> np.dtype:
    """Return the dtype of what is made of the two; an integer widens no float."""
    if (a.kind == "f") != (b.kind == "f"):
        return a if a.kind == "f" else b
    return np.promote_types(a, b)


def _float(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _fit(g: Tensor, like: Tensor) -> Tensor:
    """Undo the broadcasting of an input."""
    return g if g._array.shape == like._array.shape else unbroadcast(g, like.shape)


@takes_arrays
def cast(input: Tensor, dtype: Any) -> Tensor:
    """Return the tensor converted to another dtype."""
    dtype = np.dtype(dtype)
    if input.dtype == dtype:
        return input
    array = input.data.astype(dtype)
    if dtype.kind != "f":
        return record(array)
    return record(array, (input, lambda g, y: cast(g, input.dtype)))


@takes_arrays
def move(input: Tensor, device: str) -> Tensor:
    """Return the tensor on another device; its gradient comes back to this one."""
    before = input.device
    if before == check_device(device):
        return input
    return record(to_device(input.data, device), (input, lambda g, y: move(g, before)))


@binary(lambda g, y, a, b: g, lambda g, y, a, b: g, saves=False)
def add(input: Any, other: Any) -> Any:
    """Return input + other."""
    return input + other


@binary(lambda g, y, a, b: g, lambda g, y, a, b: -g, saves=False)
def sub(input: Any, other: Any) -> Any:
    """Return input − other."""
    return input - other


@binary(lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)
def mul(input: Any, other: Any) -> Any:
    """Return input · other."""
    return input * other


@binary(lambda g, y, a, b: g / b, lambda g, y, a, b: -(g * y / b))
def div(input: Any, other: Any) -> Any:
    """Return input / other."""
    return _float(input) / _float(other)


@binary(lambda g, y, a, b: g * _pow_slope(a, b), lambda g, y, a, b: g * y * either(log, a))
def pow(input: Any, exponent: Any) -> Any:
    """Return input raised to exponent; the gradient with respect to an exponent needs input > 0."""
    return input**exponent


def _pow_slope(a: Any, b: Any) -> Any:
    # b · a^(b−1), but 0 and not 0 · 0^(−1) = NaN where both are 0
    both = (_bare(a) == 0) & (_bare(b) == 0)
    return b * a ** (b - 1 + both)


@unary(lambda g, y, a: -g, saves=False)
def neg(input: Any) -> Any:
    """Return −input."""
    return -input


@unary(lambda g, y, a: g * a * 2)
def square(input: Any) -> Any:
    """Return input²."""
    return input * input


@unary(lambda g, y, a: g * y, saves=False)
def exp(input: Any) -> Any:
    """Return e to the power of input."""
    return np.exp(_float(input))


@unary(lambda g, y, a: g / a)
def log(input: Any) -> Any:
    """Return the natural logarithm."""
    return np.log(_float(input))


@unary(lambda g, y, a: g / (y * 2), saves=False)
def sqrt(input: Any) -> Any:
    """Return the square root."""
    return np.sqrt(_float(input))


@unary(lambda g, y, a: g * (1 - y * y), saves=False)
def tanh(input: Any) -> Any:
    """Return the hyperbolic tangent."""
    return np.tanh(_float(input))


@unary(lambda g, y, a: g * (y * (1 - y)), saves=False)
def sigmoid(input: Any) -> Any:
    """Return 1 / (1 + e^−input), computed as (1 + tanh(input / 2)) / 2, which cannot overflow."""
    return np.tanh(_float(input) * 0.5) * 0.5 + 0.5


@unary(lambda g, y, a: through_relu(g, y), saves=False)
def relu(input: Any) -> Any:
    """Return max(input, 0); the gradient at 0 is 0."""
    if type(input) is np.ndarray and input.size >= LARGE:
        from tinyvid.kernels.rectifier import rectified  # not for less: it loads Numba

        return rectified(input)
    return np.maximum(input, input.dtype.type(0))


def through_relu(g: Any, y: Any) -> Any:
    """Return the gradient with respect to a of y = relu(a), from that of y: tensors or arrays."""
    y = _bare(y)
    if isinstance(g, Tensor):
        return record(through_relu(g.data, y), (g, lambda gg, _: through_relu(gg, y)))
    if type(g) is np.ndarray and g.size >= LARGE:
        from tinyvid.kernels.rectifier import where_positive

        return where_positive(g, y)
    return g * (y > 0)


@unary(lambda g, y, a: g * np.sign(_bare(a)))
def abs(input: Any) -> Any:
    """Return the absolute value; the gradient at 0 is 0."""
    return np.abs(input)


@unary(lambda g, y, a: g * either(cos, a))
def sin(input: Any) -> Any:
    """Return the sine."""
    return np.sin(_float(input))


@unary(lambda g, y, a: -(g * either(sin, a)))
def cos(input: Any) -> Any:
    """Return the cosine."""
    return np.cos(_float(input))


@binary(lambda g, y, a, b: g * _share(y, a, b), lambda g, y, a, b: g * _share(y, b, a))
def maximum(input: Any, other: Any) -> Any:
    """Return the larger of the two; where they are equal each gets half of the gradient."""
    return np.maximum(input, other)


@binary(lambda g, y, a, b: g * _share(y, a, b), lambda g, y, a, b: g * _share(y, b, a))
def minimum(input: Any, other: Any) -> Any:
    """Return the smaller of the two; where they are equal each gets half of the gradient."""
    return np.minimum(input, other)


def _share(y: Any, winner: Any, other: Any) -> np.ndarray:
    # 1 where this input alone is the extremum, one half where both are
    y, winner, other = _bare(y), _bare(winner), _bare(other)
    return ((winner == y) / (1.0 + (winner == other))).astype(y.dtype)


def scale(input: Tensor, factor: np.ndarray) -> Tensor:
    """Return input · factor, for an array that is a constant and no wider than the input."""
    return record(input.data * factor, (input, lambda g, y: scale(g, factor)))


def where(condition: Any, input: Any, other: Any) -> Tensor:
    """Return input where the condition holds, and other elsewhere."""
    a, b = pair(input, other)
    chosen = condition.data if isinstance(condition, Tensor) else copied(condition)
    if device_of(chosen) == "cpu" and not isinstance(condition, Tensor):
        chosen = on_device_of(a.data, chosen)
    one_device("where", a.data, b.data, chosen)
    try:
        array = np.where(chosen, a.data, b.data)
    except ValueError as error:
        shapes = f"{chosen.shape}, {a.shape} and {b.shape}"
        raise UserError(f"where: shapes {shapes} do not broadcast") from error
    return record(
        array,
        (a, lambda g, y: _fit(where(chosen, g, 0.0), a)),
        (b, lambda g, y: _fit(where(chosen, 0.0, g), b)),
    )


@takes_arrays
def clamp(input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """Return input limited to [min, max]; the gradient is 0 outside."""
    if min is None and max is None:
        raise UserError("clamp: give min, max or both")
    given = [b for b in (min, max) if b is not None]
    if not all(isinstance(b, (int, float, np.number)) for b in given):
        raise UserError("clamp: min and max are numbers; maximum and minimum take tensors")
    if input.dtype.kind != "f" and any(float(b) != int(b) for b in given):
        input = cast(input, np.float32)
    if input.dtype.kind == "f":
        min, max = (None if b is None else input.dtype.type(b) for b in (min, max))
    return record(
        np.clip(input.data, min, max),
        (input, lambda g, y: scale(g, y.data == input.data)),
        saved=(input,),
    )
