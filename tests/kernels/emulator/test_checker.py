"""The access checker: it finds each planted fault at its line, and none in right kernels."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close
from emulated import module, needs_compiler

from tinyvid.errors import UserError
from tinyvid.kernels.emulator import Module, build, options
from tinyvid.kernels.emulator.check import check
from tinyvid.kernels.emulator.found import AccessError, Finding, merge
from tinyvid.kernels.emulator.lines import Place
from tinyvid.kernels.emulator.settings import COPIES, SCHEDULES
from tinyvid.kernels.launch import empty, write_global

pytestmark = needs_compiler
HERE = Path(__file__).parent
MODES = list(itertools.product(SCHEDULES, COPIES))

f32, f64, i32, u8, u16, u32 = np.float32, np.float64, np.int32, np.uint8, np.uint16, np.uint32


def floats(*shape, dtype=f32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def unset(*shape, dtype=f32):
    return empty(shape, dtype, "emulator")


def marked(file: str, mark: str) -> list[int]:
    """Return the lines of a file that end in the comment."""
    rows = (HERE / file).read_text().splitlines()
    return [i for i, row in enumerate(rows, 1) if row.endswith(f"// {mark}")]


def launch(file, kernel, grid, block, args, shared_mem=0, cooperative=False):
    """Launch a kernel under the options that hold."""
    function = module(file, cooperative=cooperative).get_function(kernel)
    function(grid, block, args, shared_mem=shared_mem)


def found_in(file, kernel, *launched, **more) -> list[Finding]:
    """Launch a kernel once, and return what the checker finds."""
    try:
        with options(checked=True):
            launch(file, kernel, *launched, **more)
    except AccessError as error:
        return error.findings
    return []


# ---- planted faults ------------------------------------------------------------------------------
# A kernel, its launch, the kind of finding; then, of the first one in forward order, by the rules
# of the kernel: which thread in which block does what to which array, and who (thread, block) is at
# the other end.

RACE, OUT, UNSET = "race", "out of bounds", "uninitialised read"
COPY, ALIGN, SHUFFLE = "copy not waited for", "misaligned access", "undefined shuffle"
FAULTS = {
    # races
    "no_barrier": ((1, 64, lambda: [floats(64)]), RACE, 32, 0, "writes s", (0, 0)),
    "one_barrier_of_two": (
        (1, 64, lambda: [floats(64), i32(2)]),
        *(RACE, 32, 0, "reads s", (31, 0)),
    ),
    "no_syncwarp": ((1, 32, lambda: [floats(32)]), RACE, 0, 0, "reads s", (1, 0)),
    "half_a_syncwarp": ((1, 32, lambda: [floats(32)]), RACE, 16, 0, "writes s", (0, 0)),
    "volatile_reduction": ((1, 32, lambda: [floats(32)]), RACE, 16, 0, "writes s", (0, 0)),
    "in_global_memory": ((1, 64, lambda: [floats(128)]), RACE, 32, 0, "writes x", (0, 0)),
    "blocks_write": ((2, 64, lambda: [floats(64)]), RACE, 0, 1, "writes x", (0, 0)),
    "blocks_read_and_write": ((3, 64, lambda: [floats(256)]), RACE, 0, 1, "writes x", (0, 0)),
    "reader_forgotten": ((3, 64, lambda: [floats(1)]), RACE, 0, 1, "writes x", (None, 0)),
    "atomic_and_plain": ((1, 32, lambda: [np.zeros(33, i32)]), RACE, 1, 0, "updates x", (0, 0)),
    "bytes": ((1, 32, lambda: [np.zeros(32, u8)]), RACE, 1, 0, "writes s", (0, 0)),
    "no_fence": (
        (4, 1, lambda: [floats(4), unset(4), unset(1)]),
        RACE,
        0,
        3,
        "reads parts",
        (0, 0),
    ),
    "fence_before_barrier": (
        (4, 64, lambda: [unset(256), unset(64)]),
        *(RACE, 0, 3, "reads parts", (63, 0)),
    ),
    "no_grid_sync": ((2, 32, lambda: [floats(128)], 0, True), RACE, 0, 1, "writes x", (0, 0)),
    "ldmatrix_without_barrier": (
        (1, 32, lambda: [unset(32, dtype=u32)]),
        *(RACE, 1, 0, "writes tile", (0, 0)),
    ),
    # out of bounds
    "past_the_end": ((2, 50, lambda: [floats(99), unset(99), 99]), OUT, 49, 1, "reads x", None),
    "before_the_start": ((1, 32, lambda: [floats(8)]), OUT, 0, 0, "writes x", None),
    "into_the_next_array": ((1, 32, lambda: [floats(32)]), OUT, 31, 0, "writes a", None),
    "next_to_it": ((1, 64, lambda: [unset(64), 1]), OUT, 63, 0, "writes y", None),
    "past_dynamic": ((1, 33, lambda: [floats(33)], 128), OUT, 32, 0, "writes s", None),
    "partly_outside": ((1, 1, lambda: [floats(10), 10]), OUT, 0, 0, "reads x", None),
    "far_away": ((1, 1, lambda: [floats(10), np.int64(1 << 30)]), OUT, 0, 0, "writes ", None),
    "no_array": ((1, 1, lambda: [None]), OUT, 0, 0, "writes ", None),
    "writes_a_constant": (
        (1, 4, lambda: [floats(4)]),
        *("write to constant memory", 0, 0, "writes table", None),
    ),
    # what nobody wrote
    "shared_unwritten": ((1, 64, lambda: [floats(64)]), UNSET, 60, 0, "reads s", None),
    "of_the_block_before": ((2, 32, lambda: [unset(64)]), UNSET, 0, 1, "reads s", None),
    "halves": ((2, 32, lambda: [unset(64)]), UNSET, 0, 0, "reads y", None),
    "adds_to_nothing": ((1, 64, lambda: [unset(64), 60]), UNSET, 60, 0, "reads y", None),
    # where threads meet, and alignment: the runtime finds these
    "divergent_barrier": ((1, 32, lambda: [unset(32)]), "divergent barrier", 16, 0, " ", None),
    "leaves_early": ((1, 64, lambda: [unset(64)]), "divergent barrier", 0, 0, " ", None),
    "divergent_shuffle": ((1, 32, lambda: [floats(32)]), "divergent collective", 0, 0, " ", None),
    "barriers_in_one_line": ((1, 32, lambda: [unset(32)]), "divergent barrier", 16, 0, " ", None),
    "shuffle_from_one_that_left": ((1, 32, lambda: [floats(32)]), SHUFFLE, 16, 0, " ", None),
    "shuffle_from_no_thread": (
        (1, 40, lambda: [floats(40), unset(2)]),
        *(SHUFFLE, 32, 0, " ", None),
    ),
    "shuffle_from_one_not_named": ((1, 32, lambda: [floats(32)]), SHUFFLE, 0, 0, " ", None),
    "misaligned_load4": ((1, 32, lambda: [floats(64)]), ALIGN, 1, 0, " ", None),
    "misaligned_cast": ((1, 32, lambda: [floats(64), unset(32)]), ALIGN, 1, 0, " ", None),
    # asynchronous copies
    "no_wait": ((1, 64, lambda: [floats(64), unset(64)]), COPY, 0, 0, "reads s", (63, 0)),
    "waits_for_the_wrong_group": (
        (1, 32, lambda: [floats(96), unset(96), 3]),
        *(COPY, 0, 0, "reads s", (31, 0)),
    ),
    "wait_without_barrier": (
        (1, 64, lambda: [floats(64), unset(64)]),
        *(RACE, 32, 0, "writes s", (31, 0)),
    ),
    "written_in_flight": (
        (1, 32, lambda: [floats(32), unset(32)]),
        *(COPY, 0, 0, "writes s", (0, 0)),
    ),
    "source_changed": (
        (1, 32, lambda: [floats(32), unset(32)]),
        *("source changed during copy", 0, 0, "reads x", (0, 0)),
    ),
    "copy_past_the_end": ((1, 32, lambda: [floats(126), unset(32)]), OUT, 31, 0, "reads x", None),
}


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_planted_fault_is_found_at_its_line(kernel):
    (grid, size, args, *more), kind, thread, block, what, other = FAULTS[kernel]
    found = found_in("accesses.cu", kernel, (grid,), (size,), args(), *more)
    assert kind in [f.kind for f in found], [str(f) for f in found]
    finding = next(f for f in found if f.kind == kind)
    lines = marked("accesses.cu", f"! {kernel}") + marked("accesses.cu", f"!! {kernel}")
    assert {finding.line, finding.other_line or lines[-1]} == set(lines)
    assert Path(finding.file).name == "accesses.cu"
    assert f"accesses.cu:{finding.line}: {kind}: {kernel}, block ({block}, 0, 0)" in str(finding)
    assert re.search(
        r"thread \(\d+, 0, 0\)(?: reads| writes| updates| copies|: [a-z_])", str(finding)
    )
    assert (finding.thread, finding.block) == ((thread, 0, 0), (block, 0, 0))
    assert f"{finding.action} {finding.array}" == what
    if other is None:
        assert finding.other_thread is None
    else:
        other_thread = None if other[0] is None else (other[0], 0, 0)
        assert (finding.other_thread, finding.other_block) == (other_thread, (other[1], 0, 0))


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_planted_fault_is_found_whoever_goes_first(kernel):
    (grid, size, args, *more), kind, *_ = FAULTS[kernel]
    lines = marked("accesses.cu", f"! {kernel}") + marked("accesses.cu", f"!! {kernel}")
    for schedule, copies in MODES:
        report = check(
            lambda: launch("accesses.cu", kernel, (grid,), (size,), args(), *more),
            schedules=[schedule],
            copies=[copies],
            seed=5,
            count_lines=False,
        )
        there = [f for f in report.findings if f.kind == kind and f.line in lines]
        # Which of the two barriers is the wrong one is a matter of who comes first.
        assert there or kind == "divergent barrier", (schedule, copies, report.findings)
        assert {f.kind for f in report.findings} == {kind}  # and nothing that follows from it


def test_every_planted_fault_has_a_kernel_and_a_line():
    kernels = re.findall(r"^KERNEL (\w+)", (HERE / "accesses.cu").read_text(), re.MULTILINE)
    assert kernels == list(FAULTS)
    assert all(len(marked("accesses.cu", f"! {kernel}")) == 1 for kernel in kernels)


# ---- right kernels -------------------------------------------------------------------------------


def sound(kernel, grid, block, args, *more, cooperative=False):
    """Launch a right kernel in each mode; returns its arguments after the last."""
    for schedule, copies in MODES:
        with options(checked=True, schedule=schedule, copies=copies, seed=7):
            given = args()
            launch("sound.cu", kernel, grid, block, given, *more, cooperative=cooperative)
    return given


@pytest.mark.parametrize("threads", [128, 160, 250, 256])
def test_a_sum_that_ends_in_one_warp(threads):
    x, sums = sound("block_sum", (3,), (threads,), lambda: [floats(3 * threads), unset(3)])
    assert_close(sums, x.reshape(3, -1).sum(1, dtype=f64).astype(f32), rtol=1e-5, atol=1e-5)


def test_parts_of_a_warp_meet():
    (x,) = sound("halves_meet", (1,), (32,), lambda: [floats(32)])
    assert_close(x, floats(32)[np.arange(32) ^ 16 ^ 1])
    (x,) = sound("pairs_then_fours", (1,), (32,), lambda: [floats(32)])
    start, lanes = floats(32), np.arange(32)
    assert_close(x, start[lanes ^ 1] + start[lanes ^ 2] + start[lanes ^ 3], rtol=1e-6)
    (x,) = sound("those_that_are_left", (1,), (32,), lambda: [np.zeros(32, i32)])
    assert_close(x, np.where(lanes < 20, 6, 0).astype(i32))


@pytest.mark.parametrize("n", [4, 256, 260, 1000])
def test_copies_in_two_stages(n):
    x, y = sound("pipeline", (1,), (64,), lambda: [floats(n), unset(n), n])[:2]
    assert_close(y, x)


def test_sums_over_blocks():
    for schedule, copies in MODES:
        with options(checked=True, schedule=schedule, copies=copies):
            x, parts, y = floats(100), unset(7), unset(1)
            launch("sound.cu", "split", (7,), (1,), [x, parts, 100])
            launch("sound.cu", "join", (1,), (1,), [parts, y, 7])
    assert_close(y, x.sum(dtype=f64, keepdims=True).astype(f32), rtol=1e-5)
    x, _, sums = sound("last_block", (5,), (64,), lambda: [floats(320), unset(320), unset(64)])
    assert_close(
        sums, x.reshape(5, 64)[:, ::-1].sum(0, dtype=f64).astype(f32), rtol=1e-5, atol=1e-6
    )


def test_atomics_do_not_race():
    x = np.random.default_rng(1).integers(0, 10, 500).astype(i32)
    counts = sound("histogram", (5,), (100,), lambda: [x, np.zeros(10, i32), 500])[1]
    assert_close(counts, np.bincount(x, minlength=10).astype(i32))


def test_blocks_that_meet():
    rounds = 3
    x = sound("exchange", (4,), (40,), lambda: [floats(160), rounds], cooperative=True)[0]
    assert_close(x, np.roll(floats(160), -40 * rounds))


def test_elements_smaller_than_a_word():
    def args():
        return [np.arange(64, dtype=u8), np.arange(64, dtype=u16), unset(16, dtype=u32)]

    x, h, sums = sound("small_elements", (1,), (64,), args)
    assert_close(x, np.arange(64, dtype=u8)[::-1])
    assert_close(h, np.full(64, 7, u16))
    bytes_, halves = np.arange(64, dtype=u8).view(u32), np.arange(64, dtype=u16).view(u32)
    assert_close(sums, bytes_ + halves[:16])


def test_memory_that_is_not_the_kernels_arrays():
    order = np.array([3, 1, 4, 0, 5, 7, 2, 6], i32)
    x = np.arange(8 * 40, dtype=i32)
    for schedule, copies in MODES:
        with options(checked=True, schedule=schedule, copies=copies):
            write_global(module("sound.cu", cooperative=False), "order", order)
            y = unset(40)
            launch("sound.cu", "local_arrays", (1,), (40,), [x, y])
    local = np.empty((40, 8), f32)
    local[:, order] = x.reshape(40, 8)
    assert_close(y, local[:, ::-1] @ np.array([1, 2, 4, 8] * 2, f32))


def test_others():
    seen = sound("volatile_flag", (3,), (40,), lambda: [np.zeros(1, i32), np.zeros(120, i32)])[1]
    assert_close(seen, np.ones(120, i32))
    (x, _) = sound("idle_blocks", (5,), (48,), lambda: [floats(144), 3])
    assert_close(x, floats(144).reshape(3, 48)[:, ::-1].ravel())
    x, _ = sound("carved", (1,), (40,), lambda: [floats(40), 40], 40 * (4 + 8))
    start = floats(40)
    assert_close(x, start[::-1] + 2 * start[np.arange(40) ^ 1], rtol=1e-6)
    (out,) = sound("tile_rows", (1,), (32,), lambda: [unset(32, dtype=u32)])
    assert_close(out, np.arange(1, 33, dtype=u32))


# ---- random programs -----------------------------------------------------------------------------


def races(kinds, masks, does, blocks, threads) -> bool:
    """Whether two accesses of a program race, worked out with a vector clock for each thread."""
    count = blocks * threads
    clock = np.eye(count, dtype=int)  # [a, b]: up to which time of its own a has heard of b
    last_read, last_write = np.zeros(count, int), np.zeros(count, int)  # in their own times
    for kind, mask, step in zip(kinds, masks, does, strict=True):
        if kind == 0:
            for me in np.flatnonzero(step):
                unheard = last_write > clock[me]
                if step[me] == 2:
                    unheard |= last_read > clock[me]
                unheard[me] = False
                if unheard.any():
                    return True
                (last_read if step[me] == 1 else last_write)[me] = clock[me, me]
            continue
        everyone = np.arange(count)
        block, lane = everyone // threads, everyone % threads % 32
        meet = block * 64  # those with one number meet
        if kind > 1:
            meet = meet + everyone % threads // 32 * 2
        if kind == 3:
            meet = meet + (mask >> lane & 1)
        for number in np.unique(meet):
            who = np.flatnonzero(meet == number)
            clock[who] = clock[who].max(0)
            clock[who, who] += 1
    return False


@pytest.mark.parametrize("in_shared", [True, False], ids=["shared", "global"])
def test_random_programs_against_vector_clocks(in_shared):
    rng = np.random.default_rng(3)
    blocks, threads, steps = (1 if in_shared else 2), 48, 12
    outcomes = []
    for _ in range(150):
        kinds = rng.choice([0, 1, 2, 3], steps, p=[0.5, 0.1, 0.2, 0.2]).astype(i32)
        masks = rng.integers(0, 2**32, steps, dtype=u32)
        does = np.zeros((steps, blocks * threads), i32)
        # Mostly neighbours, sometimes of another warp or block.
        who = rng.choice([0, 1, 2, 40], steps, p=[0.4, 0.3, 0.2, 0.1])
        who += threads * (rng.random(steps) < 0.1) * (blocks - 1)
        does[np.arange(steps), who] = rng.choice([0, 1, 2], steps, p=[0.1, 0.5, 0.4])
        does[kinds != 0] = 0
        args = [kinds, masks, does, steps, floats(1), int(in_shared), unset(blocks * threads)]
        schedule = SCHEDULES[rng.integers(3)]
        with options(schedule=schedule, seed=int(rng.integers(100))):
            found = found_in("sound.cu", "random_program", (blocks,), (threads,), args)
        assert {f.kind for f in found} <= {RACE}
        expected = races(kinds, masks, does, blocks, threads)
        assert bool(found) == expected, (kinds, masks, np.argwhere(does), schedule, found)
        outcomes.append(expected)
    assert 25 < sum(outcomes) < 135, "the programs should be of both kinds"


# ---- what lines cost -----------------------------------------------------------------------------


def cost(kernel, args, blocks=1, threads=32, file="costs.cu"):
    """Return {(space, access): (requests, moved, fewest)} of the kernel's marked line."""
    report = check(
        lambda: launch(file, kernel, (blocks,), (threads,), args),
        schedules=["forward"],
        copies=["late"],
    )
    assert not report.findings, report.findings
    (line,) = marked(file, f"$ {kernel}")
    return {
        (c.space, c.access): (c.requests, c.moved, c.fewest)
        for c in report.counts
        if c.place.line == line
    }


