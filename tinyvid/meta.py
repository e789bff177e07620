"""Arrays that have a shape and nothing in them, and an account of the memory they would take.

A `MetaArray` is a NumPy array whose operations work out the shape and the dtype of their result,
and nothing else. Inside `Account.dry_run` kernels do the same. So whatever is written for tensors,
a network, its loss and the whole reverse pass, runs in milliseconds, and the account says how
many bytes of arrays were alive at each moment, had it run for real: the engine itself is the
model of its memory.

It counts each result of an expression apart, where NumPy may write one over another: a rule of
many terms may take an array or two less than it says.

All arrays are views of one buffer that is never written to, and so takes no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvid import random
from tinyvid.geometry import ConvGeometry, Ints, PoolGeometry
from tinyvid.kernels.memory import LARGE, Store
from tinyvid.kernels.pool3d import argmax_dtype
from tinyvid.kernels.registry import Kernel
from tinyvid.kernels.threads import on_this_thread


class Account:
    """Counts the bytes of arrays.

    Attributes:
        live: bytes of the arrays that are there. Large ones that `kernels.memory` would lend are
            counted by its own rules, in `store`.
        most: what both have taken together at the most, with what `store` keeps for later.
    """

    def __init__(self) -> None:
        self.live = self.most = 0
        self.store = Store(_Buffer)

    def add(self, size: int) -> None:
        """Count so many bytes more, or less."""
        self.live += size
        self.note()

    def note(self) -> None:
        self.most = max(self.most, self.live + sum(self.store.held()))

    def array(
        self,
        shape: Sequence[int],
        dtype: Any,
        order: Sequence[int] | None = None,
        lent: bool = False,
    ) -> Any:
        """Return an array that would take memory.

        Args:
            shape, dtype: its own. order: of the axes in memory, C order if None.
            lent: whether its memory would come from `kernels.memory`.
        """
        return _array(self, shape, dtype, order, lent)

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """Inside the block kernels make arrays of this account, of which one was given to them."""
        run = Kernel.__call__

        def of_shapes(kernel: Kernel, *args: Any, device: str = "cpu") -> Any:
            if not any(isinstance(a, MetaArray) for a in args):
                return run(kernel, *args, device=device)
            return _kernel_results(self, kernel, args)

        # Helpers would hold arrays for a moment longer, or shorter, whenever it is their turn.
        with random.using(_Draws(self)), on_this_thread(), np.errstate(all="ignore"):
            setattr(Kernel, "__call__", of_shapes)  # noqa: B010
            try:
                yield
            finally:
                setattr(Kernel, "__call__", run)  # noqa: B010


class _Draws:
    """A generator whose large arrays of random numbers have no values."""

    def __init__(self, account: Account):
        self.account, self.generator = account, np.random.default_rng(0)

    def random(self, shape: Ints, dtype: Any) -> Any:
        return _array(self.account, shape, dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)


@dataclass(frozen=True)
class _Buffer:
    """Stands for a buffer of `kernels.memory`."""

    size: int


class _Block:
    """The memory of an array and its views: on the account for as long as one of them is there."""

    __slots__ = ("account", "buffer", "bytes")

    def __init__(self, account: Account, size: int, lent: bool = False):
        self.account, self.bytes = account, size
        self.buffer = account.store.take(size) if lent and size >= LARGE else None
        if self.buffer is None:
            account.add(size)
        else:
            account.note()

    def __del__(self) -> None:
        if self.buffer is None:
            self.account.live -= self.bytes
        else:
            self.account.store.returned.append(self.buffer)


class MetaArray(np.ndarray):
    """An array without values; see the module's docstring."""

    block: _Block

    def __array_finalize__(self, whole: Any) -> None:
        if isinstance(whole, MetaArray):
            self.block = whole.block

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method == "at":
            return None
        if out is not None:
            return out[0] if len(out) == 1 else out
        account = _account(inputs)
        arrays = [a for a in inputs if isinstance(a, np.ndarray)]
        like = max(arrays, key=lambda a: (a.size, np.count_nonzero(a.strides)))
        axis, keepdims = options.pop("axis", 0), options.pop("keepdims", False)
        options.pop("where", None)
        plain = [
            np.ones((1,) * a.ndim, a.dtype) if isinstance(a, np.ndarray) else a for a in inputs
        ]
        if method == "reduce":
            dtype = ufunc.reduce(plain[0], axis=axis, **options).dtype
            return _array(account, _reduced(inputs[0].shape, axis, keepdims), dtype)
        if method != "__call__":
            raise NotImplementedError(f"{ufunc.__name__}.{method} of arrays without values")
        results = ufunc(*plain, **options)
        shapes = [np.shape(a) for a in inputs]
        shape = _product(*shapes) if ufunc is np.matmul else np.broadcast_shapes(*shapes)
        if isinstance(results, tuple):
            return tuple(_array(account, shape, r.dtype, _order(like, shape)) for r in results)
        return _array(account, shape, results.dtype, _order(like, shape))

    def __array_function__(self, function, types, args, kwargs):
        account = _account([*args, *kwargs.values()])
        if function in (np.empty_like, np.zeros_like, np.ones_like, np.full_like):
            like, dtype = args[0], kwargs.get("dtype") or args[0].dtype
            order = None if kwargs.get("order") == "C" else _order(like, like.shape)
            return _array(account, like.shape, dtype, order)
        if function is np.where:
            shape = np.broadcast_shapes(*map(np.shape, args))
            return _array(account, shape, np.result_type(*args[1:]))
        if function is np.clip:
            return _array(account, args[0].shape, args[0].dtype, _order(args[0], args[0].shape))
        if function in (np.concatenate, np.stack):
            arrays = args[0] if function is np.concatenate else [a[None] for a in args[0]]
            axis = args[1] if len(args) > 1 else kwargs.get("axis", 0)
            if function is np.stack:
                arrays = [np.moveaxis(a, 0, axis) for a in arrays]
            sizes = list(arrays[0].shape)
            sizes[axis] = sum(a.shape[axis] for a in arrays)
            return _array(account, tuple(sizes), np.result_type(*arrays))
        if function is np.copyto:
            return None
        result = super().__array_function__(function, types, args, kwargs)
        return _counted(account, result, [a for a in args if isinstance(a, MetaArray)])

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write nothing."""

    def __getitem__(self, index: Any) -> Any:
        return _counted(self.block.account, super().__getitem__(index), [self])

    def copy(self, order: Any = "C") -> Any:
        axes = None if order == "C" else _order(self, self.shape)
        return _array(self.block.account, self.shape, self.dtype, axes)

    def astype(  # type: ignore[override]
        self, dtype: Any, *args: Any, copy: bool = True, **options: Any
    ) -> Any:
        if not copy and self.dtype == dtype:
            return self
        return _array(self.block.account, self.shape, dtype, _order(self, self.shape))

    def reshape(self, *shape: Any, **options: Any) -> Any:
        return _counted(self.block.account, super().reshape(*shape, **options), [self])


_buffer = np.zeros(0, np.uint8)


def _array(
    account: Account,
    shape: Sequence[int],
    dtype: Any,
    order: Sequence[int] | None = None,
    lent: bool = False,
) -> Any:
    global _buffer
    shape, dtype = tuple(map(int, shape)), np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size > _buffer.size:
        _buffer = np.zeros(size, np.uint8)  # of pages that are never touched
    order = range(len(shape)) if order is None else order
    array = _buffer[:size].view(dtype).reshape([shape[i] for i in order])
    array = array.transpose(np.argsort(order)) if shape else array
    meta = array.view(MetaArray)
    meta.block = _Block(account, size, lent)
    return meta


def _account(args: Sequence[Any]) -> Account:
    for a in args:
        if isinstance(a, MetaArray):
            return a.block.account
        if isinstance(a, (tuple, list)) and any(isinstance(b, MetaArray) for b in a):
            return _account(a)
    raise AssertionError("none of the arguments is an array without values")


def _counted(account: Account, result: Any, sources: Sequence[MetaArray]) -> Any:
    """Return what NumPy made of arrays: a view of one of them, or new memory."""
    if not isinstance(result, np.ndarray):
        return result
    for source in sources:
        if np.may_share_memory(result, source):
            result = result.view(MetaArray)
            result.block = source.block
            return result
    return _array(account, result.shape, result.dtype)


def _order(like: np.ndarray, shape: Ints) -> Sequence[int] | None:
    """Return the order of the axes in memory, the outermost first, where shapes agree."""
    if like.shape != shape:
        return None
    return sorted(range(like.ndim), key=lambda i: -abs(like.strides[i]))


def _reduced(shape: Ints, axis: Any, keepdims: bool) -> list[int]:
    axes = range(len(shape)) if axis is None else (axis if isinstance(axis, tuple) else (axis,))
    gone = {a % len(shape) for a in axes}
    if keepdims:
        return [1 if i in gone else n for i, n in enumerate(shape)]
    return [n for i, n in enumerate(shape) if i not in gone]


def _product(a: Ints, b: Ints) -> Ints:
    return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])


def _kernel_results(account: Account, kernel: Kernel, args: Sequence[Any]) -> Any:
    """Return what a kernel returns, in channels-last memory, having used its scratch space."""
    results = _results(account, kernel, args)
    variant = kernel.select(*args)
    if variant.workspace is not None:
        for block in [_Block(account, size, lent=True) for size in variant.workspace(*args)]:
            del block  # all at once, while the results are there, and gone again
    return results


def _results(account: Account, kernel: Kernel, args: Sequence[Any]) -> Any:
    def result(shape: Ints, dtype: Any) -> Any:
        order = (0, *range(2, len(shape)), 1) if len(shape) > 3 else None
        return _array(account, shape, dtype, order, lent=True)

    floats = next(a.dtype for a in args if isinstance(a, np.ndarray) and a.dtype.kind == "f")
    if kernel.op == "lstm":
        return _lstm_results(kernel, args, lambda shape: result(shape, floats))
    # Of a convolution, of a pooling, or of a convolution and the pooling that follows it.
    geometries = [a for a in args if isinstance(a, (ConvGeometry, PoolGeometry))]
    first: Any = geometries[0]
    if kernel.pass_ == "dgrad":
        return result(first.x, floats)
    if kernel.pass_ == "wgrad":
        return result(first.w, floats)
    last: Any = geometries[-1]
    y = result(last.y, floats)
    if "max_pool" in kernel.op and kernel.pass_ == "fprop":
        return y, result(last.y, argmax_dtype(last))
    return y


def _lstm_results(kernel: Kernel, args: Sequence[Any], result: Callable[[Ints], Any]) -> Any:
    if kernel.pass_ == "fprop":
        (n, length, _), hidden = args[0].shape, args[4].shape[1]
        return tuple(result((n, length, width)) for width in (hidden, hidden, 4 * hidden))
    x, w_ih, w_hh, h0, c0 = (a.shape for a in args[2:7])
    return tuple(map(result, (x, w_ih, w_hh, w_ih[:1], h0, c0)))
