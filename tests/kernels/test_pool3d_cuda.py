"""3-D pooling in CUDA C++ on the emulator: naive, four channels, disjoint windows.

An output that no thread writes stays NaN, or the offset 255 (`launch.empty`).
"""

import math
import re
import shutil

import cupy_stand_in
import numpy as np
import pytest
from compare import assert_close
from conv_checks import layouts

import tinyvid
from tinyvid import kernels, models, optim
from tinyvid.errors import UserError
from tinyvid.geometry import pool_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.check import check
from tinyvid.kernels.inspection.compile import compile_file, is_available
from tinyvid.kernels.inspection.sass import functions
from tinyvid.kernels.pool3d import cuda, reference
from tinyvid.kernels.pool3d.cases import CASES, Case
from tinyvid.kernels.pool3d.launches import arguments
from tinyvid.kernels.pool3d.programs import PROGRAMS, work_of
from tinyvid.tensor import Tensor

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the emulator needs a C++17 compiler",
)

SMALL = {case.name: case for case in CASES if not case.large}
SCHEDULES = ("forward", "reversed", "shuffled")
STEPS = [(step, pass_) for step, taken in cuda.STEPS.items() for pass_ in taken.passes]
by_step = pytest.mark.parametrize(("step", "pass_"), STEPS)
NAN, INF = math.nan, math.inf


def taken_by(step: str, pass_: str) -> list[Case]:
    return [
        case
        for case in SMALL.values()
        if cuda.unfit(step, pass_, case.geometry) is None
        and (pass_.startswith("max") or case.dilation == (1, 1, 1))
    ]


def run(step: str, pass_: str, args: tuple, **more) -> tuple[np.ndarray, ...]:
    got = getattr(cuda, pass_)(*args, step=step, device="emulator", **more)
    got = got if isinstance(got, tuple) else (got,)
    for array in got:
        assert np.moveaxis(array, 1, -1).flags.c_contiguous, "the output is not channels-last"
    return got


def expected(pass_: str, args: tuple) -> tuple[np.ndarray, ...]:
    """Return the reference's results in float64."""
    wide = [a.astype(np.float64) if getattr(a, "dtype", None) == np.float32 else a for a in args]
    want = getattr(reference, pass_)(*wide)
    return want if isinstance(want, tuple) else (want,)


def check_case(step: str, pass_: str, case: Case, dtype, args: tuple | None = None) -> None:
    args = arguments(pass_, case, dtype) if args is None else args
    terms = math.prod(case.window)  # the most that a sum has
    bound = 0 if "fprop" in pass_ and "max" in pass_ else 2e-6 * math.sqrt(terms)
    if dtype == np.float64:
        bound *= 1e-8
    for got, want in zip(run(step, pass_, args), expected(pass_, args), strict=True):
        assert got.dtype == (dtype if want.dtype == np.float64 else want.dtype)
        assert_close(got.astype(want.dtype), want, atol=bound)


# ---- every case, every order ---------------------------------------------------------------------


@by_step
def test_every_case(step, pass_):
    cases = taken_by(step, pass_)
    assert len(cases) >= 5
    for number, case in enumerate(cases):
        with options(schedule=SCHEDULES[number % 3]):
            check_case(step, pass_, case, np.float32)


@by_step
def test_float64(step, pass_):
    for case in taken_by(step, pass_):
        if math.prod(case.window) <= 256:  # wide offsets would be one more build
            check_case(step, pass_, case, np.float64)


def test_cases_reach_every_kind_of_offset_and_box():
    by_four = [case for case in SMALL.values() if case.x[1] % 4 == 0]
    assert {cuda.constants(c.geometry, np.float32).get("WIDE_OFFSETS") for c in by_four} == {
        None,
        1,
    }
    disjoint = taken_by("disjoint_windows", "max_dgrad")
    assert any(case.dilation != (1, 1, 1) for case in disjoint)
    assert any(case.ceil_mode for case in disjoint)
    assert any(case.geometry.padding[0] != (0, 0) for case in disjoint)


