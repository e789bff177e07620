"""Normalisation and dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyvid.device import on_device_of, one_device, zeros_on_device_of
from tinyvid.errors import UserError
from tinyvid.ops.channels import (
    channels_first,
    channels_last,
    moments,
    shift_and_scale,
    standardise_backward,
    total,
)
from tinyvid.ops.elementwise import cast, scale, sqrt
from tinyvid.ops.fused import fused
from tinyvid.ops.pool import avg_pool3d
from tinyvid.ops.reduce import mean, var
from tinyvid.ops.shape import axes, pad, reshape
from tinyvid.random import generator
from tinyvid.recompute import is_recomputing
from tinyvid.tensor import Tensor, _wrap, is_grad_enabled, no_grad, record, takes_arrays


@takes_arrays
def standardise(input: Tensor, dim: int | Sequence[int], eps: float) -> Tensor:
    """Return (input − mean) / √(variance + eps), the two taken over `dim`.

    One operation rather than seven, since it is run on the largest activations. Its rule, with
    r = 1 / √(variance + eps), is r · (g − mean(g) − y · mean(g · y)).
    """
    dims = axes(dim, input.ndim)
    count = math.prod(input.shape[i] for i in dims)
    centred = input.data - total(input.data, dims) / count
    r = 1 / np.sqrt(total(centred * centred, dims) / count + eps)
    centred *= r

    def rule(g: Tensor, y: Tensor) -> Tensor:
        # r depends on the input too, which only a second derivative sees
        slope = 1 / sqrt(var(input, dims, 0, True) + eps) if is_grad_enabled() else _wrap(r)
        return slope * (g - mean(g, dims, True) - y * mean(g * y, dims, True))

    return record(centred, (input, rule), saved=(input,))


@takes_arrays
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
        UserError: training with a single value a channel, or shapes or devices that do not fit.
    """
    if input.ndim < 2:
        raise UserError(f"batch_norm takes (N, C, ...), not an input of shape {input.shape}")
    channels = input.shape[1]
    names = ("running_mean", "running_var", "weight", "bias")
    for name, value in zip(names, (running_mean, running_var, weight, bias), strict=True):
        if value is not None and value.shape != (channels,):
            raise UserError(f"batch_norm: {name} of shape {value.shape} for {channels} channels")
        if isinstance(value, Tensor):
            one_device("batch_norm", input.data, value.data)
    column = (1, channels) + (1,) * (input.ndim - 2)
    if training or running_mean is None or running_var is None:
        count = input.size // max(channels, 1)
        if count == 0 or (training and count == 1):
            raise UserError(f"batch_norm needs more than one value a channel, input {input.shape}")
        zeros = zeros_on_device_of(input.data, channels, input.dtype)
        weight = _wrap(zeros + 1) if weight is None else cast(weight, input.dtype)
        bias = _wrap(zeros) if bias is None else cast(bias, input.dtype)
        y, centre, spread = _normalise_channels(input, weight, bias, eps)
        if training:
            _update(running_mean, centre, momentum)
            _update(running_var, spread * (count / (count - 1)), momentum)
        return y
    y = (input - reshape(running_mean, column)) / sqrt(reshape(running_var, column) + eps)
    if weight is not None:
        y = y * reshape(weight, column)
    return y if bias is None else y + reshape(bias, column)


def _update(running: Tensor | None, value: np.ndarray, momentum: float) -> None:
    if running is not None and not is_recomputing():
        if not isinstance(running, Tensor):
            raise UserError("batch_norm writes to running_mean and running_var: give Tensors")
        with no_grad():
            running.copy_(running.data * (1 - momentum) + value * momentum)


def _normalise_channels(
    input: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Return the input `N C ...` normalised by its own moments, its mean, and its variance."""
    shape = input.shape
    rows = channels_last(input.data)
    mean, variance = moments(rows)
    r = 1 / np.sqrt(variance + eps)
    array = shift_and_scale(rows, mean, r * weight.data, bias.data)

    def backward(g: np.ndarray) -> tuple[np.ndarray, ...]:
        gx, gw, gb = standardise_backward(channels_last(g), rows, mean, r, weight.data)
        return channels_first(gx, shape), gw, gb

    def composed(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        column = (1, -1) + (1,) * (len(shape) - 2)
        y = standardise(input, (0, *range(2, len(shape))), eps)
        return y * reshape(weight, column) + reshape(bias, column)

    y = fused(channels_first(array, shape), (input, weight, bias), backward, composed)
    return y, mean, variance


@takes_arrays
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axes, whose sizes are `normalized_shape` (Ba et al., 2016).

    Args:
        weight, bias: of `normalized_shape`, applied after normalising.
    """
    shape = tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise UserError(f"layer_norm over {shape} for an input of shape {input.shape}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != shape:
            raise UserError(f"layer_norm over {shape}: {name} of shape {value.shape}")
    y = standardise(input, range(input.ndim - len(shape), input.ndim), eps)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


@takes_arrays
def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divide by (k + alpha · mean of squares over `size` neighbouring channels)^beta.

    Krizhevsky et al., NIPS 2012, section 3.3; `alpha` is divided by `size`, as PyTorch does.

    Args:
        input: (N, C, ...).
    """
    if input.ndim < 2:
        raise UserError(f"local_response_norm takes (N, C, ...), not shape {input.shape}")
    n, c = input.shape[:2]
    flat = reshape(input * input, (n, 1, c, 1, -1))
    flat = pad(flat, (0, 0, 0, 0, size // 2, (size - 1) // 2))
    squares = reshape(avg_pool3d(flat, (size, 1, 1), 1), input.shape)
    return input / (squares * alpha + k) ** beta


@takes_arrays
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
    # Drawn on the CPU wherever the input is, so that a seed gives the same run on every device;
    # what moves there is one byte an element.
    keep = on_device_of(input.data, generator().random(input.shape, np.float32) >= p)
    return scale(input, keep * input.dtype.type(1 / (1 - p)))
