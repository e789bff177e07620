"""Optical flow in CUDA C++ on the emulator: every case, memory, borders, real frames.

A pixel that no thread writes stays NaN (`launch.empty`).
"""

import re
import shutil

import cupy_stand_in
import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.kernels import flow, launch
from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.check import check
from tinyvid.kernels.flow import TVL1, cuda, reference
from tinyvid.kernels.flow.cases import CASES, Case
from tinyvid.kernels.flow.launches import frames, launches
from tinyvid.kernels.flow.programs import LAYER, PROGRAMS, work_of

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the emulator needs a C++17 compiler",
)

SMALL = [case for case in CASES if not case.large]
SCHEDULES = ("forward", "reversed", "shuffled")
RUNS = {
    "horn_schunck": lambda a, b, case: cuda.naive_horn_schunck(
        a, b, case.alpha, case.iterations, device="emulator"
    ),
    "naive": lambda a, b, case: cuda.naive_tvl1(a, b, case.settings, device="emulator"),
    "tiled": lambda a, b, case: cuda.tiled_tvl1(a, b, case.settings, device="emulator"),
}
by_run = pytest.mark.parametrize("name", RUNS)


def expected(name, a, b, case):
    """Return the reference's flow in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if name == "horn_schunck":
        return reference.horn_schunck(a, b, case.alpha, case.iterations)
    return reference.tvl1(a, b, case.settings)


# ---- every case, every order ---------------------------------------------------------------------


@by_run
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_every_case(name, dtype, atol):
    """In pixels, of frames that have a slope everywhere."""
    for number, case in enumerate(SMALL):
        a, b = frames(case, dtype)
        with options(schedule=SCHEDULES[number % 3]):
            got = RUNS[name](a, b, case)
        want = expected(name, a, b, case)
        assert_close(got, want.astype(dtype), atol=atol)
        assert np.abs(want).max() > 0.1


def test_cases_are_whole_numbers_and_reach_each_side_of_a_tile():
    for case in SMALL:
        for frame, exact in zip(frames(case), frames(case, np.float64), strict=True):
            assert np.array_equal(frame, exact)
            assert np.array_equal(frame, np.rint(frame))
    sides = {side for case in SMALL for side in case.frames[1:]}
    assert {cuda.INNER - 1, cuda.INNER, cuda.INNER + 1, 2 * cuda.INNER + 1} <= sides
    counts = {case.settings.iterations % cuda.TOGETHER for case in SMALL}
    assert {0, 1, 3} <= counts
    assert max(case.settings.iterations for case in SMALL) > 2 * cuda.TOGETHER
    assert any(case.frames[0] > 1 and max(case.frames[1:]) > cuda.INNER for case in SMALL)


def smooth(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (shape[0], shape[1] // 4 + 2, shape[2] // 4 + 2))
    return np.kron(coarse, np.ones((4, 4)))[:, : shape[1], : shape[2]].astype(dtype)


@by_run
@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 0.05), (np.float64, 1e-9)])
def test_flat_areas_sharp_edges_and_large_motions(name, dtype, most):
    """Squares of one grey value move by (5, -3), some of them beyond the border.

    In float32 what is rounded is divided by the gradient, which nearly vanishes here and there.
    """
    case = Case("", (2, 40, 45), TVL1(levels=2, warps=3, iterations=9))
    whole = smooth((2, 60, 60), dtype)
    a, b = whole[:, 10:50, 10:55].copy(), whole[:, 13:53, 5:50].copy()
    got, want = RUNS[name](a, b, case), expected(name, a, b, case)
    assert_close(got, want.astype(dtype), atol=most)
    assert np.abs(got - want).mean() < most / 1000
    assert np.abs(want).max() > 1
    flat = np.full((1, 9, 9), 77, dtype)
    assert_close(RUNS[name](flat, flat + 9, case), np.zeros((1, 2, 9, 9), dtype), atol=1e-6)


def test_both_steps_agree_to_the_last_digits():
    case = next(case for case in SMALL if case.name == "two tiles and a bit")
    naive, tiled = (RUNS[name](*frames(case), case) for name in ("naive", "tiled"))
    assert_close(tiled, naive, atol=1e-6)


@by_run
def test_runs_agree_to_the_bit(name):
    case = Case("", (2, 26, 27), TVL1(levels=2, warps=1, iterations=5))
    results = []
    for workers, schedule in ((1, "forward"), (2, "reversed"), (2, "shuffled")):
        with options(workers=workers, schedule=schedule):
            results.append(RUNS[name](*frames(case), case))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@by_run
def test_pairs_of_a_batch_do_not_see_each_other(name):
    case = next(case for case in SMALL if case.name == "pairs")
    a, b = frames(case)
    every = RUNS[name](a, b, case)
    for n in range(len(a)):
        assert_close(RUNS[name](a[n : n + 1], b[n : n + 1], case)[0], every[n])


@by_run
def test_frames_may_lie_in_any_order_and_stay_as_they_are(name):
    case = next(case for case in SMALL if case.name == "two warps")
    a, b = frames(case)
    want = RUNS[name](a, b, case)
    for given in (np.asfortranarray(a), np.repeat(a, 2, axis=2)[:, :, ::2], a.copy()):
        given.flags.writeable = False
        assert np.array_equal(RUNS[name](given, b, case), want)
        assert np.array_equal(given, a)


@by_run
def test_no_pairs_and_no_launch(name, monkeypatch):
    monkeypatch.setattr(launch, "load", None)
    empty = np.zeros((0, 9, 8), np.float32)
    assert RUNS[name](empty, empty, SMALL[0]).shape == (0, 2, 9, 8)


# ---- memory --------------------------------------------------------------------------------------

ITERATIONS = 8
BUDGET = Case("", (1, 48, 96), TVL1(levels=1, warps=1, iterations=ITERATIONS, medians=1))
SECTORS = 48 * 96 * 4 // 32  # of a plane, whose rows begin with a sector


def counted(name):
    """Return the counts of a run: in the iterations' files, and those that move too many."""
    report = check(lambda: RUNS[name](*frames(BUDGET), BUDGET), ["forward"], ["late"])
    assert report.findings == []
    return report.counts


