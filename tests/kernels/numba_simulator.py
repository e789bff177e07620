"""The variants of Numba in its simulator; `test_numba_cuda.py` runs this in a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/kernels/numba_simulator.py

NumPy would take a negative index from the end, and the simulator hands out shared memory of zeros.
Here an index out of range fails, and what was never written is NaN, in shared memory too.
"""

import numpy as np
import pytest
from compare import assert_close
from conv_checks import PASSES, TAKES, arguments, expected, layouts

from tinyvid import kernels
from tinyvid.kernels.conv3d import cuda
from tinyvid.kernels.conv3d import numba_cuda as conv3d
from tinyvid.kernels.conv3d.cases import CASES as CONV3D
from tinyvid.kernels.registry import simulated

if not simulated():
    pytest.exit("set NUMBA_ENABLE_CUDASIM=1 before Python starts", returncode=2)

from numba.cuda.simulator import kernelapi
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
by_pass = pytest.mark.parametrize("pass_", PASSES)


@pytest.fixture(autouse=True)
def strict_memory(monkeypatch):
    """Refuse indices out of range; fill shared memory with NaN."""

    def checked(method):
        def access(self, index, *value):
            for i in index if isinstance(index, tuple) else (index,):
                assert isinstance(i, slice) or i >= 0, f"index {index}"
            return method(self, index, *value)

        return access

    for name in ("__getitem__", "__setitem__"):
        monkeypatch.setattr(FakeCUDAArray, name, checked(getattr(FakeCUDAArray, name)))
    shared = kernelapi.FakeCUDAShared.__init__

    def filled(self, size):
        shared(self, size)
        self._dynshared[:] = -1  # bytes of 0xFF: NaN

    monkeypatch.setattr(kernelapi.FakeCUDAShared, "__init__", filled)


def on_emulator(variant: str, kernel, *args):
    with kernels.use(**{kernel.name: variant}):
        return kernel(*args, device="emulator")


# ---- 3-D convolution -----------------------------------------------------------------------------

# Every way to stride, pad, dilate and group; of little work, as a thread is one of Python.
NAMES = {
    "naive": {
        "float32": (
            "one_cell_padded filter_is_input pointwise_groups stride_over_filter "
            "stride_and_dilation same_even_filter groups_stride depthwise padding_over_filter"
        ),
        "float64": "all_ones pointwise_stride same_dilated depthwise_twofold",
    },
}
CONVOLUTIONS = [
    pytest.param(step, pass_, case, np.dtype(dtype).type, id=f"{step}-{pass_}-{case.name}-{dtype}")
    for step, of_dtype in NAMES.items()
    for dtype, names in of_dtype.items()
    for case in CONV3D
    if case.name in names.split()
    for pass_ in PASSES
]


@pytest.mark.parametrize(("step", "pass_", "case", "dtype"), CONVOLUTIONS)
def test_conv3d(step, pass_, case, dtype):
    """On whole numbers sums are exact, so results equal the reference's bit for bit."""
    kernel = getattr(kernels, f"conv3d_{pass_}")
    given = arguments(case, dtype)
    got = on_emulator(f"numba/{step}", kernel, *(given[a] for a in TAKES[pass_]), case.geometry)
    assert_close(got, expected("conv3d", pass_, case, dtype))
    assert np.moveaxis(got, 1, -1).flags.c_contiguous, "the output is not channels-last"


@pytest.mark.parametrize("step", conv3d.KERNELS)
@by_pass
def test_conv3d_takes_any_order_in_memory(step, pass_):
    case = next(case for case in CONV3D if case.name == "pointwise_groups")
    given = arguments(case, np.float32)
    first, second = TAKES[pass_]
    for (_, a), (_, b) in zip(layouts(given[first]), layouts(given[second]), strict=True):
        a.flags.writeable = b.flags.writeable = False
        got = getattr(conv3d, pass_)(a, b, case.geometry, step=step, device="emulator")
        assert_close(got, expected("conv3d", pass_, case, np.float32))


@pytest.mark.parametrize("step", conv3d.KERNELS)
@by_pass
def test_conv3d_takes_no_clips(step, pass_):
    case = next(case for case in CONV3D if case.name == "pointwise")
    empty = type(case)("empty", (0, *case.x[1:]), case.w)
    given = arguments(empty, np.float32)
    arrays = [given[letter] for letter in TAKES[pass_]]
    got = getattr(conv3d, pass_)(*arrays, empty.geometry, step=step, device="emulator")
    assert_close(got, np.zeros(getattr(empty.geometry, cuda.OUTPUT[pass_]), np.float32))


def test_sums_keep_what_rounding_takes():
    """A plain sum of float32 in this order loses every one of the small terms."""
    case = next(case for case in CONV3D if case.name == "columns_over_block")
    x = np.full((1, case.x[1], 1, 1, 1), 2.0**-24, np.float32)
    x[:, 0] = 1
    w = np.ones((1, case.x[1], 1, 1, 1), np.float32)
    one = type(case)("sum", x.shape, w.shape)
    for step in conv3d.KERNELS:
        y = conv3d.fprop(x, w, one.geometry, step=step, device="emulator")
        assert y[0, 0, 0, 0, 0] == np.float32(1 + 519 * 2.0**-24)
