"""Making tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyvid.random import generator
from tinyvid.tensor import Tensor, _wrap


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor that holds a copy of `data`; see `Tensor`."""
    return Tensor(data, dtype, requires_grad)


def from_numpy(array: np.ndarray) -> Tensor:
    """Return a tensor of an array's values and dtype, copied, since tensors are immutable."""
    return Tensor(np.asarray(array))


def _shape(sizes: tuple) -> tuple[int, ...]:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Iterable) else sizes


def _finish(array: np.ndarray, requires_grad: bool) -> Tensor:
    t = _wrap(array)
    return t.requires_grad_() if requires_grad else t


def zeros(*sizes: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """Return a tensor of zeros."""
    return _finish(np.zeros(_shape(sizes), dtype), requires_grad)


def ones(*sizes: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """Return a tensor of ones."""
    return _finish(np.ones(_shape(sizes), dtype), requires_grad)


def full(
    size: Any, fill_value: Any, dtype: Any = np.float32, requires_grad: bool = False
) -> Tensor:
    """Return a tensor filled with one value."""
    return _finish(np.full(size, fill_value, dtype), requires_grad)


def zeros_like(input: Tensor) -> Tensor:
    """Return zeros of the shape and dtype of `input`."""
    return _wrap(np.zeros_like(input.data))


def ones_like(input: Tensor) -> Tensor:
    """Return ones of the shape and dtype of `input`."""
    return _wrap(np.ones_like(input.data))


def arange(start: float, end: float | None = None, step: float = 1, dtype: Any = None) -> Tensor:
    """Return the numbers from `start` (0 if left out) to below `end` in steps of `step`."""
    bounds: tuple[Any, ...] = (0, start, step) if end is None else (start, end, step)
    if dtype is None and any(isinstance(v, float) for v in bounds):
        dtype = np.float32
    return _wrap(np.arange(*bounds, dtype=dtype))


def rand(*sizes: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """Return numbers drawn uniformly from [0, 1) with `manual_seed`'s generator."""
    return _finish(generator().random(_shape(sizes), dtype), requires_grad)


def randn(*sizes: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """Return numbers drawn from the standard normal distribution with `manual_seed`'s generator."""
    return _finish(generator().standard_normal(_shape(sizes), dtype), requires_grad)
