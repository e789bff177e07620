"""The access checker finds nothing in right kernels, and races where vector clocks do."""

import numpy as np
import pytest
from checked import (
    MODES,
    RACE,
    f32,
    f64,
    floats,
    found_in,
    i32,
    launch,
    u8,
    u16,
    u32,
    unset,
)
from compare import assert_close
from emulated import module, needs_compiler

from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.settings import SCHEDULES
from tinyvid.kernels.launch import write_global

pytestmark = needs_compiler


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
    def args():
        return [np.zeros(1, u32), floats(160), rounds]

    rounds = 3
    x = sound("exchange", (4,), (40,), args, cooperative=True)[1]
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
