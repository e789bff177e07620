"""Methods of tensors that PyTorch has and that are not operations of their own here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyvid.errors import UserError
from tinyvid.ops.elementwise import cast
from tinyvid.ops.reduce import amax, amin, argmax, argmin
from tinyvid.ops.shape import axis, getitem, reshape
from tinyvid.tensor import Tensor, as_tensor, record


def clone(input: Tensor) -> Tensor:
    """Return a tensor of the same values, through which gradients flow."""
    return record(input.data, (input, lambda g, y: g))  # the memory is never written to


def contiguous(input: Tensor) -> Tensor:
    """Return the tensor itself: operations take any memory layout."""
    return input


def float(input: Tensor) -> Tensor:
    """Return the tensor as float32."""
    return cast(input, np.float32)


def double(input: Tensor) -> Tensor:
    """Return the tensor as float64."""
    return cast(input, np.float64)


def numel(input: Tensor) -> int:
    """Return the number of elements."""
    return input.data.size


def dim(input: Tensor) -> int:
    """Return the number of axes."""
    return input.data.ndim


def tolist(input: Tensor) -> Any:
    """Return the values as nested lists of Python numbers."""
    return input.data.tolist()


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return y[i, j, ...] = input[i, ..., index[i, j, ...], ...], the index standing at `dim`.

    Raises:
        UserError: `index` does not hold integers from 0 to the size of `dim`, has another number
            of axes, or is larger than `input` along another axis.
    """
    dim, where = axis(dim, input.ndim), as_tensor(index).data
    sizes = enumerate(zip(where.shape, input.shape, strict=False))
    if where.ndim != input.ndim or any(s > n for i, (s, n) in sizes if i != dim):
        raise UserError(f"gather: index of shape {where.shape} for an input of {input.shape}")
    size = input.shape[dim]
    if where.dtype.kind not in "iu" or not ((where >= 0) & (where < size)).all():
        raise UserError(f"gather: index must hold integers in 0 … {size - 1}")
    return _gathered(input, dim, where)


def _gathered(input: Tensor, dim: int, where: Any) -> Tensor:
    cells = list(np.indices(where.shape, sparse=True))
    cells[dim] = where
    return getitem(input, tuple(cells))


class Extremum(NamedTuple):
    """What `max` and `min` along an axis return."""

    values: Tensor
    indices: Tensor


def _along(input: Tensor, dim: int, keepdim: bool, arg: Callable[..., Tensor]) -> Extremum:
    indices = arg(input, dim, keepdim=True)
    # Gathered, so that the index chosen alone gets the gradient.
    values = _gathered(input, axis(dim, input.ndim), indices.data)
    found = Extremum(values, indices)
    return found if keepdim else Extremum(*(t.squeeze(dim) for t in found))


def max(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extremum:
    """Return the maximum; along `dim`, (values, indices), of the first maximum each.

    Equal maxima share the gradient evenly without `dim`; with it the first one gets it.
    """
    return amax(input) if dim is None else _along(input, dim, keepdim, argmax)


def min(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extremum:
    """Return the minimum, as `max` does the maximum."""
    return amin(input) if dim is None else _along(input, dim, keepdim, argmin)


METHODS: dict[str, Callable[..., Any]] = {
    "clone": clone,
    "contiguous": contiguous,
    "dim": dim,
    "double": double,
    "float": float,
    "gather": gather,
    "max": max,
    "min": min,
    "numel": numel,
    "tolist": tolist,
    "view": reshape,
}
