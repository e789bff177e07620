"""3-D convolution in CUDA C++ without tensor cores, on the emulator: naive, tiled, implicit GEMM.

On whole numbers every order of summation is exact, so results must equal the reference's, bit for
bit. An output that no thread writes stays NaN (`launch.empty`). How much rounding costs is
measured in `test_conv3d_rounding.py`.
"""

import re
import shutil

import numpy as np
import pytest
from compare import assert_close
from conv_checks import PASSES, TAKES, arguments, expected, layouts, reals, small

from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import cuda
from tinyvid.kernels.conv3d.cases import CASES, ConvCase
from tinyvid.kernels.conv3d.programs import LAYER
from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.check import check
from tinyvid.kernels.inspection.compile import compile_file, is_available
from tinyvid.kernels.inspection.loops import loops
from tinyvid.kernels.inspection.sass import functions

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the emulator needs a C++17 compiler",
)

STEPS = ("naive", "tiled", "implicit_gemm")
SCHEDULES = [("forward", "late"), ("reversed", "early"), ("shuffled", "late")]
by_step = pytest.mark.parametrize("step", STEPS)
by_pass = pytest.mark.parametrize("pass_", PASSES)
CASE = {case.name: case for case in CASES}


def run(step: str, pass_: str, given: dict, geometry, **more) -> np.ndarray:
    arrays = [given[letter] for letter in TAKES[pass_]]
    return getattr(cuda, pass_)(*arrays, geometry, step=step, device="emulator", **more)


def check_exact(step: str, pass_: str, case: ConvCase, dtype=np.float32, **more) -> None:
    got = run(step, pass_, arguments(case, dtype), case.geometry, **more)
    assert_close(got, expected("conv3d", pass_, case, dtype))
    assert np.moveaxis(got, 1, -1).flags.c_contiguous, "the output is not channels-last"


# ---- every case, every order ---------------------------------------------------------------------


@needs_compiler
@by_step
@by_pass
@pytest.mark.parametrize("case", small(CASES))
def test_every_case(step, pass_, case):
    why = cuda.unfit(step, pass_, case.geometry)
    assert why is None, "these steps take every case"
    for schedule, copies in SCHEDULES[: 1 if case.geometry.macs > 10**6 else None]:
        with options(schedule=schedule, copies=copies):
            check_exact(step, pass_, case)
    check_exact(step, pass_, case, np.float64)


@needs_compiler
@by_pass
def test_inputs_may_lie_in_any_order(pass_):
    case = CASE["groups"]
    given = arguments(case, np.float32)
    first, second = TAKES[pass_]
    for (name, a), (_, b) in zip(layouts(given[first]), layouts(given[second]), strict=True):
        before = a.copy(), b.copy()
        a.flags.writeable = b.flags.writeable = False
        got = run("implicit_gemm", pass_, {first: a, second: b}, case.geometry)
        assert_close(got, expected("conv3d", pass_, case, np.float32))
        assert np.array_equal(a, before[0]), name
        assert np.array_equal(b, before[1]), name


@needs_compiler
@by_step
def test_sizes_compiled_in(step):
    case = ConvCase("all", (2, 8, 7, 8, 9), (6, 4, 2, 3, 3), (2, 3, 4), (1, 2, 3), (3, 2, 2), 2)
    for pass_ in PASSES:
        check_exact(step, pass_, case, specialised=True)


@needs_compiler
@by_step
@by_pass
def test_checker_finds_nothing(step, pass_):
    for case in (CASE["groups_stride"], ConvCase("chunks", (1, 8, 3, 4, 5), (8, 8, 1, 3, 3))):
        given = arguments(case, np.float32)
        report = check(lambda c=case, g=given: run(step, pass_, g, c.geometry), ["shuffled"])
        assert report.launches > 0
        assert report.findings == []


# ---- one below, at and one above the borders of tiles --------------------------------------------

