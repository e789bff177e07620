"""Memory for large arrays, used again as soon as nobody looks at it any more.

The operating system hands out large arrays page by page, cleared, as they are first written
to: for an array of 200 MB that takes about as long as the sum of two such arrays. The arrays of a
training step have the same sizes as those of the step before. So a kernel asks `empty` for its
result and its scratch space, and gets the memory of an array that is gone.

An array is gone when Python has no reference to it, nor to any view of it. All of them refer, in
the end, to one object, the `_Loan`; when that goes its buffer comes back. A buffer is never
lent twice at a time, however the array was passed on.

What is kept for later is bounded by what was needed before: buffers lent and buffers kept are
together at most as large as those lent were at their most.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

LARGE = 1 << 20  # bytes; below, NumPy's own allocator has no pages to ask for
_SPARE = 8  # a buffer may be larger than asked for by one part in so many
_LINE = 64  # bytes of a cache line, at which arrays begin


def empty(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialised array in C order, as `np.empty` does."""
    dtype = np.dtype(dtype)
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    size = count * dtype.itemsize
    if size < LARGE or dtype.hasobject:
        return np.empty(shape, dtype)
    # Every view refers to this array or, where NumPy passes it over, to the loan itself.
    return np.asarray(_Loan(_store.take(size)))[:size].view(dtype).reshape(shape)


def empty_like(array: np.ndarray) -> np.ndarray:
    """Return an uninitialised array of the same shape and dtype, its axes in the same order."""
    order = sorted(range(array.ndim), key=lambda i: -abs(array.strides[i]))
    result = empty(tuple(array.shape[i] for i in order), array.dtype)
    return result.transpose(np.argsort(order)) if array.ndim else result


def held() -> tuple[int, int]:
    """Return how many bytes of large arrays are lent, and how many are kept for later."""
    return _store.held()


def release() -> None:
    """Give back to the system what is kept for later, and forget how much was needed."""
    _store.release()


class _Loan:
    """Lends a buffer to an array and its views, for as long as one of them is there."""

    __slots__ = ("__array_interface__", "buffer")

    def __init__(self, buffer: np.ndarray):
        self.buffer = buffer
        self.__array_interface__ = buffer.__array_interface__

    def __del__(self) -> None:
        # It may run at any moment, inside `take` too: so no lock here, and nothing else is done.
        _store.returned.append(self.buffer)


class Store:
    """The buffers that are free, and the count of those that are not.

    Args:
        new: makes a buffer of at least so many bytes, which are its `size`.

    Attributes:
        lent, kept: bytes of the buffers that are lent, and of those that are free.
        most: what `lent` has been at the most.
    """

    def __init__(self, new: Callable[[int], Any]):
        self.new = new
        self.lock = threading.Lock()
        self.returned: deque[Any] = deque()  # by loans that have ended
        self.free: list[Any] = []  # the one longest unused first
        self.lent = self.kept = self.most = 0

    def take(self, size: int) -> Any:
        """Return a buffer of at least `size` bytes."""
        with self.lock:
            self._collect()
            fitting = [b for b in self.free if size <= b.size <= size + size // _SPARE]
            buffer = min(fitting, key=lambda b: b.size, default=None)
            if buffer is None:
                while self.free and self.lent + self.kept + size > self.most:
                    self._remove(self.free[0])
                try:
                    buffer = self.new(size)
                except MemoryError:  # what is kept may be what is missing
                    self.free.clear()
                    self.kept = 0
                    buffer = self.new(size)
            else:
                self._remove(buffer)
            self.lent += buffer.size
            self.most = max(self.most, self.lent)
            return buffer

    def held(self) -> tuple[int, int]:
        with self.lock:
            self._collect()
            return self.lent, self.kept

    def release(self) -> None:
        with self.lock:
            self._collect()
            self.free.clear()
            self.kept, self.most = 0, self.lent

    def _collect(self) -> None:
        while self.returned:
            buffer = self.returned.popleft()
            self.lent -= buffer.size
            self.kept += buffer.size
            self.free.append(buffer)

    def _remove(self, buffer: Any) -> None:
        self.free = [b for b in self.free if b is not buffer]
        self.kept -= buffer.size


def _aligned(size: int) -> np.ndarray:
    """Return a new buffer that begins at a cache line."""
    block = np.empty(size + _LINE, np.uint8)
    start = -block.ctypes.data % _LINE
    return block[start : start + size]


_store = Store(_aligned)


def _after_fork() -> None:
    _store.lock = threading.Lock()  # another thread, which the child has not, may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
