"""Reductions. `dim` is an axis, several, or None for all of them; `keepdim` keeps them as 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tinyvid.errors import UserError
from tinyvid.ops.channels import total
from tinyvid.ops.shape import axes, broadcast_to, reshape
from tinyvid.tensor import Tensor, _mode, _wrap, attach, record, takes_arrays

Dim: TypeAlias = "int | Sequence[int] | None"


def kept(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape after a reduction over `dims` that keeps them as 1."""
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


@takes_arrays
def sum(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the sum over `dim`; integers and booleans add up to int64."""
    array, full = input._array, input._array.shape
    dims = axes(dim, len(full))
    if array.dtype.kind == "f":
        array = total(array, dims)
    else:
        array = array.sum(dims, np.int64, keepdims=True)
    shape = array.shape

    def rule(g: Any, y: Any) -> Any:
        if isinstance(g, Tensor):
            return broadcast_to(reshape(g, shape), full)
        return np.broadcast_to(g.reshape(shape), full)

    y = _wrap(array if keepdim else array.squeeze(dims))
    if input.requires_grad and _mode.enabled:
        attach(y, ((input, rule),), (), ())
    return y


@takes_arrays
def unbroadcast(input: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the sum over every axis along which `shape` was broadcast: its adjoint."""
    before = input.shape
    array = unbroadcast_array(input._array, shape)
    return record(array, (input, lambda g, y: broadcast_to(g, before)))


def unbroadcast_array(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the same of a bare array."""
    extra = array.ndim - len(shape)
    stretched = [i + extra for i, n in enumerate(shape) if n == 1 and array.shape[i + extra] != 1]
    return total(array, (*range(extra), *stretched)).reshape(shape)


@takes_arrays
def mean(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the mean over `dim`."""
    count = math.prod(input.shape[i] for i in axes(dim, input.ndim))
    return sum(input, dim, keepdim) / count


@takes_arrays
def var(input: Tensor, dim: Dim = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Return the variance over `dim`, divided by the count less `correction`."""
    count = math.prod(input.shape[i] for i in axes(dim, input.ndim))
    centred = input - mean(input, dim, keepdim=True)
    return sum(centred * centred, dim, keepdim) / (count - correction)


@takes_arrays
def std(input: Tensor, dim: Dim = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Return the standard deviation over `dim`; see `var`."""
    return var(input, dim, correction, keepdim).sqrt()


@takes_arrays
def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the maximum over `dim`; equal maxima share the gradient evenly."""
    return _extremum(np.amax, input, dim, keepdim)


@takes_arrays
def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the minimum over `dim`; equal minima share the gradient evenly."""
    return _extremum(np.amin, input, dim, keepdim)


def _extremum(function, input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    dims = axes(dim, input.ndim)
    shape = kept(input.shape, dims)
    _not_empty(input, dims, function.__name__)

    def rule(g: Tensor, y: Tensor) -> Tensor:
        chosen = input.data == y.data.reshape(shape)
        share = (chosen / chosen.sum(dims, keepdims=True)).astype(y.dtype)
        return reshape(g, shape) * share

    return record(function(input.data, dims, keepdims=keepdim), (input, rule), saved=(input,))


def _not_empty(input: Tensor, dims: tuple[int, ...], name: str) -> None:
    if any(input.shape[i] == 0 for i in dims):
        raise UserError(f"{name}: shape {input.shape} has no elements along dim {dims}")


@takes_arrays
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the index of the first maximum along `dim`, or in the flattened input."""
    _not_empty(input, axes(dim, input.ndim), "argmax")
    return record(np.argmax(input.data, dim, keepdims=keepdim))


@takes_arrays
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the index of the first minimum along `dim`, or in the flattened input."""
    _not_empty(input, axes(dim, input.ndim), "argmin")
    return record(np.argmin(input.data, dim, keepdims=keepdim))
