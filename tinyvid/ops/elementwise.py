"""Element-wise operations, with NumPy's broadcasting; the rule stands beside its forward."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvid.ops.reduce import unbroadcast
from tinyvid.tensor import Tensor, as_tensor, record


def _pair(input: Any, other: Any) -> tuple[Tensor, Tensor]:
    """Return the two as tensors of one dtype."""
    if not isinstance(input, Tensor):
        input = as_tensor(input, like=other if isinstance(other, Tensor) else None)
    if not isinstance(other, Tensor):
        other = as_tensor(other, like=input)
    if input.data.dtype is not other.data.dtype:
        kinds = (input.dtype.kind == "f", other.dtype.kind == "f")
        if kinds == (True, False):  # an integer tensor widens no float
            dtype = input.dtype
        elif kinds == (False, True):
            dtype = other.dtype
        else:
            dtype = np.promote_types(input.dtype, other.dtype)
        return cast(input, dtype), cast(other, dtype)
    return input, other


def _fit(g: Tensor, like: Tensor) -> Tensor:
    """Undo the broadcasting of an input."""
    return g if g.data.shape == like.data.shape else unbroadcast(g, like.shape)


def cast(input: Tensor, dtype: Any) -> Tensor:
    """Return the tensor converted to another dtype."""
    dtype = np.dtype(dtype)
    if input.dtype == dtype:
        return input
    array = input.data.astype(dtype)
    if dtype.kind != "f":
        return record(array)
    return record(array, (input, lambda g, y: cast(g, input.dtype)))


def add(input: Any, other: Any) -> Tensor:
    """Return input + other."""
    a, b = _pair(input, other)
    return record(a.data + b.data, (a, lambda g, y: _fit(g, a)), (b, lambda g, y: _fit(g, b)))


def sub(input: Any, other: Any) -> Tensor:
    """Return input − other."""
    a, b = _pair(input, other)
    return record(a.data - b.data, (a, lambda g, y: _fit(g, a)), (b, lambda g, y: _fit(neg(g), b)))


def mul(input: Any, other: Any) -> Tensor:
    """Return input · other."""
    a, b = _pair(input, other)
    return record(
        a.data * b.data,
        (a, lambda g, y: _fit(mul(g, b), a)),
        (b, lambda g, y: _fit(mul(g, a), b)),
        saved=(a, b),
    )


def div(input: Any, other: Any) -> Tensor:
    """Return input / other."""
    a, b = _pair(input, other)
    return record(
        a.data / b.data,
        (a, lambda g, y: _fit(div(g, b), a)),
        (b, lambda g, y: _fit(neg(div(mul(g, y), b)), b)),
        saved=(b,),
    )


def neg(input: Tensor) -> Tensor:
    """Return −input."""
    return record(-input.data, (input, lambda g, y: neg(g)))


def pow(input: Any, exponent: Any) -> Tensor:
    """Return input raised to exponent; the gradient with respect to an exponent needs input > 0."""
    a, b = _pair(input, exponent)
    return record(
        a.data**b.data,
        (a, lambda g, y: _fit(g * _pow_slope(a, b), a)),
        (b, lambda g, y: _fit(g * y * log(a), b)),
        saved=(a, b),
    )


def _pow_slope(a: Tensor, b: Tensor) -> Tensor:
    # b · a^(b−1), but 0 and not 0 · 0^(−1) = NaN where b is 0
    return where(b.data == 0, 0.0, b * pow(a, where(b.data == 0, 1.0, b - 1)))


def square(input: Tensor) -> Tensor:
    """Return input²."""
    return mul(input, input)


def exp(input: Tensor) -> Tensor:
    """Return e to the power of input."""
    return record(np.exp(input.data), (input, lambda g, y: g * y))


def log(input: Tensor) -> Tensor:
    """Return the natural logarithm."""
    return record(np.log(input.data), (input, lambda g, y: g / input), saved=(input,))


def sqrt(input: Tensor) -> Tensor:
    """Return the square root."""
    return record(np.sqrt(input.data), (input, lambda g, y: g / (y * 2)))


def tanh(input: Tensor) -> Tensor:
    """Return the hyperbolic tangent."""
    return record(np.tanh(input.data), (input, lambda g, y: g * (1 - y * y)))


def sigmoid(input: Tensor) -> Tensor:
    """Return 1 / (1 + e^−input), computed as (1 + tanh(input / 2)) / 2, which cannot overflow."""
    return record(
        np.tanh(input.data * 0.5) * 0.5 + 0.5,
        (input, lambda g, y: g * (y * (1 - y))),
    )


def relu(input: Tensor) -> Tensor:
    """Return max(input, 0); the gradient at 0 is 0."""
    return record(np.maximum(input.data, 0), (input, lambda g, y: g * (y.data > 0)))


def abs(input: Tensor) -> Tensor:
    """Return the absolute value; the gradient at 0 is 0."""
    return record(np.abs(input.data), (input, lambda g, y: g * np.sign(input.data)), saved=(input,))


def sin(input: Tensor) -> Tensor:
    """Return the sine."""
    return record(np.sin(input.data), (input, lambda g, y: g * cos(input)), saved=(input,))


def cos(input: Tensor) -> Tensor:
    """Return the cosine."""
    return record(np.cos(input.data), (input, lambda g, y: neg(g * sin(input))), saved=(input,))


def maximum(input: Any, other: Any) -> Tensor:
    """Return the larger of the two; where they are equal each gets half of the gradient."""
    a, b = _pair(input, other)
    return _extremum(np.maximum, a, b)


def minimum(input: Any, other: Any) -> Tensor:
    """Return the smaller of the two; where they are equal each gets half of the gradient."""
    a, b = _pair(input, other)
    return _extremum(np.minimum, a, b)


def _extremum(function: np.ufunc, a: Tensor, b: Tensor) -> Tensor:
    def share(winner: Tensor, y: Tensor) -> np.ndarray:
        # 1 where this input alone is the extremum, one half where both are
        return ((winner.data == y.data) / (1.0 + (a.data == b.data))).astype(y.dtype)

    return record(
        function(a.data, b.data),
        (a, lambda g, y: _fit(g * share(a, y), a)),
        (b, lambda g, y: _fit(g * share(b, y), b)),
        saved=(a, b),
    )


def where(condition: Any, input: Any, other: Any) -> Tensor:
    """Return input where the condition holds, and other elsewhere."""
    chosen = condition.data if isinstance(condition, Tensor) else np.asarray(condition)
    a, b = _pair(input, other)
    return record(
        np.where(chosen, a.data, b.data),
        (a, lambda g, y: _fit(where(chosen, g, 0.0), a)),
        (b, lambda g, y: _fit(where(chosen, 0.0, g), b)),
    )


def clamp(input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """Return input limited to [min, max]; the gradient is 0 outside."""
    return record(
        np.clip(input.data, min, max),
        (input, lambda g, y: g * (np.clip(input.data, min, max) == input.data)),
        saved=(input,),
    )
