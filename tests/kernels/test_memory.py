"""Buffers used again: never while anything refers to them, and never more than was needed."""

import gc
import os
import threading
import warnings
import weakref

import numpy as np
import pytest

from tinyvid.kernels import memory
from tinyvid.kernels.threads import Scratch

f32 = np.float32
SIDE = 1024  # SIDE × SIDE of float32: 4 MiB
BYTES = SIDE * SIDE * 4


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    memory.release()
    lent = memory.held()[0]
    yield
    gc.collect()
    assert memory.held()[0] == lent, "a buffer was not given back"
    memory.release()


def address(array):
    return array.__array_interface__["data"][0]


def square():
    return memory.empty((SIDE, SIDE), f32)


@pytest.mark.parametrize("shape", [(), 0, 7, (3, 0), (2, 3), (SIDE, SIDE), SIDE * SIDE, (2**19, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, f32, np.float64])
def test_what_is_returned_is_an_array_as_numpy_makes_it(shape, dtype):
    want, got = np.empty(shape, dtype), memory.empty(shape, dtype)
    assert (got.shape, got.dtype, got.strides) == (want.shape, want.dtype, want.strides)
    assert got.flags.writeable
    assert got.flags.c_contiguous
    if got.nbytes >= memory.LARGE:
        assert address(got) % 64 == 0
    got[...] = 1
    assert (got == 1).all()


def test_objects_are_not_kept_in_buffers():
    assert memory.empty(memory.LARGE, object)[0] is None


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_order_of_the_axes_is_that_of_the_array(axes):
    like = np.zeros((64, 80, 96), f32).transpose(axes)
    got = memory.empty_like(like)
    assert (got.shape, got.strides, got.dtype) == (like.shape, like.strides, like.dtype)
    assert memory.empty_like(np.zeros((), f32)).shape == ()


def test_an_array_that_is_gone_is_used_again():
    array = square()
    before = address(array)
    del array
    assert memory.held() == (0, BYTES)
    assert address(square()) == before


# What may be all that is left of an array: each must keep its buffer from being lent again.
VIEWS = {
    "array": lambda a: a,
    "part": lambda a: a[3:, ::2],
    "part of a part": lambda a: a[3:].T[::2][..., None],
    "other dtype": lambda a: a.view(np.int32).reshape(-1)[5:9],
    "broadcast": lambda a: np.broadcast_to(a[0], (2, SIDE)),
    "strided": lambda a: np.lib.stride_tricks.as_strided(a, (5,), (8,)),
    "windows": lambda a: np.lib.stride_tricks.sliding_window_view(a, (2, 2)),
    "read-only": lambda a: [a.setflags(write=False), a[1:]],
    "element": lambda a: a[5:6, 7:8].squeeze(),
    "memoryview": memoryview,
    "buffer": lambda a: np.frombuffer(a, f32),
    "interface": lambda a: np.asarray(memoryview(a)),
    "iterator": lambda a: a.flat,
    "closure": lambda a: lambda: a,
    "subclass": lambda a: a.view(np.matrix),
    "record": lambda a: a.view([("x", f32), ("y", f32)])["y"],
    "DLPack": np.from_dlpack,
    "cycle": lambda a: (lambda held: held.append(held) or held)([a]),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_whatever_refers_to_a_buffer_keeps_it(kind):
    array = square()
    array[...] = 7
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of np.matrix
        view = VIEWS[kind](array)
    before = address(array)
    del array
    gc.collect()
    others = [square() for _ in range(3)]
    assert before not in map(address, others)
    for other in others:
        other[...] = 0
    assert memory.held()[0] == 4 * BYTES
    del view, other
    gc.collect()
    assert memory.held() == (3 * BYTES, BYTES)


def test_no_more_is_kept_than_was_needed_at_once():
    arrays = [memory.empty(2**20 * n, np.uint8) for n in (4, 8, 16)]  # 28 MiB at most
    del arrays
    assert sum(memory.held()) == 28 << 20
    big = memory.empty(20 << 20, np.uint8)  # fits none of them: the oldest make room
    assert memory.held()[0] == 20 << 20
    assert sum(memory.held()) <= 28 << 20
    bigger = memory.empty(64 << 20, np.uint8)
    assert memory.held() == (84 << 20, 0)
    del big, bigger


def test_a_buffer_that_is_much_too_large_is_left_for_another():
    large, other = memory.empty(64 << 20, np.uint8), square()
    before = address(large)
    del large, other
    small = memory.empty(4 << 20, np.uint8)
    near = memory.empty(60 << 20, np.uint8)
    assert address(near) == before != address(small)


def test_release_gives_back_what_is_kept_and_nothing_that_is_lent():
    kept, gone = square(), square()
    kept[...] = 3
    del gone
    memory.release()
    assert memory.held() == (BYTES, 0)
    more = [square() for _ in range(2)]
    for array in more:
        array[...] = 0
    assert (kept == 3).all()


def test_threads_never_share_a_buffer():
    faults = []

    def work(number):
        for i in range(40):
            array = memory.empty(memory.LARGE // 4 + (i % 3) * 1000, f32)
            array[:] = number
            view = array[::7]
            del array
            if not (view == number).all():
                faults.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_scratch_space_of_a_kernel_is_used_by_the_next():
    before = address(Scratch().get("patches", (SIDE, SIDE), f32))
    assert address(Scratch().get("transformed", (SIDE * SIDE,), f32)) == before


def test_a_child_has_its_own_copy_of_every_buffer():
    array = square()
    array[...] = 5
    pid = os.fork()
    if pid == 0:
        other = square()
        other[...] = 0
        os._exit(0 if (array == 5).all() else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_buffer_comes_back_when_the_last_view_goes_and_not_before():
    array = square()
    buffer = weakref.ref(array.base)
    view = array[1:]
    del array
    assert buffer() is not None
    del view
    assert buffer() is None


def test_what_is_kept_makes_room_where_no_other_memory_is_left():
    room = [3 * BYTES]

    def new(size):
        if size > room[0]:
            raise MemoryError
        room[0] -= size
        buffer = np.empty(size, np.uint8)
        weakref.finalize(buffer, lambda: room.__setitem__(0, room[0] + size))
        return buffer

    store = memory.Store(new)
    for buffer in [store.take(BYTES) for _ in range(3)]:
        store.returned.append(buffer)
    del buffer
    store.most = 9 * BYTES  # as if more had been needed before, so that nothing must go
    large = store.take(2 * BYTES)
    assert (large.size, store.held()) == (2 * BYTES, (2 * BYTES, 0))
    with pytest.raises(MemoryError):
        store.take(2 * BYTES)
    assert store.held() == (2 * BYTES, 0)
