"""Occupancy against NVIDIA's published examples, and against limits worked out by hand."""

import pytest

from tinyvid.errors import UserError
from tinyvid.kernels.inspection.occupancy import MULTIPROCESSORS, Occupancy, occupancy

# CUDA C++ Best Practices Guide, "Calculating Occupancy": 37 registers, on a multiprocessor with
# 65,536 registers and 64 warps, which those of compute capability 8.0 and 9.0 have too.
# CUDA C++ Programming Guide, "Multiprocessor Level": 64 registers and 512 threads exactly fill
# the registers with two blocks; with one register more there is only one.
PUBLISHED = [
    (128, 37, 12, 0.75),
    (320, 37, 4, 0.625),
    (512, 64, 2, 0.5),
    (512, 65, 1, 0.25),
]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize(("threads", "registers", "blocks", "share"), PUBLISHED)
def test_published_examples(arch, threads, registers, blocks, share):
    found = occupancy(arch, threads, registers)
    assert (found.blocks, found.share) == (blocks, share)
    assert found.limiters == ("registers",)


def test_each_limit_is_named():
    assert occupancy("sm_80", 256, 32).limiters == ("registers", "warps")
    assert occupancy("sm_80", 1024, 16) == Occupancy(2, 64, 1.0, ("warps",))
    assert occupancy("sm_80", 32, 16) == Occupancy(32, 32, 0.5, ("blocks",))
    assert occupancy("sm_80", 128, 32, 40_000) == Occupancy(4, 16, 0.25, ("shared memory",))
    assert occupancy("sm_80", 256, 128) == Occupancy(2, 16, 0.25, ("registers",))


@pytest.mark.parametrize(
    ("arch", "shared", "blocks"),
    [
        # The system takes 1024 bytes of each block: 2 x (80 + 1) KiB fit into 164 KiB, 81 do not.
        ("sm_80", 81 * 1024, 2),
        ("sm_80", 81 * 1024 + 1, 1),
        ("sm_80", 163 * 1024, 1),
        ("sm_80", 163 * 1024 + 1, 0),
        ("sm_89", 99 * 1024, 1),
        ("sm_89", 99 * 1024 + 1, 0),
        ("sm_90", 113 * 1024, 2),
        ("sm_90", 227 * 1024, 1),
        ("sm_100", 227 * 1024 + 1, 0),
        # Blocks get multiples of 128 bytes: 10 blocks of 16,768 are 167,680 of 167,936 bytes.
        ("sm_80", 15 * 1024 + 384, 10),
        ("sm_80", 15 * 1024 + 385, 9),
    ],
)
def test_shared_memory(arch, shared, blocks):
    found = occupancy(arch, 64, 16, shared)
    assert found.blocks == blocks
    assert "shared memory" in found.limiters


def test_registers_are_given_out_in_multiples_to_warps():
    # 33 registers x 32 threads = 1056, rounded up to 1280; a quarter of the registers holds 12.
    assert occupancy("sm_80", 32 * 12, 33).blocks == 4
    assert occupancy("sm_80", 32 * 12, 40).blocks == 4
    assert occupancy("sm_80", 32 * 12, 41).blocks == 3
    # 255 registers: two warps in each quarter. Five warps count as eight when a launch is
    # checked, which just fits; nine count as twelve, which do not.
    assert occupancy("sm_80", 32 * 5, 255).blocks == 1
    assert occupancy("sm_80", 32 * 9, 255) == Occupancy(0, 0, 0.0, ("registers",))
    assert occupancy("sm_80", 32, 256).blocks == 0


def test_a_part_of_a_warp_takes_a_whole_one():
    assert occupancy("sm_90", 33, 64).warps == occupancy("sm_90", 64, 64).warps


def test_consumer_gpus_hold_fewer_warps():
    assert occupancy("sm_89", 1024, 16) == Occupancy(1, 32, 32 / 48, ("warps",))
    assert occupancy("sm_89", 32, 16).blocks == 24
    assert occupancy("sm_86", 32, 16).blocks == 16


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="'sm_70' are not known, only those of sm_80"):
        occupancy("sm_70", 128, 32)
    for threads in (0, 1025):
        with pytest.raises(UserError, match=f"a block of {threads} threads"):
            occupancy("sm_80", threads, 32)
    assert set(MULTIPROCESSORS) >= {"sm_80", "sm_89", "sm_90", "sm_100"}
    assert occupancy("sm_90a", 128, 32) == occupancy("sm_90", 128, 32)
