"""The variants of Numba in its simulator; `test_numba_cuda.py` runs this in a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/kernels/numba_simulator.py

NumPy would take a negative index from the end, and the simulator hands out shared memory of zeros.
Here an index out of range fails, and what was never written is NaN, in shared memory too.
"""

from dataclasses import replace

import cupy_stand_in
import numpy as np
import pytest
from compare import assert_close
from conv_checks import PASSES, TAKES, arguments, expected, layouts

from tinyvid import cuda as cuda_device
from tinyvid import kernels
from tinyvid.checking.suite import problems, problems_of
from tinyvid.device import to_device
from tinyvid.geometry import pool_geometry
from tinyvid.kernels import numba_launch
from tinyvid.kernels.conv2d.cases import CASES as CONV2D
from tinyvid.kernels.conv3d import numba_cuda as conv3d
from tinyvid.kernels.conv3d.cases import CASES as CONV3D
from tinyvid.kernels.conv3d.cases import ConvCase
from tinyvid.kernels.conv3d.plan import OUTPUT
from tinyvid.kernels.flow import TVL1, reference
from tinyvid.kernels.flow.cases import Case
from tinyvid.kernels.flow.launches import frames
from tinyvid.kernels.flow.numba_cuda import naive_tvl1, tiled_tvl1
from tinyvid.kernels.flow.numba_tiled import INNER
from tinyvid.kernels.numba_launch import cuda, run
from tinyvid.kernels.registry import simulated

if not simulated():
    pytest.exit("set NUMBA_ENABLE_CUDASIM=1 before Python starts", returncode=2)

from numba.cuda.simulator import kernelapi
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

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


def name(value) -> str:
    """How a parameter is called in the name of a test."""
    return getattr(value, "name", str(value))


def on_emulator(variant: str, kernel, *args):
    with kernels.use(**{kernel.name: variant}):
        return kernel(*args, device="emulator")


# ---- 3-D convolution -----------------------------------------------------------------------------

# A thread is one of Python here: a tenth of a second for each hundred of them.
NAIVE = {
    "float32": (
        *("filter_is_input", "stride_over_filter", "stride_and_dilation"),
        *("same_even_filter", "groups_stride", "padding_over_filter"),
    ),
    "float64": ("all_ones", "same_dilated"),
}
# One more than a box of cells, than a tile of channels or taps, than the channels of a chunk.
TILED = [
    ConvCase("boxes", (1, 1, 1, 3, 5), (1, 1, 1, 2, 2), padding=(0, 0, 1)),
    ConvCase("chunks", (1, 17, 1, 1, 2), (2, 17, 1, 1, 2)),
    ConvCase("columns", (1, 2, 1, 2, 2), (17, 2, 1, 2, 2)),
    ConvCase("taps", (1, 1, 3, 3, 3), (1, 1, 3, 3, 2), padding=(1, 0, 0)),
    ConvCase("all", (1, 4, 3, 2, 4), (4, 2, 2, 1, 2), (2, 1, 3), (1, 0, 2), (1, 2, 2), 2),
]
CONVOLUTIONS = [
    *[("naive", case, d) for d, names in NAIVE.items() for case in CONV3D if case.name in names],
    *[("tiled", case, "float32") for case in TILED],
    ("tiled", TILED[-1], "float64"),
]


@pytest.mark.parametrize(("step", "case", "dtype"), CONVOLUTIONS, ids=name)
@by_pass
def test_conv3d(step, pass_, case, dtype):
    """On whole numbers sums are exact, so results equal the reference's bit for bit."""
    kernel = getattr(kernels, f"conv3d_{pass_}")
    dtype = np.dtype(dtype).type
    given = arguments(case, dtype)
    got = on_emulator(f"numba/{step}", kernel, *(given[a] for a in TAKES[pass_]), case.geometry)
    assert_close(got, expected("conv3d", pass_, case, dtype))
    assert np.moveaxis(got, 1, -1).flags.c_contiguous, "the output is not channels-last"