def moved(counts, files, space="global"):
    """Return the sectors read and written by some files."""
    ours = [c for c in counts if c.space == space and re.search(files, str(c.place))]
    return tuple(sum(c.moved for c in ours if c.access == way) for way in ("read", "write"))


def test_each_iteration_of_naive_moves_22_numbers_of_a_pixel():
    read, written = moved(counted("naive"), "(naive.cu|tvl1.cuh)")
    assert written == 6 * ITERATIONS * SECTORS
    # Beside 16 numbers of its own a thread reads 8 of neighbours, which the cache has.
    assert 16 * ITERATIONS * SECTORS < read < 26 * ITERATIONS * SECTORS


def test_tiles_move_a_fifth_of_that():
    counts = counted("tiled")
    read, written = moved(counts, "tiled.cu")
    launched = ITERATIONS // cuda.TOGETHER
    assert written == 6 * launched * SECTORS
    # A row of 32 pixels that begins half a sector early is five sectors in the place of four.
    assert read < 10 * (32 / cuda.INNER) ** 2 * 5 / 4 * launched * SECTORS
    assert 5 * (read + written) < sum(moved(counted("naive"), "(naive.cu|tvl1.cuh)"))


def test_tiles_have_no_bank_conflicts():
    shared = [count for count in counted("tiled") if count.space == "shared"]
    assert {count.access for count in shared} == {"read", "write"}
    assert [str(c.place) for c in shared if c.moved > c.fewest] == []


@by_run
def test_every_result_is_written_in_whole_sectors(name):
    writes = [c for c in counted(name) if (c.space, c.access) == ("global", "write")]
    assert len(writes) > 4
    assert [str(c.place) for c in writes if c.moved > c.fewest] == []


@by_run
def test_checker_finds_nothing(name):
    case = Case("", (1, 27, 26), TVL1(levels=2, warps=1, iterations=5), iterations=3)
    report = check(lambda: RUNS[name](*frames(case), case), ["shuffled"])
    assert report.launches > 3
    assert report.findings == []


BARRIER = re.compile(r"__syncthreads\(\);  // all of u is new.*\n")


def test_checker_finds_a_barrier_that_is_missing(tmp_path):
    ours = launch.KERNELS / "flow" / "tiled.cu"
    text, removed = BARRIER.subn("\n", ours.read_text())
    assert removed == 1
    copy = tmp_path / "tiled.cu"
    copy.write_text(text)
    with launch.stand_in(ours, copy):
        report = check(lambda: RUNS["tiled"](*frames(BUDGET), BUDGET), ["shuffled"])
    assert any("race" in str(finding) for finding in report.findings)


# ---- the launchers -------------------------------------------------------------------------------


