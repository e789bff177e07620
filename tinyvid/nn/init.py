"""Initial values of parameters, drawn from a seed.

Each function gives a tensor new values and returns it. Random values come from `generator`,
or else from the generator that `tinyvid.manual_seed(seed)` seeds; they are drawn in the
tensor's dtype.

Sources: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
networks", AISTATS 2010 (`xavier`); He et al., "Delving deep into rectifiers", ICCV 2015
(`kaiming`); Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear
neural networks", ICLR 2014 (`orthogonal_`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvid import random
from tinyvid.errors import UserError, nearest
from tinyvid.nn.module import _shapes_only
from tinyvid.tensor import Tensor, no_grad

Generator = np.random.Generator


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with `val`."""
    return _set(tensor, lambda: val)


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from the uniform distribution on [a, b)."""
    random = _generator(generator).random
    return _set(tensor, lambda: _affine(random(tensor.shape, tensor.dtype), b - a, a))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from the normal distribution of this mean and standard deviation."""
    normal = _generator(generator).standard_normal
    return _set(tensor, lambda: _affine(normal(tensor.shape, tensor.dtype), std, mean))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which weights grow so that a nonlinearity keeps the variance.

    Args:
        nonlinearity: "linear", "conv2d", "conv3d", "sigmoid" (1), "tanh" (5/3), "relu" (√2) or
            "leaky_relu" (√(2 / (1 + param²))).
        param: the negative slope of leaky_relu, 0.01 if not given.

    Raises:
        UserError: no such nonlinearity.
    """
    slope = 0.01 if param is None else param
    gains = {
        **dict.fromkeys(["linear", "conv1d", "conv2d", "conv3d", "sigmoid"], 1.0),
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
    }
    if nonlinearity not in gains:
        hint = nearest(nonlinearity, gains)
        raise UserError(f"nonlinearity={nonlinearity!r}: one of {', '.join(gains)}.{hint}")
    return gains[nonlinearity]


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill from U(-b, b), b = gain √(6 / (fan_in + fan_out)); Glorot and Bengio (2010), eq. 16."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from N(0, s²), s = gain √(2 / (fan_in + fan_out)); Glorot and Bengio (2010), eq. 12."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill from U(-b, b), b = gain √(3 / fan); He et al. (2015), section 2.2.

    Args:
        tensor: a weight, output channels first; at least two axes.
        a: the negative slope of leaky_relu.
        mode: "fan_in" keeps the variance of the forward pass, "fan_out" of the backward pass.
        nonlinearity: what follows the layer; see `calculate_gain`.
        generator: where the draws come from.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill from N(0, s²), s = gain / √fan; arguments as `kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with a random matrix of orthonormal rows (or columns, if they are fewer), times gain.

    A tensor of more than two axes is taken as a matrix of `shape[0]` rows. Saxe et al. (2014);
    the signs are those that make the distribution uniform (Mezzadri 2007, section 5).
    """
    fans(tensor)  # checks that it has rows and columns
    rows, columns = tensor.shape[0], tensor.size // tensor.shape[0]
    normal = _generator(generator).standard_normal

    def rotation() -> np.ndarray:
        q, r = np.linalg.qr(normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diagonal(r))
        return gain * (q.T if rows < columns else q).reshape(tensor.shape)

    return _set(tensor, rotation)


def fans(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight `K C ...`: the number of connections of one unit.

    Raises:
        UserError: the tensor has fewer than two axes.
    """
    if tensor.ndim < 2:
        raise UserError(f"a tensor of shape {tensor.shape} has no fan: it needs two axes or more")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise UserError(f"mode={mode!r}: 'fan_in' or 'fan_out' is meant")
    fan_in, fan_out = fans(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _generator(generator: Generator | None) -> Generator:
    return random.generator() if generator is None else generator


def _affine(draws: np.ndarray | float, scale: float, shift: float) -> np.ndarray | float:
    draws *= scale  # in place: the largest layers have tens of millions of weights
    draws += shift
    return draws


def _set(tensor: Tensor, values: Callable[[], Any]) -> Tensor:
    if not _shapes_only.get():
        with no_grad():
            tensor.copy_(values())
    return tensor
