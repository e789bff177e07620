"""The memory that variants on the processor say that they take is what they take."""

import gc
import tracemalloc

import numpy as np
import pytest

from tinyvid import kernels
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import memory
from tinyvid.kernels.conv3d.workspace import winograd
from tinyvid.kernels.threads import get_num_threads, set_num_threads

# x, w: filters that are kept, and filters that are transformed block by block
CASES = [
    ((1, 5, 4, 9, 9), (17, 5, 3, 3, 3)),
    ((1, 64, 2, 7, 7), (96, 64, 3, 3, 3)),
    ((1, 160, 2, 6, 6), (176, 160, 3, 3, 3)),
    ((2, 32, 3, 20, 20), (33, 32, 1, 3, 3)),
]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = get_num_threads()
    set_num_threads(request.param)
    yield request.param
    set_num_threads(before)


@pytest.mark.parametrize("pass_", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_what_it_says_is_what_it_takes(pass_, case, threads, monkeypatch):
    x, w = CASES[case]
    geometry = conv_geometry(x, w, 1, tuple(n // 2 for n in w[2:]))
    shapes = {"fprop": (x, w), "dgrad": (geometry.y, w), "wgrad": (geometry.y, x)}[pass_]
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    run = getattr(kernels, f"conv3d_{pass_}").variants["cpu/winograd"].function
    taken = []
    take = memory.Store.take

    def noted(store, size):
        taken.append(size)
        return take(store, size)

    monkeypatch.setattr(memory.Store, "take", noted)
    run(*arrays, geometry)
    result = 4 * np.prod({"fprop": geometry.y, "dgrad": x, "wgrad": w}[pass_])
    copies = [4 * np.prod(shape) for shape in shapes]  # into channels-last memory
    told = [size for size in winograd(pass_)(*arrays, geometry) if size >= memory.LARGE]
    for size in taken:
        assert size in told or size == result or size in copies
    # A thread that comes too late takes nothing.
    assert set(told) <= set(taken)
    assert len(told) >= sum(size in told for size in taken)


# x, w, stride: one block of patches and several, sums in slabs, strides, no patches at all, groups
OTHERS = [
    ((2, 24, 4, 14, 14), (40, 24, 3, 3, 3), 1),
    ((1, 96, 2, 7, 7), (64, 96, 3, 3, 3), 1),
    ((2, 16, 5, 15, 15), (48, 16, 3, 3, 3), (1, 2, 2)),
    ((4, 64, 4, 14, 14), (96, 64, 1, 1, 1), 1),
    ((2, 32, 4, 14, 14), (64, 16, 3, 3, 3), 1),
    ((16, 3, 8, 32, 32), (12, 3, 3, 3, 3), 1),
]


@pytest.mark.parametrize("pass_", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("variant", ["cpu/im2col", "cpu/direct"])
@pytest.mark.parametrize("case", range(len(OTHERS)))
def test_what_others_say_is_near_what_numpy_allocates(pass_, variant, case):
    x, w, stride = OTHERS[case]
    padding = tuple(n // 2 for n in w[2:])
    geometry = conv_geometry(x, w, stride, padding, groups=x[1] // w[1])
    shapes = {"fprop": (x, w), "dgrad": (geometry.y, w), "wgrad": (geometry.y, x)}[pass_]
    # Channels last in memory, as in a network; of a filter they are not.
    arrays = [np.ones((n, *rest, c), np.float32) for n, c, *rest in shapes]
    arrays = [np.moveaxis(array, -1, 1) for array in arrays]
    if pass_ != "wgrad":
        arrays[1] = np.ascontiguousarray(arrays[1])
    kernel = getattr(kernels, f"conv3d_{pass_}").variants[variant]
    before = get_num_threads()
    set_num_threads(1)
    try:
        kernel.function(*arrays, geometry)
        told = sum(kernel.workspace(*arrays, geometry))
        gc.collect()
        memory.release()
        tracemalloc.start()
        result = kernel.function(*arrays, geometry)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        memory.release()
        set_num_threads(before)
    # Beside arrays of weights there are views, tables of taps and Python's objects.
    assert abs(told + result.nbytes - most) < 0.15 * most + 2**15