@pytest.mark.parametrize("step", ["naive", "four_channels"])
def test_what_wins(step):
    # Ties, infinities and several NaN in a window; what stands in padding never does.
    rng = np.random.default_rng(0)
    values = np.array([-INF, -INF, -1, 0, -0.0, 2, 2, INF, NAN], np.float32)
    for case in taken_by(step, "max_fprop"):
        x = rng.choice(values, case.x)
        x[:, 0] = -INF  # whole windows of nothing else
        y, argmax = run(step, "max_fprop", (x, case.geometry))
        want, at = reference.max_fprop(x, case.geometry)
        assert_close(argmax, at)
        assert_close(np.isnan(y), np.isnan(want))
        assert_close(np.nan_to_num(y, nan=3), np.nan_to_num(want, nan=3))


@by_step
def test_a_number_that_is_not_chosen_leaves_no_trace(step, pass_):
    # Infinities and NaN would spread through a product with zero.
    case = SMALL["four channels"]
    args = arguments(pass_, case)
    args[0][0, 1, 0, 0, 0] = NAN
    for got, want in zip(run(step, pass_, args), expected(pass_, args), strict=True):
        assert_close(np.isnan(got), np.isnan(want))


@by_step
def test_inputs_may_lie_in_any_order(step, pass_):
    case = SMALL["eight channels"]
    array, *rest = arguments(pass_, case)
    want = run(step, pass_, (array, *rest))
    for (name, given), (_, other) in zip(
        layouts(array),
        layouts(rest[0] if pass_ in ("max_dgrad", "max_gather") else array),
        strict=True,
    ):
        more = rest
        if pass_ in ("max_dgrad", "max_gather"):
            more = [other, *rest[1:]]
        before = given.copy()
        given.flags.writeable = False
        for got, same in zip(run(step, pass_, (given, *more)), want, strict=True):
            assert np.array_equal(got, same), name
        assert np.array_equal(given, before), name


@by_step
def test_no_clips_and_no_launch(step, pass_, monkeypatch):
    monkeypatch.setattr(launch, "load", None)
    geometry = pool_geometry((0, 4, 4, 4, 4), 2)
    x, gy = np.zeros(geometry.x, np.float32), np.zeros(geometry.y, np.float32)
    argmax = np.zeros(geometry.y, np.uint8)
    args = {
        "max_fprop": (x, geometry),
        "max_dgrad": (gy, argmax, geometry),
        "max_gather": (x, argmax, geometry),
        "avg_fprop": (x, geometry, True, None),
        "avg_dgrad": (gy, geometry, True, None),
    }[pass_]
    assert run(step, pass_, args)[0].shape == (geometry.x if "dgrad" in pass_ else geometry.y)


def test_runs_agree_to_the_bit():
    case = SMALL["four channels, overlap"]
    for step, pass_ in STEPS:
        if case not in taken_by(step, pass_):
            continue
        results = []
        for workers, schedule in ((1, "forward"), (2, "reversed"), (2, "shuffled")):
            with options(workers=workers, schedule=schedule):
                results.append(run(step, pass_, arguments(pass_, case))[0])
        assert np.array_equal(results[0], results[1])
        assert np.array_equal(results[0], results[2])


# ---- memory --------------------------------------------------------------------------------------


def moved(step: str, pass_: str, case: Case):
    """Return the bytes read and written, in whole sectors, and the lines that moved too many."""
    report = check(lambda: run(step, pass_, arguments(pass_, case)), ["forward"], ["late"])
    assert report.findings == []
    sums = {
        access: 32 * sum(count.moved for count in report.counts if count.access == access)
        for access in ("read", "write")
    }
    wasteful = [f"{c.place} {c.access}: {c.ratio}" for c in report.counts if c.moved > c.fewest]
    return sums["read"], sums["write"], wasteful


