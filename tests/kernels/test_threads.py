"""The thread pool: every chunk once, errors, BLAS held to one thread, callers side by side."""

import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from tinyvid.errors import UserError
from tinyvid.kernels import threads
from tinyvid.kernels.threads import (
    Scratch,
    blas_on_one_thread,
    chunks_of,
    get_num_threads,
    parallel_for,
    set_num_threads,
)


@pytest.fixture(autouse=True)
def _keep_number():
    before = get_num_threads()
    yield
    set_num_threads(before)


def blas_threads() -> list[int]:
    """Of those libraries that are held: NumPy's. Other packages may have loaded theirs since."""
    if threads._blas.libraries is None:
        with blas_on_one_thread():
            pass
    held = {library.filepath for library in threads._blas.libraries}
    blas = ThreadpoolController().select(user_api="blas").lib_controllers
    return [library.get_num_threads() for library in blas if library.filepath in held]


def test_chunks_cover_the_range_once():
    assert chunks_of(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert chunks_of(6, 3) == [slice(0, 3), slice(3, 6)]
    assert chunks_of(0, 3) == []


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_every_chunk_is_done_once(number, count):
    set_num_threads(number)
    done = np.zeros(count, int)

    def work(i):
        done[i] += 1

    parallel_for(work, iter(range(count)))
    assert (done == 1).all()


def test_several_threads_take_part():
    set_num_threads(2)
    both = threading.Barrier(2, timeout=10)
    parallel_for(lambda _: both.wait(), range(2))  # one thread alone would wait for ever


@pytest.mark.parametrize("number", [1, 2])
def test_an_error_stops_the_loop_and_is_raised(number):
    set_num_threads(number)
    done = []

    def work(i):
        if i == 3:
            raise KeyError("chunk 3")
        time.sleep(0.0005)
        done.append(i)

    with pytest.raises(KeyError, match="chunk 3"):
        parallel_for(work, range(1000))
    assert len(done) < 100
    parallel_for(done.append, [-1])  # and the pool lives on
    assert done[-1] == -1


def test_inside_a_chunk_loops_run_inline():
    set_num_threads(2)
    seen = []

    def outer(i):
        me = threading.get_ident()
        parallel_for(lambda j: seen.append((i, j, threading.get_ident() == me)), range(3))

    parallel_for(outer, range(4))
    assert sorted(seen) == [(i, j, True) for i in range(4) for j in range(3)]


def test_helpers_see_the_callers_context():
    set_num_threads(3)
    both = threading.Barrier(3, timeout=10)

    def work(_):
        both.wait()
        return 1 / np.zeros(1)  # a warning, and so an error, but for the caller's errstate

    with np.errstate(divide="ignore"):
        parallel_for(work, range(3))


@pytest.mark.parametrize("chunks", [1, 4])
def test_blas_is_held_to_one_thread_and_set_free(chunks):
    set_num_threads(2)
    before, inside = blas_threads(), []

    def work(_):
        with blas_on_one_thread():
            inside.append(blas_threads())
        inside.append(blas_threads())

    parallel_for(work, range(chunks))
    assert before
    assert all(numbers == [1] * len(before) for numbers in inside)
    assert blas_threads() == before
    with pytest.raises(ZeroDivisionError):
        parallel_for(lambda _: 1 // 0, range(chunks))
    assert blas_threads() == before


def test_callers_side_by_side():
    """Loops started by several threads at once all finish, and BLAS goes back in the end."""
    set_num_threads(2)
    before, totals = blas_threads(), {}

    def caller(name):
        parts = np.zeros(200)
        for _ in range(5):
            parallel_for(lambda i: parts.__setitem__(i, parts[i] + i), range(200))
        totals[name] = parts.sum()

    callers = [threading.Thread(target=caller, args=(name,)) for name in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(timeout=30)
    assert totals == dict.fromkeys(range(4), 5 * 199 * 100.0)
    assert blas_threads() == before


def test_helpers_keep_no_arrays_alive():
    import gc
    import weakref

    set_num_threads(2)
    array = np.zeros(3)
    alive = weakref.ref(array)
    parallel_for(lambda i, array=array: array.__setitem__(i, 1), range(3))
    del array
    for _ in range(100):  # a late helper may still be looking for work
        gc.collect()
        if alive() is None:
            break
        time.sleep(0.01)
    assert alive() is None


def test_scratch_is_reused_and_each_threads_own():
    scratch = Scratch()
    first = scratch.get("a", (2, 3), np.float32)
    assert first.shape == (2, 3)
    assert first.dtype == np.float32
    assert np.shares_memory(scratch.get("a", (4,), np.float32), first)
    assert not np.shares_memory(scratch.get("b", (2, 3), np.float32), first)
    assert scratch.get("a", (2, 3), np.float64).dtype == np.float64
    others = []
    thread = threading.Thread(target=lambda: others.append(scratch.get("a", (2, 3), np.float64)))
    thread.start()
    thread.join()
    assert not np.shares_memory(others[0], scratch.get("a", (2, 3), np.float64))


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True, None])
def test_set_num_threads_refuses(bad):
    with pytest.raises(UserError, match="give an int of at least 1"):
        set_num_threads(bad)


def test_default_number(monkeypatch):
    monkeypatch.delenv("TINYVID_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert threads._default_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert threads._default_threads() == os.cpu_count()
    monkeypatch.setenv("TINYVID_NUM_THREADS", "5")
    assert threads._default_threads() == 5
    for bad in ("0", "many", "-2"):
        monkeypatch.setenv("TINYVID_NUM_THREADS", bad)
        with pytest.raises(UserError, match="TINYVID_NUM_THREADS="):
            threads._default_threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_afresh():
    program = """
import os, numpy as np
from tinyvid.kernels.threads import parallel_for, set_num_threads
set_num_threads(2)
parts = np.zeros(50)
parallel_for(lambda i: parts.__setitem__(i, i), range(50))
child = os.fork()
parallel_for(lambda i: parts.__setitem__(i, 2 * i), range(50))
if child == 0:
    os._exit(int(parts.sum() != 50 * 49))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, timeout=60, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_loop_that_has_ended_holds_no_arrays(monkeypatch):
    started = threading.Event()
    monkeypatch.setattr(threads._Pool, "start", lambda pool, helpers: started.set())  # none comes
    monkeypatch.setattr(threads, "_pool", threads._Pool(4))
    array = np.zeros(3)
    watch = weakref.ref(array)

    def loop(array):
        threads.parallel_for(lambda i: array.sum(), range(8))

    loop(array)
    assert started.is_set()
    assert not threads._pool.queue.empty()
    del array
    assert watch() is None


def test_on_this_thread():
    seen = set()
    with threads.on_this_thread():
        threads.parallel_for(lambda i: seen.add(threading.get_ident()), range(64))
    assert seen == {threading.get_ident()}