def test_every_file_has_launches():
    files = {path.name for path in (launch.KERNELS / "flow").glob("*.cu")}
    assert files == set(cuda.FILES.values())
    for file in files:
        text = (launch.KERNELS / "flow" / file).read_text()
        listed = {kernel for kernel, of in cuda.FILES.items() if of == file}
        assert listed == set(re.findall(r"\b(flow_\w+)\(", text))
        assert len(list(launches(file))) >= len(SMALL)
    assert list(launches("other.cu")) == []


def test_work_counts_every_level():
    case = next(case for case in CASES if case.name == LAYER)
    work = work_of("tvl1", case)
    assert work.bytes == 4 * 4 * 256 * 340
    alone = work_of("tvl1", Case("", case.frames, TVL1(levels=1)))
    assert 1.32 < work.flops / alone.flops < 1.35  # 1 + 1/4 + 1/16 + ...
    assert work_of("horn_schunck", case).flops < work.flops
    assert {program.op for program in PROGRAMS if program.work} == {"tvl1", "horn_schunck"}


def test_the_best_step_is_preferred():
    a, b = frames(SMALL[0])
    assert flow.tvl1.select(a, b, TVL1(), device="emulator").name == "cuda/tiled"
    assert flow.horn_schunck.select(a, b, 15.0, 9, device="emulator").name == "cuda/naive"
    assert flow.tvl1.select(a, b, TVL1()).name == "cpu/bands"


@pytest.fixture
def cupy(monkeypatch):
    yield cupy_stand_in.install(monkeypatch)
    monkeypatch.undo()
    tinyvid.cuda._missing.cache_clear()
    launch._load.cache_clear()


@pytest.mark.parametrize("device", ["emulator", "cuda"])
@pytest.mark.parametrize("method", ["tvl1", "horn_schunck"])
def test_one_argument_sends_it_to_a_device(cupy, device, method):
    """Device `cuda` on the stand-in for CuPy: the results of the CPU, as NumPy's arrays."""
    case = next(case for case in SMALL if case.name == "two levels")
    more = (case.settings,) if method == "tvl1" else (case.alpha, case.iterations)
    find = getattr(kernels, f"{method}_flow")
    got, want = find(*frames(case), *more, device=device), find(*frames(case), *more)
    assert type(got) is np.ndarray
    assert_close(got, want, atol=1e-5)


def test_refuses_what_does_not_fit():
    a = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(UserError, match=r"tvl1_flow: .* \(1, 8, 7\): frames must be of one size"):
        cuda.tvl1(a, a[:, :, :7], device="emulator")
    with pytest.raises(UserError, match="the steps of the ladder are naive, tiled"):
        cuda.tvl1(a, a, step="fast", device="emulator")
    with pytest.raises(UserError, match=r"device 'cuda' takes CuPy arrays, not numpy\.ndarray"):
        cuda.naive_horn_schunck(a, a)
    with pytest.raises(UserError, match="settings must be a TVL1, not a int"):
        flow.tvl1(a, a, 3, device="emulator")
    many = np.broadcast_to(a, (40000, 8, 8))
    with pytest.raises(UserError, match="it takes up to 32767 pairs at a time, not 40000"):
        cuda.tvl1(many, many, device="emulator")
    with pytest.raises(UserError, match="no device is called 'gpu'"):
        kernels.tvl1_flow(a, a, device="gpu")


@by_run
def test_out_of_memory_tells_the_sizes(name, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(launch, "empty", full)
    with pytest.raises(UserError, match=r"out of memory for 'cuda/\w+', which takes frames \(1, 2"):
        RUNS[name](*frames(SMALL[0]), SMALL[0])


def test_real_frames(shared_data):
    """A piece of a known pair: each step as near to the truth as the CPU's variant."""
    import matplotlib.image

    folder = shared_data / "rubberwhale"
    a, b = (
        (matplotlib.image.imread(folder / f"frame{i}.png")[..., :3] @ (76.245, 149.685, 29.07))
        .astype(np.float32)[None, 100:196, 200:328]
        .copy()
        for i in (10, 11)
    )
    raw = np.fromfile(folder / "flow10.flo", np.float32)
    width, height = raw[1:3].view(np.int32)
    true = raw[3:].reshape(height, width, 2)[100:196, 200:328].transpose(2, 0, 1)
    known = (np.abs(true) < 1e9).all(axis=0)

    def error(u):
        return float(np.hypot(*(u[0] - true))[known].mean())

    want = kernels.tvl1_flow(a, b)
    for step in cuda.STEPS:
        got = cuda.tvl1(a, b, step=step, device="emulator")
        assert error(got) == pytest.approx(error(want), abs=1e-3)
        assert np.abs(got - want).mean() < 1e-3