READ_SHARED, READ_GLOBAL = ("shared", "read"), ("global", "read")


@pytest.mark.parametrize(
    ("stride", "wavefronts"), [(0, 1), (1, 1), (2, 2), (3, 1), (4, 4), (16, 16), (32, 32), (33, 1)]
)
def test_wavefronts_of_words(stride, wavefronts):
    """Words a multiple of 2**n apart fall on every 2**n-th bank; odd multiples on all of them."""
    assert cost("shared_words", [unset(32), stride])[READ_SHARED] == (1, wavefronts, 1)


@pytest.mark.parametrize(("stride", "wavefronts"), [(4, 4), (8, 8), (0, 4)])
def test_wavefronts_of_vectors(stride, wavefronts):
    """A quarter of the warp at a time: 8 lanes of 16 bytes fill all banks."""
    assert cost("shared_vectors", [unset(32), stride])[READ_SHARED] == (1, wavefronts, 4)


def test_wavefronts_of_other_sizes():
    written = ("shared", "write")
    assert cost("shared_doubles", [unset(32, dtype=f64)])[written] == (1, 2, 2)
    assert cost("shared_bytes", [unset(32)])[written] == (1, 1, 1)
    # 8 rows of 16 bytes: next to each other they fill the banks; 128 bytes apart they meet in the
    # same four; with 16 bytes of padding they do not.
    assert cost("matrix_rows", [unset(32, dtype=u32), 16])[READ_SHARED] == (1, 4, 4)
    assert cost("matrix_rows", [unset(32, dtype=u32), 128])[READ_SHARED] == (1, 32, 4)
    assert cost("matrix_rows", [unset(32, dtype=u32), 144])[READ_SHARED] == (1, 4, 4)