@pytest.mark.parametrize("window", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize(
    ("step", "pass_"),
    [
        ("four_channels", "max_fprop"),
        ("four_channels", "avg_fprop"),
        ("disjoint_windows", "max_dgrad"),
        ("disjoint_windows", "avg_dgrad"),
    ],
)
def test_one_read_and_one_write_in_the_fewest_sectors(step, pass_, window):
    # Whole sectors of offsets too: 8 channels in each of 4 cells.
    for C in (8, 64):
        case = Case("budget", (2, C, 4, 8, 8), window)
        work = work_of(pass_, case.geometry)
        assert moved(step, pass_, case) == (work.read, work.written, [])


def test_the_count_sees_numbers_that_are_read_again():
    case = Case("budget", (2, 8, 4, 8, 8), (2, 2, 2))
    read, written, _ = moved("four_channels", "max_dgrad", case)
    work = work_of("max_dgrad", case.geometry)
    assert (read > work.read, written) == (True, work.written)


@pytest.mark.parametrize(("C", "most"), [(4, 2), (12, 2), (20, 1.6)])
@pytest.mark.parametrize(
    ("step", "pass_"), [("four_channels", "max_fprop"), ("disjoint_windows", "max_dgrad")]
)
def test_cells_that_end_within_a_sector(step, pass_, C, most):
    # x or gx: half a sector more a cell, and one more where two warps share a cell's first.
    case = Case("budget", (2, C, 4, 8, 8), (2, 2, 2))
    work = work_of(pass_, case.geometry)
    read, written, wasteful = moved(step, pass_, case)
    of_x, once = (read / work.read, written / work.written)[:: 1 if pass_ == "max_fprop" else -1]
    assert (C + 4) / C <= of_x <= most
    assert (once, len(wasteful)) == (1, 1)


def test_gather_reads_each_sector_that_argmax_names_once():
    # The fewest for eight channels in a sector: as many as they have different argmaxes.
    for C in (8, 64):
        case = Case("budget", (2, C, 4, 8, 8), (2, 2, 2))
        _, argmax, _ = arguments("max_gather", case)
        groups = np.moveaxis(argmax, 1, -1).reshape(-1, 8)
        fewest = argmax.size + 32 * sum(len(set(group)) for group in groups.tolist())
        assert moved("naive", "max_gather", case)[:2] == (fewest, 4 * argmax.size)
        assert fewest < moved("four_channels", "max_gather", case)[0] <= 4 * fewest
        kernel = kernels.max_pool3d_gather
        args = arguments("max_gather", case)
        assert kernel.select(*args, device="emulator").name == "cuda/naive"


@by_step
def test_checker_finds_nothing(step, pass_):
    for case in (SMALL["eight channels, gaps and padding"], SMALL["four channels"]):
        report = check(lambda c=case: run(step, pass_, arguments(pass_, c)), ["shuffled"])
        assert report.launches > 0
        assert report.findings == []


@pytest.mark.skipif(not is_available(), reason="needs NVRTC: pip install 'tinyvid[inspect]'")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_machine_code_moves_128_bits(arch):
    """What is not 128 bits wide is four offsets of a byte, or gather's reads."""
    for program in PROGRAMS:
        if program.variant == "cuda/naive":
            continue
        compiled = compile_file(launch.KERNELS / program.file, arch, program.constants)
        code = functions(compiled)[program.kernel].instructions
        widths = {
            opcode: {i.width for i in code if i.opcode.split(".")[0] == opcode}
            for opcode in ("LDG", "STG")
        }
        reads_offsets = program.kernel.startswith(("pool3d_max_dgrad", "pool3d_max_gather"))
        writes_offsets = program.kernel.startswith("pool3d_max_fprop")
        numbers = {32} if program.pass_ == "gather" else {128}
        assert widths["LDG"] == numbers | ({32} if reads_offsets else set()), program.kernel
        assert widths["STG"] == {128} | ({32} if writes_offsets else set()), program.kernel


# ---- the launcher --------------------------------------------------------------------------------


def test_members_are_those_of_the_header():
    text = (launch.KERNELS / "pool3d" / "geometry.cuh").read_text()
    listed = text.partition("define GEOMETRY_MEMBERS(MEMBER)")[2].partition("#ifdef")[0]
    geometry = pool_geometry((1, 4, 5, 6, 7), (2, 3, 4), (1, 2, 3), (0, 1, 2), (3, 2, 1))
    members = cuda.members(geometry)
    assert [*members] == re.findall(r"MEMBER\((\w+)\)", listed)
    assert [*members.values()] == [1, 4, 5, 6, 7, 2, 3, 4, 2, 2, 3, 1, 2, 3, 0, 1, 2, 3, 2, 1]


GEOMETRY = pool_geometry((1, 4, 4, 4, 4), 2)
X, GY = np.zeros(GEOMETRY.x, np.float32), np.zeros(GEOMETRY.y, np.float32)


def test_refuses_what_does_not_fit():
    with pytest.raises(UserError, match=r"max_pool3d_fprop: x has shape \(1, 4, 2, 2, 2\)"):
        cuda.max_fprop(GY, GEOMETRY, device="emulator")
    with pytest.raises(UserError, match="the steps of the ladder are naive, four_channels, disj"):
        cuda.max_fprop(X, GEOMETRY, step="fast", device="emulator")
    with pytest.raises(UserError, match=r"device 'cuda' takes CuPy arrays, not numpy\.ndarray"):
        cuda.avg_fprop(X, GEOMETRY, True, None)
    three = pool_geometry((1, 3, 4, 4, 4), 2)
    with pytest.raises(UserError, match="it takes channels in multiples of 4, not 3"):
        cuda.max_fprop(np.zeros(three.x), three, device="emulator")
    with pytest.raises(UserError, match="it is for max_dgrad and avg_dgrad"):
        cuda.max_fprop(X, GEOMETRY, step="disjoint_windows", device="emulator")


def test_tells_why_windows_are_not_disjoint():
    overlap = pool_geometry((1, 4, 9, 9, 9), 2, 2, 0, (1, 1, 2))
    why = cuda.unfit("disjoint_windows", "max_dgrad", overlap)
    assert why == "windows over (2, 2, 3) cells with strides of (2, 2, 2) overlap"
    assert cuda.unfit("four_channels", "max_dgrad", overlap) is None


def test_out_of_memory_tells_the_sizes(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(launch, "empty", full)
    with pytest.raises(UserError) as error:
        cuda.max_fprop(X, GEOMETRY, device="emulator")
    assert "out of memory for 'cuda/four_channels'" in str(error.value)
    assert "a result (1, 2, 2, 2, 4) float32 of 0.0 MiB and (1, 2, 2, 2, 4) uint8" in str(
        error.value
    )


@pytest.fixture
def cupy(monkeypatch):
    yield cupy_stand_in.install(monkeypatch)
    monkeypatch.undo()
    tinyvid.cuda._missing.cache_clear()
    launch._load.cache_clear()


def pooled(device: str, variant: str | None = None) -> list[Tensor]:
    """Return y and gx of max pooling and its square."""
    values = np.random.default_rng(0).standard_normal((2, 4, 4, 5, 6)).astype(np.float32)
    x = tinyvid.tensor(values, device=device, requires_grad=True)
    with kernels.use(**({"max_pool3d": variant} if variant else {})):
        y = tinyvid.max_pool3d(x, 2)
        (y * y).sum().backward()
    return [y, x.grad]


@pytest.mark.parametrize("variant", [None, "cuda/naive"])
def test_the_path_of_a_gpu(cupy, variant):
    """Device `cuda` on the stand-in for CuPy, sizes compiled in: the results of the CPU."""
    for ours, want in zip(pooled("cuda", variant), pooled("cpu"), strict=True):
        assert ours.device == "cuda"
        assert_close(ours.numpy(), want.numpy())


def test_c3d_trains_on_the_emulator_as_on_the_cpu():
    losses = {}
    for device in ("cpu", "emulator"):
        tinyvid.manual_seed(0)
        rng = np.random.default_rng(0)
        model = models.C3D(3, (3, 16, 16, 16), width=4, hidden=8, dropout=0.0).to(device)
        optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        clips = rng.standard_normal((2, 3, 16, 16, 16)).astype(np.float32)
        x = tinyvid.tensor(clips, device=device)
        labels = tinyvid.tensor(np.array([0, 2]), device=device)
        losses[device] = []
        for _ in range(3):
            loss = tinyvid.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[device].append(loss.item())
    assert losses["cpu"][2] != pytest.approx(losses["cpu"][0], rel=1e-2)  # it learns
    assert losses["emulator"] == pytest.approx(losses["cpu"], rel=2e-6)
    assert kernels.max_pool3d_fprop.select(X, GEOMETRY, device="emulator").target == "cuda"