@by_pass
def test_conv3d_takes_any_order_in_memory(pass_):
    case = next(case for case in CONV3D if case.name == "pointwise_groups")
    given = arguments(case, np.float32)
    first, second = TAKES[pass_]
    for (_, a), (_, b) in zip(layouts(given[first]), layouts(given[second]), strict=True):
        a.flags.writeable = b.flags.writeable = False
        got = conv3d.run(pass_, a, b, case.geometry, step="naive", device="emulator")
        assert_close(got, expected("conv3d", pass_, case, np.float32))


@pytest.mark.parametrize("step", conv3d.KERNELS)
@by_pass
def test_conv3d_takes_no_clips(step, pass_):
    case = next(case for case in CONV3D if case.name == "pointwise")
    empty = type(case)("empty", (0, *case.x[1:]), case.w)
    given = arguments(empty, np.float32)
    arrays = [given[letter] for letter in TAKES[pass_]]
    got = conv3d.run(pass_, *arrays, empty.geometry, step=step, device="emulator")
    assert_close(got, np.zeros(getattr(empty.geometry, OUTPUT[pass_]), np.float32))


def test_conv3d_sums_keep_what_rounding_takes():
    """A plain sum of float32 in this order loses every one of the small terms."""
    x = np.full((1, 65, 1, 1, 1), 2.0**-25, np.float32)
    x[:, 0] = 1
    case = ConvCase("sum", x.shape, (1, 65, 1, 1, 1))
    w = np.ones(case.w, np.float32)
    y = conv3d.run("fprop", x, w, case.geometry, step="naive", device="emulator")
    assert y[0, 0, 0, 0, 0] == np.float32(1 + 64 * 2.0**-25)
    plain = np.float32(1)
    for term in x[0, 1:, 0, 0, 0]:
        plain += term
    assert plain == 1


# ---- early fusion --------------------------------------------------------------------------------

EARLY_FUSION = [
    *[
        ("naive", case)
        for case in CONV2D
        if case.name in ("clip_stride", "clip_groups_of_channels")
    ],
    *[("naive", case) for case in CONV2D if case.name in ("filter_is_input", "clip_depthwise")],
    ("tiled", ConvCase("clip", (1, 2, 3, 2, 3), (2, 6, 2, 2), padding=(0, 1))),
]


@pytest.mark.parametrize(("step", "case"), EARLY_FUSION, ids=name)
@by_pass
def test_conv2d(step, pass_, case):
    given = arguments(case, np.float32)
    kernel = getattr(kernels, f"conv2d_{pass_}")
    got = on_emulator(f"numba/{step}", kernel, *(given[a] for a in TAKES[pass_]), case.geometry)
    assert_close(got, expected("conv2d", pass_, case, np.float32))


# ---- pooling, the LSTM, optical flow -------------------------------------------------------------


SMALL = {
    "pool3d": {
        "float32": (
            *("overhang, padding not counted", "divisor given", "dilation with padding"),
            "four channels of few cells, overlap",
        ),
        "float64": ("single cell", "overhang"),
    },
    "lstm": {
        "float32": ("one hidden unit", "unequal lengths, reversed"),
        "float64": ("all ones", "none reaches the end"),
    },
    "tvl1": {"float32": ("two warps",), "float64": ("a row of pixels more",)},
    "horn_schunck": {"float32": ("two iterations, no median",), "float64": ("least",)},
}
PROBLEMS = [
    pytest.param(kernel, problem, dtype, id=f"{kernel.name}-{problem.name}-{dtype}")
    for kernel in kernels.kernels()
    for dtype, names in SMALL.get(kernel.op.removeprefix("max_").removeprefix("avg_"), {}).items()
    for problem in problems(kernel.op)
    if problem.name in names
]


@pytest.mark.parametrize(("kernel", "problem", "dtype"), PROBLEMS)
def test_agrees_with_the_reference(kernel, problem, dtype):
    rng = np.random.default_rng(0)
    args = problem.arguments(kernel.pass_, lambda *shape: rng.standard_normal(shape).astype(dtype))
    got, want = on_emulator("numba/naive", kernel, *args), kernel.variants["reference"].run(*args)
    if not isinstance(want, tuple):
        got, want = (got,), (want,)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, atol=16 * np.finfo(dtype).eps * np.abs(b).max(initial=1))


