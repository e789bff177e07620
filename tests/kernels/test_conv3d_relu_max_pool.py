"""Convolution with ReLU and max pooling: the reference by hand and brute force, then the others.

On whole numbers every order of summation is exact, so results must equal the loops', bit for bit.
An output that no thread writes stays NaN, or the offset 255 (`launch.empty`).
"""

import math
import shutil

import cupy_stand_in
import numpy as np
import pytest
from compare import assert_close
from conv_checks import brute_force, integers, layouts, reals

import tinyvid
from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry, pool_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d_relu_max_pool import cpu, cuda, reference
from tinyvid.kernels.conv3d_relu_max_pool.cases import CASES, Case
from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.check import check

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the emulator needs a C++17 compiler",
)
SMALL = [case for case in CASES if not case.large]
by_case = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
CASE = {case.name: case for case in CASES}
NAN = math.nan


def arguments(case: Case, dtype=np.float32, make=integers) -> tuple:
    x, w, bias = (
        make(shape, dtype, seed) for seed, shape in enumerate((case.x, case.w, case.w[:1]))
    )
    return x, w, bias, case.geometry, case.pool


def on_emulator(*args, **more):
    y, argmax = cuda.fprop(*args, device="emulator", **more)
    for array in (y, argmax):
        assert np.moveaxis(array, 1, -1).flags.c_contiguous, "the output is not channels-last"
    return y, argmax


def loops(case: Case, x, w, bias) -> tuple[np.ndarray, np.ndarray]:
    """Return y and argmax, a window at a time."""
    filtered = brute_force(case, x, w, np.zeros(case.geometry.y, x.dtype))["fprop"]
    y, argmax = np.zeros(case.pool.y, x.dtype), np.zeros(case.pool.y, np.uint8)
    for n, k, *place in np.ndindex(*case.pool.y):
        box = tuple(
            slice(at * size, (at + 1) * size) for at, size in zip(place, case.window, strict=True)
        )
        cells = [max(value + bias[k], 0) for value in filtered[(n, k, *box)].ravel()]
        y[(n, k, *place)] = max(cells)
        argmax[(n, k, *place)] = cells.index(max(cells))
    return y, argmax


# ---- what it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fprop", [reference.fprop, cpu.fprop, pytest.param(on_emulator, marks=needs_compiler)]
)
def test_by_hand(fprop):
    # 2 x - 3:  1 5 | -1 -3     windows of two rows and two columns: 5 at offset 1, and 0 at
    #          -3 1 | -5 -1     offset 0, the first of four that are all rectified
    x = np.array([[2, 4, 1, 0], [0, 2, -1, 1]], np.float32).reshape(1, 1, 1, 2, 4)
    w, bias = np.full((1, 1, 1, 1, 1), 2, np.float32), np.array([-3], np.float32)
    geometry = conv_geometry(x.shape, w.shape)
    y, argmax = fprop(x, w, bias, geometry, pool_geometry(geometry.y, (1, 2, 2)))
    assert y.ravel().tolist() == [5, 0]
    assert argmax.ravel().tolist() == [1, 0]


LOOPED = [case for case in SMALL if case.geometry.macs <= 20_000]


@pytest.mark.parametrize("case", LOOPED, ids=lambda case: case.name)
def test_reference_and_cpu_against_loops(case):
    x, w, bias, *sizes = arguments(case, np.float64)
    want = loops(case, x, w, bias)
    for fprop in (reference.fprop, cpu.fprop):
        for got, each in zip(fprop(x, w, bias, *sizes), want, strict=True):
            assert_close(got, each)


def test_cpu_and_reference_agree():
    for case in SMALL:
        args = arguments(case)
        for got, want in zip(cpu.fprop(*args), reference.fprop(*args), strict=True):
            assert_close(got, want)


