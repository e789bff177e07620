"""Making tensors. `device` is where they shall live: see `tinyvid.device`; None is "cpu"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyvid.device import check_device, to_device
from tinyvid.random import generator
from tinyvid.tensor import Tensor, _wrap, freeze, takes_arrays


def tensor(
    data: Any, dtype: Any = None, requires_grad: bool = False, device: str | None = None
) -> Tensor:
    """Return a tensor that holds a copy of `data`; see `Tensor`."""
    t = Tensor(data, dtype, requires_grad)
    if device is not None and device != t.device:
        t._array = freeze(to_device(t._array, check_device(device)))
    return t


def from_numpy(array: np.ndarray) -> Tensor:
    """Return a tensor of an array's values and dtype, copied, since tensors are immutable."""
    return Tensor(np.asarray(array))


def _shape(sizes: tuple) -> tuple[int, ...]:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Iterable) else sizes


def _finish(array: np.ndarray, requires_grad: bool, device: str | None) -> Tensor:
    t = _wrap(array if device is None else to_device(array, check_device(device)))
    return t.requires_grad_() if requires_grad else t


def zeros(
    *sizes: Any,
    dtype: Any = np.float32,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """Return a tensor of zeros."""
    return _finish(np.zeros(_shape(sizes), dtype), requires_grad, device)


def ones(
    *sizes: Any,
    dtype: Any = np.float32,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """Return a tensor of ones."""
    return _finish(np.ones(_shape(sizes), dtype), requires_grad, device)


def full(
    size: Any,
    fill_value: Any,
    dtype: Any = np.float32,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """Return a tensor filled with one value."""
    return _finish(np.full(size, fill_value, dtype), requires_grad, device)


@takes_arrays
def zeros_like(input: Tensor, device: str | None = None) -> Tensor:
    """Return zeros of the shape and dtype of `input`."""
    return _finish(np.zeros_like(input.data), False, device)


@takes_arrays
def ones_like(input: Tensor, device: str | None = None) -> Tensor:
    """Return ones of the shape and dtype of `input`."""
    return _finish(np.ones_like(input.data), False, device)


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """Return the numbers from `start` (0 if left out) to below `end` in steps of `step`."""
    bounds: tuple[Any, ...] = (0, start, step) if end is None else (start, end, step)
    if dtype is None and any(isinstance(v, float) for v in bounds):
        dtype = np.float32
    return _finish(np.arange(*bounds, dtype=dtype), False, device)


def rand(
    *sizes: Any,
    dtype: Any = np.float32,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """Return numbers drawn uniformly from [0, 1) with `manual_seed`'s generator."""
    return _finish(generator().random(_shape(sizes), dtype), requires_grad, device)


def randn(
    *sizes: Any,
    dtype: Any = np.float32,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """Return numbers drawn from the standard normal distribution with `manual_seed`'s generator."""
    return _finish(generator().standard_normal(_shape(sizes), dtype), requires_grad, device)