def test_tiles_of_flow_agree_at_their_borders():
    """Four blocks, and a launch of four iterations before one of one."""
    case = Case("tiles", (1, INNER + 1, INNER + 2), TVL1(levels=1, warps=1, iterations=5))
    first, second = frames(case, np.float64)
    got = tiled_tvl1(first, second, case.settings, device="emulator")
    assert_close(got, reference.tvl1(first, second, case.settings), atol=1e-14)


def test_flow_begins_at_the_smallest_level():
    case = Case("two levels", (1, 16, 17), TVL1(levels=2, warps=1, iterations=1, medians=0))
    first, second = frames(case, np.float64)
    got = naive_tvl1(first, second, case.settings, device="emulator")
    want = reference.tvl1(first, second, case.settings)
    assert_close(got, want, atol=1e-13)
    alone = reference.tvl1(first, second, replace(case.settings, levels=1))
    assert np.abs(alone - want).max() > 0.01


def test_max_pool3d_chooses_among_nan_infinities_and_equals():
    x = np.array([np.nan, -np.inf, 3, 3, -np.inf, -np.inf, np.nan, np.nan], np.float32)
    geometry = pool_geometry((1, 1, 1, 1, 8), (1, 1, 2))
    y, argmax = on_emulator(
        "numba/naive", kernels.max_pool3d_fprop, x.reshape(geometry.x), geometry
    )
    assert np.array_equal(y.ravel(), [np.nan, 3, -np.inf, np.nan], equal_nan=True)
    assert argmax.ravel().tolist() == [0, 0, 0, 1]


# ---- on CuPy's arrays ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kernel", [k for k in kernels.kernels() if "numba/naive" in k.variants], ids=lambda k: k.name
)
def test_launchers_take_cupys_arrays(monkeypatch, kernel):
    """On the stand-in for CuPy; its arrays are the simulator's too."""

    def on_host(function, blocks, threads, inputs, outputs, *numbers, device, shared=0):
        assert device == "cuda"
        arrays = [[array.host for array in arrays] for arrays in (inputs, outputs)]
        run(function, blocks, threads, *arrays, *numbers, device="emulator", shared=shared)

    cupy = cupy_stand_in.install(monkeypatch)
    monkeypatch.setattr(numba_launch, "run", on_host)
    variant = kernel.variants["numba/naive"]
    problem = problems_of(kernel, variant, "emulator")[1]
    rng = np.random.default_rng(0)
    args = problem.arguments(kernel.pass_, lambda *shape: rng.standard_normal(shape))
    there = [to_device(a, "cuda") if isinstance(a, np.ndarray) else a for a in args]
    got, want = variant.run(*there, device="cuda"), kernel.variants["reference"].run(*args)
    if not isinstance(want, tuple):
        got, want = (got,), (want,)
    for a, b in zip(got, want, strict=True):
        assert isinstance(a, cupy.ndarray)
        assert_close(a.host, b, atol=1e-14)
    cuda_device._missing.cache_clear()


# ---- the strictness itself -----------------------------------------------------------------------


def test_strict_memory_notices_faults():
    @cuda.jit
    def reads_before_the_start(x, y):
        y[0] = x[cuda.threadIdx.x - 1]

    @cuda.jit
    def reads_what_nobody_wrote(x, y):
        shared = cuda.shared.array(0, y.dtype)
        if cuda.threadIdx.x == 0:
            shared[0] = x[0]
        cuda.syncthreads()
        y[cuda.threadIdx.x] = shared[cuda.threadIdx.x]

    x, y = np.ones(2, np.float32), np.empty(2, np.float32)
    with pytest.raises(AssertionError, match="index -1"):
        run(reads_before_the_start, 1, 2, [x], [y], device="emulator")
    run(reads_what_nobody_wrote, 1, 2, [x], [y], device="emulator", shared=8)
    assert y[0] == 1
    assert np.isnan(y[1])