def test_cpu_takes_every_pooling():
    case = CASE["frames apart"]
    x, w, bias, geometry, _ = arguments(case)
    pool = pool_geometry(geometry.y, 3, 2, 1, (1, 2, 1), True)
    for got, want in zip(
        cpu.fprop(x, w, bias, geometry, pool),
        reference.fprop(x, w, bias, geometry, pool),
        strict=True,
    ):
        assert_close(got, want)


# ---- in CUDA C++ ---------------------------------------------------------------------------------


@needs_compiler
@by_case
def test_every_case(case):
    for dtype in (np.float32, np.float64):
        if cuda.unfit(case.geometry, case.pool, dtype) is not None:
            assert dtype == np.float64
            assert math.prod(case.window) > 4
            continue
        args = arguments(case, dtype)
        want = reference.fprop(*args)
        for schedule, copies in (("forward", "late"), ("reversed", "early"), ("shuffled", "late")):
            with options(schedule=schedule, copies=copies):
                for got, each in zip(on_emulator(*args), want, strict=True):
                    assert_close(got, each)


# One below, at and one above the borders: 16 row parts of two windows of four cells, or of one of
# eight; 32 and 64 channels; 128 terms a slab.
@needs_compiler
@pytest.mark.parametrize(
    ("windows", "K", "C", "window"),
    [
        (31, 127, 127, (1, 2, 2)),
        (32, 128, 128, (1, 2, 2)),
        (33, 129, 129, (1, 2, 2)),
        (15, 31, 5, (2, 2, 2)),
        (16, 32, 16, (2, 2, 2)),
        (17, 33, 17, (2, 2, 2)),
        (5, 63, 15, (1, 2, 2)),
        (7, 64, 3, (1, 2, 2)),
        (9, 65, 257, (1, 2, 2)),
    ],
)
def test_borders_of_tiles(windows, K, C, window):
    case = Case("border", (1, C, window[0], 2, 2 * windows), (K, C, 1, 1, 1), window)
    args = arguments(case)
    for got, want in zip(on_emulator(*args), reference.fprop(*args), strict=True):
        assert_close(got, want)


@needs_compiler
def test_without_bias_and_with_nan():
    x, w, _, *sizes = arguments(CASE["frames apart"])
    x[0, 0, 1, 2, 3] = NAN
    y, argmax = on_emulator(x, w, None, *sizes)
    want, at = reference.fprop(x, w, None, *sizes)
    assert 0 < np.isnan(want).sum() < want.size
    assert_close(np.isnan(y), np.isnan(want))
    assert_close(np.nan_to_num(y), np.nan_to_num(want))
    assert_close(argmax, at)


@needs_compiler
def test_inputs_may_lie_in_any_order():
    x, w, bias, *sizes = arguments(CASE["groups"])
    want = reference.fprop(x, w, bias, *sizes)
    for (name, a), (_, b) in zip(layouts(x), layouts(w), strict=True):
        a.flags.writeable = b.flags.writeable = False
        got = on_emulator(a, b, bias[::-1].copy()[::-1], *sizes)
        assert np.array_equal(got[0], want[0]), name
        assert np.array_equal(got[1], want[1]), name


@needs_compiler
def test_rounding_is_bounded():
    case = Case("long", (1, 64, 2, 6, 6), (33, 64, 3, 3, 3), (1, 2, 2), padding=(1, 1, 1))
    args = arguments(case, np.float32, reals)
    want, _ = reference.fprop(*(a.astype(np.float64) for a in args[:3]), *args[3:])
    error = np.abs(on_emulator(*args)[0] - want).max()
    assert error <= 2e-6 * math.sqrt(64 * 27)