# Of the implicit GEMM: rows 128 (64), columns 32, 64, 128 (16, 32, 64), a stage of 16 (8) terms, a
# slab of 96, a chunk of 4 (2); brackets: float64. C, K and cells are each of these in some pass.
SIZES = {
    "implicit_gemm": [
        (C, K, (1, 1, cells), (1, 1, 1))
        for C, K, cells in [
            (15, 31, 127),
            (16, 32, 128),
            (17, 33, 129),
            (31, 63, 63),
            (32, 64, 64),
            (33, 65, 65),
            (127, 15, 31),
            (128, 16, 32),
            (129, 17, 33),
            (63, 127, 7),
            (64, 128, 8),
            (65, 129, 9),
            (95, 97, 96),
            (3, 5, 15),
            (4, 4, 16),
            (5, 3, 17),
        ]
    ],
    # Boxes of 2 x 2 x 4 cells and 16 channels; of wgrad 4 x 4 x 4 cells, 4 channels and 16 taps.
    "tiled": [
        (15, 17, (2, 2, 4), (1, 3, 5)),
        (16, 16, (1, 1, 3), (2, 2, 4)),
        (17, 15, (3, 3, 5), (1, 1, 17)),
        (3, 5, (4, 4, 4), (1, 1, 1)),
        (4, 4, (3, 3, 3), (1, 1, 1)),
        (5, 3, (5, 5, 5), (1, 1, 1)),
    ],
    # Blocks of 256 elements.
    "naive": [(C, 1, (1, 1, C), (1, 1, 1)) for C in (255, 256, 257)],
}


@needs_compiler
@by_pass
@pytest.mark.parametrize(
    ("step", "C", "K", "cells", "taps"), [(step, *s) for step in STEPS for s in SIZES[step]]
)
def test_borders_of_tiles(step, pass_, C, K, cells, taps):
    case = ConvCase("border", (1, C, *cells), (K, C, *taps), padding="same")
    check_exact(step, pass_, case)
    check_exact(step, pass_, case, np.float64)


@needs_compiler
def test_phases_with_fewer_terms_than_slices():
    # Along W one phase of dgrad meets three taps and the other none: some slices sum up nothing.
    case = ConvCase("phases", (1, 4, 1, 1, 9), (512, 4, 1, 1, 3), (1, 1, 2), (0, 0, 2), (1, 1, 2))
    plan = cuda.STEPS["implicit_gemm"].plan("dgrad", case.geometry, np.dtype(np.float32))
    assert plan.slices > 1
    check_exact("implicit_gemm", "dgrad", case)


# ---- sums ----------------------------------------------------------------------------------------


@needs_compiler
@by_step
@by_pass
def test_runs_agree_to_the_bit(step, pass_):
    case = ConvCase("cut", (2, 16, 4, 8, 8), (16, 16, 3, 3, 3), padding=1)
    plan = cuda.STEPS[step].plan(pass_, case.geometry, np.dtype(np.float32))
    assert (plan.slices > 1) == (step == "implicit_gemm" or (step, pass_) == ("tiled", "wgrad"))
    given = arguments(case, np.float32, reals)
    results = []
    for workers, schedule in ((1, "forward"), (2, "reversed"), (2, "shuffled")):
        with options(workers=workers, schedule=schedule):
            results.append(run(step, pass_, given, case.geometry))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


# ---- machine code --------------------------------------------------------------------------------


@pytest.mark.skipif(not is_available(), reason="needs NVRTC: pip install 'tinyvid[inspect]'")
@by_pass
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_stage_loop_multiplies(pass_, arch):
    """Of all instructions run in a stage of the sum, copies and inner loops included."""
    geometry = CASE[LAYER].geometry
    assert cuda.STEPS["implicit_gemm"].plan(pass_, geometry, np.dtype(np.float32)).threads == 256
    constants = cuda.constants("implicit_gemm", pass_, geometry, np.float32)
    file = launch.KERNELS / "conv3d" / "implicit_gemm.cu"
    kernel = functions(compile_file(file, arch, constants))[f"conv3d_{pass_}_implicit_gemm"]

    def of(loop, opcode: str) -> list:
        return [i for i in loop.instructions if i.opcode.split(".")[0] == opcode]

    working = [loop for loop in loops(kernel) if of(loop, "FFMA") and of(loop, "LDGSTS")]
    stage = min(working, key=lambda loop: len(loop.instructions))
    multiply_adds = 8 * 8 * 16
    times = multiply_adds // len(of(stage, "FFMA"))  # of an inner loop over the terms
    size = len(stage.own) + times * (len(stage.instructions) - len(stage.own))
    assert multiply_adds >= 0.85 * size
    assert {i.width for i in of(stage, "LDGSTS")} == {128}
    assert not of(stage, "LDG")


# ---- bias and ReLU -------------------------------------------------------------------------------