@pytest.mark.parametrize(
    ("stride", "offset", "sectors", "fewest"),
    [(1, 0, 4, 4), (2, 0, 8, 4), (1, 1, 5, 4), (8, 0, 32, 4), (9, 3, 32, 4), (0, 5, 1, 1)],
)
def test_sectors(stride, offset, sectors, fewest):
    args = [floats(32 * 9 + 3), unset(32), stride, offset]
    assert cost("global_words", args)[READ_GLOBAL] == (1, sectors, fewest)


def test_sectors_of_other_sizes():
    assert cost("global_vectors", [floats(128), unset(32)])[READ_GLOBAL] == (1, 16, 16)
    assert cost("global_bytes", [np.zeros(32, u8), unset(32)])[READ_GLOBAL] == (1, 1, 1)
    # 16 of 32 neighbouring words: all 4 sectors, where 2 would do.
    assert cost("half_the_lanes", [floats(160), unset(32), 5])[READ_GLOBAL] == (5, 20, 10)


def test_both_ends_of_a_copy_cost():
    found = cost("copies", [floats(128), unset(32), 4])
    assert found == {READ_GLOBAL: (1, 16, 16), ("shared", "write"): (1, 4, 4)}
    assert cost("copies", [floats(128), unset(32), 8])["shared", "write"] == (1, 8, 4)


