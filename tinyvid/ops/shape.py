"""Operations that move elements and change none: shapes, indexing, joining, padding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from tinyvid import device
from tinyvid.errors import UserError
from tinyvid.tensor import Tensor, as_tensor, plain_index, record, takes_arrays


def _dims(dims: tuple) -> tuple[int, ...]:
    """Return the ints of f(1, 2) or f((1, 2))."""
    return tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], Iterable) else dims


def axes(dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return `dim` as a sorted tuple of axes counted from the front; None is all of them."""
    if dim is None:
        return tuple(range(ndim))
    if type(dim) is int and -ndim <= dim < ndim:
        return (dim % ndim,)
    try:
        return tuple(sorted(np.lib.array_utils.normalize_axis_tuple(dim, ndim)))
    except ValueError as error:  # NumPy's AxisError is one
        raise UserError(f"dim={dim} names an axis twice or one that {ndim} axes lack") from error


def axis(dim: int, ndim: int) -> int:
    """Return `dim` counted from the front."""
    return axes((dim,), ndim)[0]


@takes_arrays
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """Return the same elements in another shape; one size may be −1."""
    before = input.shape
    try:
        array = input._array.reshape(*shape)
    except ValueError as error:
        raise UserError(f"a tensor of shape {before} cannot become {_dims(shape)}") from error
    return record(array, (input, lambda g, y: reshape(g, before)))


@takes_arrays
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Return the axes from `start_dim` to `end_dim`, both included, as one."""
    if input.ndim == 0:
        return reshape(input, 1)
    start, end = axis(start_dim, input.ndim), axis(end_dim, input.ndim)
    if start > end:
        raise UserError(f"flatten: start_dim={start_dim} comes after end_dim={end_dim}")
    shape = input.shape
    return reshape(input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


@takes_arrays
def permute(input: Tensor, *dims: Any) -> Tensor:
    """Return a view with its axes in the order `dims`."""
    order = _dims(dims)
    if len(axes(order, input.ndim)) != input.ndim:
        raise UserError(f"permute: dims={order} for a tensor of shape {input.shape}")
    back = tuple(int(i) for i in np.argsort([d % input.ndim for d in order]))
    return record(input.data.transpose(order), (input, lambda g, y: permute(g, back)))


@takes_arrays
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Return a view with two axes exchanged."""
    dim0, dim1 = axis(dim0, input.ndim), axis(dim1, input.ndim)
    return record(input.data.swapaxes(dim0, dim1), (input, lambda g, y: transpose(g, dim0, dim1)))


@takes_arrays
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Return a view without the axes of size 1, or without those of `dim` whose size is 1."""
    dims = axes(dim, input.ndim)
    return reshape(input, tuple(n for i, n in enumerate(input.shape) if n != 1 or i not in dims))


@takes_arrays
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Return a view with a new axis of size 1 at `dim`."""
    before = input.shape
    dim = axis(dim, input.ndim + 1)
    return record(np.expand_dims(input.data, dim), (input, lambda g, y: reshape(g, before)))


@takes_arrays
def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a view in which axes of size 1 are repeated to fill `shape`."""
    before = input.shape
    if before == tuple(shape):
        return input
    try:
        array = np.broadcast_to(input.data, tuple(shape))
    except ValueError as error:
        raise UserError(f"a tensor of shape {before} cannot be broadcast to {shape}") from error
    return record(array, (input, lambda g, y: _unbroadcast(g, before)))


def _unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    from tinyvid.ops.reduce import unbroadcast  # the two are each other's adjoint

    return unbroadcast(g, shape)


@takes_arrays
def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Return a view broadcast to `sizes`; −1 keeps the size of an axis."""
    wanted = _dims(sizes)
    if len(wanted) < input.ndim:
        raise UserError(f"expand: {wanted} has fewer axes than a tensor of shape {input.shape}")
    shape = (1,) * (len(wanted) - input.ndim) + input.shape
    return broadcast_to(input, [n if s == -1 else s for s, n in zip(wanted, shape, strict=True)])


@takes_arrays
def flip(input: Tensor, *dims: Any) -> Tensor:
    """Return a view reversed along the axes `dims`."""
    reverse = axes(_dims(dims), input.ndim)
    return record(np.flip(input.data, reverse), (input, lambda g, y: flip(g, *reverse)))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return the tensors joined along an axis they have.

    Raises:
        UserError: there are none, or they differ along another axis or in their devices.
    """
    parts = _one_dtype(tensors, "cat")
    dim = axis(dim, parts[0].ndim)
    rest = {(*t.shape[:dim], *t.shape[dim + 1 :]) if t.ndim > dim else None for t in parts}
    if len(rest) > 1:
        raise UserError(f"cat: shapes {_shapes(parts)} differ along more than dim {dim}")
    ends = np.cumsum([t.shape[dim] for t in parts]).tolist()

    def rule(i: int):
        start = ends[i] - parts[i].shape[dim]
        return lambda g, y: narrow(g, dim, start, ends[i] - start)

    return record(
        np.concatenate([t.data for t in parts], dim), *((t, rule(i)) for i, t in enumerate(parts))
    )


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return the tensors joined along a new axis.

    Raises:
        UserError: there are none, or they differ in shape or in their devices.
    """
    parts = _one_dtype(tensors, "stack")
    dim = axis(dim, parts[0].ndim + 1)
    if any(t.shape != parts[0].shape for t in parts):
        raise UserError(f"stack: shapes {_shapes(parts)} differ")

    def rule(i: int):
        return lambda g, y: select(g, dim, i)

    return record(
        np.stack([t.data for t in parts], dim), *((t, rule(i)) for i, t in enumerate(parts))
    )


