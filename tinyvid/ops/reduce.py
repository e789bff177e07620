"""Reductions. `dim` is an axis, several, or None for all of them; `keepdim` keeps them as 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from tinyvid.ops.shape import broadcast_to, reshape
from tinyvid.tensor import Tensor, record

Dim: TypeAlias = "int | Sequence[int] | None"


def axes(dim: Dim, ndim: int) -> tuple[int, ...]:
    """Return `dim` as a sorted tuple of axes counted from the front."""
    if dim is None:
        return tuple(range(ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(sorted(np.lib.array_utils.normalize_axis_tuple(dims, ndim)))


def kept(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape after a reduction over `dims` that keeps them as 1."""
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


def sum(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the sum over `dim`."""
    dims = axes(dim, input.ndim)
    shape, full = kept(input.shape, dims), input.shape
    return record(
        input.data.sum(dims, keepdims=keepdim),
        (input, lambda g, y: broadcast_to(reshape(g, shape), full)),
    )


def unbroadcast(input: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the sum over every axis along which `shape` was broadcast: its adjoint."""
    extra = input.ndim - len(shape)
    stretched = [i + extra for i, n in enumerate(shape) if n == 1 and input.shape[i + extra] != 1]
    return reshape(sum(input, [*range(extra), *stretched], keepdim=True), shape)


def mean(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the mean over `dim`."""
    count = math.prod(input.shape[i] for i in axes(dim, input.ndim))
    return sum(input, dim, keepdim) / count


def var(input: Tensor, dim: Dim = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Return the variance over `dim`, divided by the count less `correction`."""
    count = math.prod(input.shape[i] for i in axes(dim, input.ndim))
    centred = input - mean(input, dim, keepdim=True)
    return sum(centred * centred, dim, keepdim) / (count - correction)


def std(input: Tensor, dim: Dim = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Return the standard deviation over `dim`; see `var`."""
    return var(input, dim, correction, keepdim).sqrt()


def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the maximum over `dim`; equal maxima share the gradient evenly."""
    return _extremum(np.amax, input, dim, keepdim)


def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the minimum over `dim`; equal minima share the gradient evenly."""
    return _extremum(np.amin, input, dim, keepdim)


def _extremum(function, input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    dims = axes(dim, input.ndim)
    shape = kept(input.shape, dims)

    def rule(g: Tensor, y: Tensor) -> Tensor:
        chosen = input.data == y.data.reshape(shape)
        share = (chosen / chosen.sum(dims, keepdims=True)).astype(y.dtype)
        return reshape(g, shape) * share

    return record(function(input.data, dims, keepdims=keepdim), (input, rule), saved=(input,))


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the index of the first maximum along `dim`, or in the flattened input."""
    return record(np.argmax(input.data, dim, keepdims=keepdim))


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the index of the first minimum along `dim`, or in the flattened input."""
    return record(np.argmin(input.data, dim, keepdims=keepdim))