def test_requests_of_all_warps_are_counted():
    found = cost("warps_and_blocks", [unset(3 * 40)], blocks=3, threads=40)
    # A block's two warps write 128 and 32 bytes, all of them from a multiple of 32 on.
    assert found == {("global", "write"): (6, 15, 15)}


# ---- what is told -------------------------------------------------------------------------------


def test_findings_are_raised_together_or_collected():
    with pytest.raises(AccessError) as raised, options(checked=True):
        launch("accesses.cu", "blocks_read_and_write", (3,), (64,), [floats(200)])
    assert {f.kind for f in raised.value.findings} == {RACE, OUT}
    assert all(str(f) in str(raised.value) for f in raised.value.findings)
    report = check(lambda: launch("accesses.cu", "no_barrier", (1,), (64,), [floats(64)]))
    assert report.launches == 6
    # A line is told once, and both kinds of race between two lines are one.
    (race,) = report.findings
    assert (race.kind, race.count) == (RACE, 6 * 64)


def test_a_fault_is_told_without_the_reads_that_follow_from_it():
    def kinds(*launches):
        def run():
            for name, grid, size, args in launches:
                launch("accesses.cu", name, (grid,), (size,), args)

        y.fill(unset(1)[0])
        return [f.kind for f in check(run, ["forward"], ["late"]).findings]

    # Half of what is read has not been written yet, since nobody waited.
    y = unset(64)
    assert kinds(("no_barrier", 1, 64, [floats(64)])) == [RACE]
    # An index off by one leaves an element unwritten that the kernel, or the next one, reads.
    assert kinds(("next_to_it", 1, 64, [y, 1])) == [OUT]
    assert kinds(("next_to_it", 1, 64, [y, 0]), ("halves", 2, 32, [y])) == [OUT]
    # Of its own accord it is told, and a later one of another run too.
    assert kinds(("halves", 2, 32, [y])) == [UNSET]
    report = check(lambda: launch("accesses.cu", "halves", (2,), (32,), [unset(64)]))
    assert [f.count for f in report.findings] == [6 * 64]


