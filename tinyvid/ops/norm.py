"""Normalisation and dropout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyvid.errors import UserError
from tinyvid.ops.elementwise import sqrt
from tinyvid.ops.pool import avg_pool3d
from tinyvid.ops.reduce import mean, var
from tinyvid.ops.shape import pad, reshape
from tinyvid.random import generator
from tinyvid.tensor import Tensor, is_grad_enabled, no_grad, record


def standardise(input: Tensor, dim: Sequence[int], eps: float) -> Tensor:
    """Return (input − mean) / √(variance + eps), the two taken over `dim`.

    One operation rather than seven, since it is run on the largest activations. Its rule, with
    r = 1 / √(variance + eps), is r · (g − mean(g) − y · mean(g · y)).
    """
    dims = tuple(dim)
    centred = input.data - input.data.mean(dims, keepdims=True)
    r = 1 / np.sqrt((centred * centred).mean(dims, keepdims=True) + eps)
    centred *= r

    def rule(g: Tensor, y: Tensor) -> Tensor:
        # r depends on the input too, which only a second derivative sees
        scale = 1 / sqrt(var(input, dims, 0, True) + eps) if is_grad_enabled() else Tensor(r)
        return scale * (g - mean(g, dims, True) - y * mean(g * y, dims, True))

    return record(centred, (input, rule), saved=(input,))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel over the batch and all positions (Ioffe & Szegedy, ICML 2015).

    Args:
        input: (N, C) or (N, C, ...).
        running_mean, running_var: (C,), used when not training, and updated in training by
            `momentum` with the batch's mean and unbiased variance; None to use the batch's.
        weight, bias: (C,), applied after normalising.

    Raises:
        UserError: training with a single value a channel.
    """
    if input.ndim < 2:
        raise UserError(f"batch_norm takes (N, C, ...), not an input of shape {input.shape}")
    dims = (0, *range(2, input.ndim))
    column = (1, -1) + (1,) * (input.ndim - 2)
    if training or running_mean is None or running_var is None:
        count = input.size // input.shape[1]
        if training and count == 1:
            raise UserError(f"batch_norm needs more than one value a channel, input {input.shape}")
        y = standardise(input, dims, eps)
        if training and running_mean is not None and running_var is not None:
            with no_grad():
                centre = input.data.mean(dims)
                spread = input.data.var(dims) * (count / (count - 1))
                running_mean.copy_(running_mean.data * (1 - momentum) + momentum * centre)
                running_var.copy_(running_var.data * (1 - momentum) + momentum * spread)
    else:
        y = (input - reshape(running_mean, column)) / sqrt(reshape(running_var, column) + eps)
    if weight is not None:
        y = y * reshape(weight, column)
    return y if bias is None else y + reshape(bias, column)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axes, whose sizes are `normalized_shape` (Ba et al., 2016)."""
    shape = tuple(normalized_shape)
    if input.shape[input.ndim - len(shape) :] != shape:
        raise UserError(f"layer_norm over {shape} for an input of shape {input.shape}")
    y = standardise(input, range(input.ndim - len(shape), input.ndim), eps)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divide by (k + alpha · mean of squares over `size` neighbouring channels)^beta.

    Krizhevsky et al., NIPS 2012, section 3.3; `alpha` is divided by `size`, as PyTorch does.

    Args:
        input: (N, C, ...).
    """
    n, c = input.shape[:2]
    flat = reshape(input * input, (n, 1, c, 1, -1))
    flat = pad(flat, (0, 0, 0, 0, size // 2, (size - 1) // 2))
    squares = reshape(avg_pool3d(flat, (size, 1, 1), 1), input.shape)
    return input / (squares * alpha + k) ** beta


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability `p` and scale the others by 1 / (1 − p).

    Srivastava et al., JMLR 2014. The draws come from `tinyvid.manual_seed`'s generator.
    """
    if not 0 <= p <= 1:
        raise UserError(f"dropout: p={p} is not a probability")
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0.0
    keep = generator().random(input.shape, np.float32) >= p
    mask = keep * input.dtype.type(1 / (1 - p))
    return record(input.data * mask, (input, lambda g, y: g * mask))