@needs_compiler
def test_what_is_pooled_is_never_written(monkeypatch):
    case = CASE["a wide tile"]
    made = []
    empty = launch.empty

    def counted(*args):
        made.append(empty(*args))
        return made[-1]

    args = [np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1) for a in arguments(case)[:2]]
    monkeypatch.setattr(launch, "empty", counted)
    report = check(
        lambda: on_emulator(*args, None, case.geometry, case.pool), ["forward"], ["late"]
    )
    assert report.findings == []
    assert [array.shape for array in made] == [(1, 1, 3, 3, 64)] * 2
    assert [array.itemsize for array in made] == [4, 1]
    stored = [c for c in report.counts if c.space == "global" and c.access == "write"]
    # 9 windows of 64 channels: lanes of a warp write 8 channels of 4 windows.
    assert {count.bytes: count.requests for count in stored} == {4: 3 * 8, 1: 3 * 8}


@needs_compiler
@pytest.mark.parametrize("name", ["over the tiles", "a wide tile", "groups"])
def test_checker_finds_nothing(name):
    report = check(lambda: on_emulator(*arguments(CASE[name])), ["shuffled"])
    assert report.launches > 0
    assert report.findings == []
    # In the product no two lanes wait for one bank.
    assert all(
        c.moved == c.fewest
        for c in report.counts
        if c.place.file.endswith("chunk.cuh") and c.space == "shared"
    )


# ---- the launcher --------------------------------------------------------------------------------


def test_refuses_what_does_not_fit():
    x, w, bias, geometry, pool = arguments(CASE["halves"])
    fprop = kernels.conv3d_relu_max_pool_fprop
    with pytest.raises(UserError, match=r"w has shape \(8, 4, 3, 3\)"):
        fprop(x, w[..., 0], bias, geometry, pool)
    with pytest.raises(UserError, match=r"bias must be \(8,\) of float32, not \(7,\) of float32"):
        fprop(x, w, bias[1:], geometry, pool)
    with pytest.raises(UserError, match=r"bias must be \(8,\) of float32, not a list"):
        fprop(x, w, [1, 2], geometry, pool)
    with pytest.raises(UserError, match=r"pool must be the pool_geometry of \(1, 8, 4, 6, 6\)"):
        fprop(x, w, bias, geometry, pool_geometry((1, 8, 4, 6, 8), 2))
    with pytest.raises(UserError, match=r"device 'cuda' takes CuPy arrays, not numpy\.ndarray"):
        cuda.fprop(x, w, bias, geometry, pool)


@pytest.mark.parametrize(
    ("options", "dtype", "why"),
    [
        (((1, 2, 2), 1), np.float32, "side by side"),
        ((2, 2, 1), np.float32, "side by side"),
        ((2, 2, 0, 1, True), np.float32, "whole windows"),
        ((2, 2, 0, (1, 1, 3)), np.float32, "without dilation"),
        (((1, 3, 3),), np.float32, "at most 8 cells in float32"),
        ((2,), np.float64, "at most 4 cells in float64"),
        ((2,), np.float32, None),
        (((1, 2, 2),), np.float64, None),
    ],
)
def test_tells_why_it_cannot_take_a_pooling(options, dtype, why):
    geometry = conv_geometry((1, 3, 5, 7, 9), (4, 3, 3, 3, 3), padding=1)
    found = cuda.unfit(geometry, pool_geometry(geometry.y, *options), dtype)
    assert found is None if why is None else why in found


@needs_compiler
def test_the_path_of_a_gpu(monkeypatch):
    """Device `cuda` on the stand-in for CuPy, sizes compiled in."""
    x, w, bias, *_ = arguments(CASE["frames apart"])
    want = tinyvid.conv3d_relu_max_pool(x, w, bias, (1, 2, 2), padding=1)
    cupy_stand_in.install(monkeypatch)
    try:
        given = (tinyvid.tensor(a, device="cuda") for a in (x, w, bias))
        y = tinyvid.conv3d_relu_max_pool(*given, (1, 2, 2), padding=1)
        assert y.device == "cuda"
        assert_close(y.numpy(), want.numpy())
    finally:
        monkeypatch.undo()
        tinyvid.cuda._missing.cache_clear()
        launch._load.cache_clear()