def test_a_launch_goes_on_after_a_finding_and_does_no_harm():
    x, y = floats(99), unset(99)
    beside = x.copy()
    with options(checked=True, watch=lambda launched: None):
        launch("accesses.cu", "past_the_end", (2,), (50,), [x, y, 99])
        launch("accesses.cu", "before_the_start", (1,), (32,), [x])
    assert_close(y[1:], x[1:])
    assert_close(x, beside)


def test_an_error_tells_the_first_findings_only():
    finding = Finding("race", "k", Place("k.cu", 1), (0, 0, 0), (0, 0, 0), "text")
    message = str(AccessError([finding] * 50))
    assert message.count("\n") == 20
    assert message.endswith("and 30 more")


def test_findings_of_one_line_are_merged():
    def finding(line, other=None, kind=RACE, count=1):
        place = Place("k.cu", other) if other else None
        return Finding(
            kind, "k", Place("k.cu", line), (0, 0, 0), (0, 0, 0), "", count=count, other_place=place
        )

    merged = merge([finding(1, 2), finding(2, 1, count=3), finding(1, 3), finding(1, kind=OUT)])
    assert [(f.kind, f.line, f.other_line, f.count) for f in merged] == [
        (RACE, 1, 2, 4),
        (RACE, 1, 3, 1),
        (OUT, 1, None, 1),
    ]


@pytest.mark.parametrize("version", [0, 10])  # 0: another compiler
def test_the_checker_needs_gcc(monkeypatch, version):
    monkeypatch.setattr(build, "_gcc_version", lambda: version)
    with pytest.raises(UserError, match="the access checker needs GCC 11 or newer"):
        build.build(HERE / "sound.cu", checked=True)


def test_a_fault_in_a_header_tells_who_called_it(tmp_path):
    (tmp_path / "helper.cuh").write_text(
        "inline __device__ float at(const float* x, int i) {\n  return x[i];\n}\n"
    )
    (tmp_path / "user.cu").write_text(
        '#include "helper.cuh"\n'
        'extern "C" __global__ void user(const float* x, float* y) {\n'
        "  const int i = threadIdx.x;\n"
        "  y[i] = at(x, i + 1);\n}\n"
    )
    with pytest.raises(AccessError) as raised, options(checked=True):
        Module(tmp_path / "user.cu").get_function("user")((1,), (32,), [floats(32), unset(32)])
    (finding,) = raised.value.findings
    assert (Path(finding.file).name, finding.line) == ("helper.cuh", 2)
    assert [(Path(c.file).name, c.line) for c in finding.callers] == [("user.cu", 4)]
    assert "[called from " in str(finding)
