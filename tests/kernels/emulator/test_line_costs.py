"""What the access checker counts for each line: wavefronts and sectors."""

import numpy as np
import pytest
from checked import (
    f64,
    floats,
    launch,
    marked,
    u8,
    u32,
    unset,
)
from emulated import needs_compiler

from tinyvid.kernels.emulator.check import check

pytestmark = needs_compiler


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
