"""Our threads: a loop over chunks of work, run by a small pool that all kernels share.

The kernels release the GIL in their inner loops (Numba's `nogil`, NumPy's copies, BLAS), so
plain Python threads are enough. The calling thread takes part in the work, and a thread that
is free takes the next chunk: nothing waits for a helper that has not begun, so several
callers at once, or data-loader threads that keep the processor busy, slow a loop down but
never block it.

Results must not depend on the number of threads. So a kernel splits its work by sizes that
come from the shapes alone, gives each chunk its own output, and adds partial sums in a fixed
order; and BLAS, which would split sums by its own number of threads, is held to one thread
while chunks run, even where there is only one of them.
"""

from __future__ import annotations

import contextvars
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from tinyvid.errors import UserError
from tinyvid.kernels.memory import empty

Chunk = TypeVar("Chunk")


def chunks_of(total: int, size: int) -> list[slice]:
    """Split `range(total)` into slices of `size`; the last one may be shorter."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def get_num_threads() -> int:
    """Return how many threads a kernel runs on; see `set_num_threads`."""
    return _pool.threads


def set_num_threads(threads: int) -> None:
    """Let kernels run on so many threads. Results are the same to the bit for any number.

    The default is the environment variable TINYVID_NUM_THREADS, or else the number of
    processors that this process may run on.

    Raises:
        UserError: `threads` is not an int of at least 1.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise UserError(f"set_num_threads({threads!r}): give an int of at least 1")
    _pool.threads = threads


def parallel_for(fn: Callable[[Chunk], object], chunks: Iterable[Chunk]) -> None:
    """Call `fn(chunk)` for each chunk, on several threads; return when all are done.

    Inside `fn` a further `parallel_for` runs inline. The first exception stops the loop and
    is raised here; chunks that have begun are finished first.
    """
    items = chunks if isinstance(chunks, Sequence) else list(chunks)
    with blas_on_one_thread():
        helpers = min(_pool.threads, len(items)) - 1
        if helpers < 1 or _inside.get():
            for item in items:
                fn(item)
        else:
            _Loop(fn, items).run(helpers)


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Hold BLAS to one thread inside the block, so that its sums do not depend on their number.

    Blocks may be nested, and entered by several threads at once: the setting is the whole
    process's, and goes back to what it was when the last block ends.
    """
    _blas.enter()
    try:
        yield
    finally:
        _blas.leave()


@contextmanager
def on_this_thread() -> Iterator[None]:
    """Let every `parallel_for` of this thread do all its chunks itself inside the block."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


class Scratch(threading.local):
    """Buffers of one kernel call: each thread has its own, and uses it for chunk after chunk.

    (A buffer made anew for each chunk would cost more in page faults than the work in it.)
    """

    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an uninitialised array; the next call with this name returns it again."""
        size = math.prod(shape)
        buffer = self.buffers.get(name)
        if buffer is None or buffer.size < size or buffer.dtype != dtype:
            buffer = self.buffers[name] = empty(size, dtype)
        return buffer[:size].reshape(shape)


# Whether this thread runs a chunk. Helpers inherit the caller's context, and with it
# `np.errstate` and the variants chosen by `tinyvid.kernels.use`.
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("inside parallel_for", default=False)


class _Loop:
    """One call of `parallel_for`: the chunks still to do, and the helpers that are at it."""

    def __init__(self, fn: Callable[[Any], object], items: Sequence[Any]):
        self.fn, self.items = fn, items
        self.next = itertools.count()  # its `next` is atomic
        self.left = len(items)  # chunks not yet finished
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self, helpers: int) -> None:
        _pool.start(helpers)
        for _ in range(helpers):
            _pool.queue.put((contextvars.copy_context(), self.work))
        contextvars.copy_context().run(self.work)
        try:
            self.done.wait()
        except KeyboardInterrupt as error:
            self.error = error  # the helpers stop after the chunk they are at
        # A helper that has yet to come holds this loop, but no arrays.
        self.fn, self.items = _nothing, ()
        if self.error is not None:
            raise self.error

    def work(self) -> None:
        """Do chunks until none is left; a helper that comes too late finds nothing to do."""
        _inside.set(True)
        while (index := next(self.next)) < len(self.items):
            try:
                if self.error is None:
                    self.fn(self.items[index])
            except BaseException as error:
                self.error = error
            with self.lock:
                self.left -= 1
                if self.left == 0:
                    self.done.set()


def _nothing(_: Any) -> None:
    """Do nothing."""


class _Pool:
    """Threads that wait for work, started when first needed."""

    def __init__(self, threads: int):
        self.threads = threads
        self.started = 0
        self.lock = threading.Lock()
        self.queue: SimpleQueue[tuple[contextvars.Context, Callable[[], None]]] = SimpleQueue()

    def start(self, helpers: int) -> None:
        """Make sure that there are so many threads to help."""
        if self.started < helpers:
            with self.lock:
                while self.started < helpers:
                    self.started += 1
                    name = f"tinyvid kernels {self.started}"
                    threading.Thread(target=self.serve, name=name, daemon=True).start()

    def serve(self) -> None:
        _blas.set(1)  # some builds of BLAS keep the number for each thread
        while True:
            context, work = self.queue.get()
            context.run(work)
            del context, work  # else the last loop's arrays live until the next one


class _Blas:
    """The number of threads of NumPy's BLAS, held at one while any block asks for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.libraries: list[Any] | None = None  # found once: the search takes milliseconds
        self.before: list[int] = []

    def enter(self) -> None:
        with self.lock:
            if self.depth == 0:
                if self.libraries is None:
                    from threadpoolctl import ThreadpoolController

                    found = ThreadpoolController().select(user_api="blas")
                    self.libraries = found.lib_controllers
                self.before = [library.get_num_threads() for library in self.libraries]
                self.set(1)
            self.depth += 1

    def leave(self) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                self.set(self.before)

    def set(self, threads: int | list[int]) -> None:
        """Set one number for all libraries, or a number for each."""
        libraries = self.libraries or []
        numbers = [threads] * len(libraries) if isinstance(threads, int) else threads
        for library, number in zip(libraries, numbers, strict=True):
            library.set_num_threads(number)


def _default_threads() -> int:
    asked = os.environ.get("TINYVID_NUM_THREADS", "")
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise UserError(f"TINYVID_NUM_THREADS={asked!r}: give an int of at least 1")
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _after_fork() -> None:
    """Start afresh in a forked child: it has none of the threads, and perhaps a locked lock."""
    global _pool, _blas
    if _blas.depth:
        _blas.set(_blas.before)
    _pool, _blas = _Pool(_pool.threads), _Blas()


_pool = _Pool(_default_threads())
_blas = _Blas()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