def _one_dtype(tensors: Sequence[Tensor], name: str) -> list[Tensor]:
    """Return the tensors converted to what their sum would have."""
    from tinyvid.ops.elementwise import cast, common_dtype

    parts = [as_tensor(t) for t in tensors]
    if not parts:
        raise UserError(f"{name}: there are no tensors to join")
    device.one_device(name, *(t.data for t in parts))
    dtype = reduce(common_dtype, (t.dtype for t in parts))
    return [cast(t, dtype) for t in parts]


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(str(t.shape) for t in tensors)


@takes_arrays
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Return the slice [start, start + length) along `dim`; a negative start counts from the end.

    Raises:
        UserError: the slice reaches beyond the tensor.
    """
    dim = axis(dim, input.ndim)
    size = input.shape[dim]
    first = start + size if start < 0 else start
    if length < 0 or not 0 <= first <= size - length:
        raise UserError(
            f"narrow: start={start}, length={length} for the size {size} of dim {dim}, "
            f"input of shape {input.shape}"
        )
    return getitem(input, _along(input, dim, slice(first, first + length)))


@takes_arrays
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """Return the slice at `index` along `dim`, without that axis."""
    return getitem(input, _along(input, dim, index))


@takes_arrays
def split(input: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Return slices along `dim`, each of `split_size` (but the last) or of the sizes given."""
    n = input.shape[axis(dim, input.ndim)]
    if isinstance(split_size, int):
        if split_size < 1:
            raise UserError(f"split_size={split_size} must be at least 1")
        split_size = [min(split_size, n - i) for i in range(0, n, split_size)]
    if builtins_sum(split_size) != n:
        raise UserError(
            f"split sizes {list(split_size)} do not add up to the size {n} of dim {dim}"
        )
    starts = np.cumsum([0, *split_size]).tolist()
    return tuple(narrow(input, dim, s, k) for s, k in zip(starts[:-1], split_size, strict=True))


@takes_arrays
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Return at most `chunks` slices along `dim`, equal but for the last."""
    if chunks < 1:
        raise UserError(f"chunks={chunks} must be at least 1")
    return split(input, max(-(-input.shape[axis(dim, input.ndim)] // chunks), 1), dim)


def _along(input: Tensor, dim: int, index: Any) -> tuple:
    return (slice(None),) * axis(dim, input.ndim) + (index,)


@takes_arrays
def getitem(input: Tensor, index: Any) -> Tensor:
    """Return input[index], for every index that NumPy knows; tensors may stand in it.

    Raises:
        UserError: an index is on another device; from the CPU it is moved.
    """
    plain, shape = _kept_index(plain_index(index), input.data), input.shape
    return record(input.data[plain], (input, lambda g, y: add_at(g, plain, shape)))


@takes_arrays
def add_at(input: Tensor, index: Any, shape: Sequence[int]) -> Tensor:
    """Return zeros of `shape` with `input` added at `index`: the adjoint of indexing.

    Where an index occurs more than once, its values are added up, on the CPU in order.
    """
    plain = _kept_index(plain_index(index), input.data)
    array = device.zeros_on_device_of(input.data, tuple(shape), input.dtype)
    if _is_basic(plain):
        array[plain] = input.data
    else:
        device.add_at(array, plain, input.data)
    return record(array, (input, lambda g, y: getitem(g, plain)))


def _kept_index(index: Any, array: Any) -> Any:
    """Return the index with each array in it on the device of `array`, and safe from writing."""
    if isinstance(index, tuple):
        return tuple(_kept_index(i, array) for i in index)
    if isinstance(index, list):
        index = np.array(index) if index else np.zeros(0, np.int64)
    if not hasattr(index, "shape") or isinstance(index, np.generic):
        return index
    if isinstance(index, np.ndarray) and index.flags.writeable:
        index = index.copy()
    if device.device_of(index) == "cpu":
        return device.on_device_of(array, index)
    device.one_device("an index", array, index)
    return index


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    basic = (int, np.integer, slice, type(None), type(Ellipsis))
    return all(isinstance(p, basic) and not isinstance(p, bool) for p in parts)


@takes_arrays
def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Return the tensor with a border of `value`, or of 0; a negative width crops.

    Args:
        pad: widths (low, high) of the last axis, then of the one before it, and so on.
        mode: "constant" is the only one.
    """
    if mode != "constant":
        raise UserError(f"pad: mode={mode!r} is not built; 'constant' is")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise UserError(f"pad={tuple(pad)}: give (low, high) for up to {input.ndim} axes")
    widths = [(0, 0)] * (input.ndim - len(pad) // 2)
    widths += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    if any(
        n + min(lo, 0) + min(hi, 0) < 0 for n, (lo, hi) in zip(input.shape, widths, strict=True)
    ):
        raise UserError(f"pad={tuple(pad)} crops more than shape {input.shape} has")
    cut = tuple(
        slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi) in zip(input.shape, widths, strict=True)
    )
    if any(lo < 0 or hi < 0 for lo, hi in widths):
        input = getitem(input, cut)
    grown = [(max(lo, 0), max(hi, 0)) for lo, hi in widths]
    inside = tuple(slice(lo, lo + n) for n, (lo, _) in zip(input.shape, grown, strict=True))
    return record(
        np.pad(input.data, grown, constant_values=value or 0),
        (input, lambda g, y: getitem(g, inside)),
    )


builtins_sum = sum