@needs_compiler
@by_step
@pytest.mark.parametrize("name", ["groups", "columns_over_block"])
def test_bias_and_relu(step, name):
    case = CASE[name]
    given = arguments(case, np.float32)
    bias = np.arange(case.w[0], dtype=np.float32) - 2
    y = expected("conv3d", "fprop", case, np.float32)
    biased = y + bias[:, None, None, None]
    zero = np.float32(0)

    def fprop(**more):
        return run(step, "fprop", given, case.geometry, **more)

    assert (biased < 0).any()
    assert_close(fprop(bias=bias), biased)
    assert_close(fprop(bias=bias[::-1].copy()[::-1]), biased)
    assert_close(fprop(relu=True), np.maximum(y, zero))
    assert_close(fprop(bias=bias, relu=True), np.maximum(biased, zero))


@needs_compiler
@by_step
def test_relu_keeps_nan(step):
    case = CASE["pointwise"]
    given = arguments(case, np.float32)
    given["x"][0, 0, 0, 0, 0] = np.nan
    y = run(step, "fprop", given, case.geometry, relu=True)
    assert np.isnan(y[0, :, 0, 0, 0]).all()
    assert np.isnan(y).sum() == case.w[0]


# ---- the launcher --------------------------------------------------------------------------------


def test_members_are_those_of_the_header():
    text = (launch.KERNELS / "conv3d" / "geometry.cuh").read_text()
    listed = text.partition("define GEOMETRY_MEMBERS(MEMBER)")[2].partition("#ifdef")[0]
    assert [*cuda.members(CASE["plain"].geometry)] == re.findall(r"MEMBER\((\w+)\)", listed)


def test_members_of_a_geometry():
    geometry = conv_geometry((1, 4, 5, 6, 7), (8, 2, 1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 1, 2), 2)
    members = cuda.members(geometry)
    assert [members[name] for name in "NCDHWKTRSZPQ"] == [1, 4, 5, 6, 7, 8, 1, 2, 3, 5, 4, 3]
    assert [members[f"stride_{axis}"] for axis in "dhw"] == [1, 2, 3]
    assert [members[f"padding_{axis}"] for axis in "dhw"] == [0, 1, 2]
    assert [members[f"dilation_{axis}"] for axis in "dhw"] == [1, 1, 2]
    assert members["groups"] == 2


@pytest.fixture
def plain():
    case = CASE["plain"]
    given = arguments(case, np.float32)
    return given["x"], given["w"], case.geometry


def test_refuses_what_does_not_fit(plain):
    x, w, geometry = plain
    with pytest.raises(UserError, match=r"w has shape \(4, 3, 3, 3\)"):
        cuda.fprop(x, w[..., 0], geometry, device="emulator")
    with pytest.raises(UserError, match="both must be float32, or both float64"):
        cuda.fprop(x, w.astype(np.float64), geometry, device="emulator")
    with pytest.raises(UserError, match=r"bias must be \(4,\) of float32, not \(3,\) of float32"):
        cuda.fprop(x, w, geometry, np.zeros(3, np.float32), device="emulator")
    with pytest.raises(UserError, match="the steps of the ladder are naive, tiled, implicit_gemm"):
        cuda.fprop(x, w, geometry, step="fast", device="emulator")
    with pytest.raises(UserError, match=r"device 'cuda' takes CuPy arrays, not numpy\.ndarray"):
        cuda.fprop(x, w, geometry, device="cuda")


def test_tells_why_a_step_cannot_take_a_geometry():
    wide = conv_geometry((1, 1, 300, 300, 300), (1, 1, 3, 3, 3), dilation=100)
    for pass_ in PASSES:
        why = cuda.unfit("tiled", pass_, wide)
        assert re.search("with dilation .* takes [0-9]+ bytes of shared memory; a block has", why)
        assert cuda.unfit("naive", pass_, wide) is None
        assert cuda.unfit("implicit_gemm", pass_, wide) is None
    many = conv_geometry((1, 1, 1, 2**15, 2**15), (1, 1, 1, 1, 1))
    assert "more cells than 2**30" in cuda.unfit("naive", "fprop", many)


def test_out_of_memory_tells_the_sizes(plain, monkeypatch):
    x, w, geometry = plain

    class Module:
        pass

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(launch, "load", lambda *_: Module())
    monkeypatch.setattr(launch, "empty", full)
    with pytest.raises(UserError) as error:
        cuda.fprop(x, w, geometry, device="emulator")
    assert "out of memory for 'cuda/implicit_gemm'" in str(error.value)
    assert "operands (2, 3, 4, 5, 6) float32 of 0.0 MiB" in str(error.value)
    assert "a result (2, 4, 5, 6, 4) float32" in str(error.value)
