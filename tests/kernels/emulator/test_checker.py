"""The access checker: it finds each planted fault at its line, and tells it."""

import re
from pathlib import Path

import numpy as np
import pytest
from checked import (
    HERE,
    MODES,
    OUT,
    RACE,
    UNSET,
    floats,
    found_in,
    i32,
    launch,
    marked,
    u8,
    u32,
    unset,
)
from compare import assert_close
from emulated import needs_compiler

from tinyvid.errors import UserError
from tinyvid.kernels.emulator import Module, build, options
from tinyvid.kernels.emulator.check import check
from tinyvid.kernels.emulator.found import AccessError, Finding, merge
from tinyvid.kernels.emulator.lines import Place

pytestmark = needs_compiler


# ---- planted faults ------------------------------------------------------------------------------
# A kernel, its launch, the kind of finding; then, of the first one in forward order, by the rules
# of the kernel: which thread in which block does what to which array, and who (thread, block) is at
# the other end.

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
    assert str(race).endswith("; nothing orders the two (384 times in 6 runs)")
    (race,) = found_in("accesses.cu", "no_barrier", (1,), (64,), [floats(64)])
    assert str(race).endswith("; nothing orders the two (64 times)")


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


def test_an_array_is_told_by_its_name_and_memory(tmp_path):
    (tmp_path / "k.cu").write_text(
        'extern "C" __global__ void k(float* x) {\n'
        "  extern __shared__ float shared[];\n"
        "  x[threadIdx.x] = shared[threadIdx.x];\n}\n"
    )
    with pytest.raises(AccessError) as raised, options(checked=True):
        Module(tmp_path / "k.cu").get_function("k")((1,), (9,), [unset(8)], shared_mem=36)
    unwritten, outside = sorted(map(str, raised.value.findings), key=lambda s: "out of" in s)
    assert "reads element 0 of shared array `shared` (byte 0 of 36), which nothing" in unwritten
    assert "at byte 32 of global array `x`, which has 32: element 8 of 8" in outside


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
