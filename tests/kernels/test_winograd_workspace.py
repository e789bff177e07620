"""The memory that Winograd's algorithm says that it takes is what it takes."""

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
