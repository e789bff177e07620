"""Shared memory is read and written in as few wavefronts as possible, counted by the emulator."""

import shutil

import numpy as np
import pytest

from tinyvid.geometry import conv_geometry
from tinyvid.kernels.conv3d import cuda
from tinyvid.kernels.conv3d.programs import BUDGETS

# Whole tiles of outputs, more than two stages of the sum, and padding at the edges.
GEOMETRY = conv_geometry((1, 32, 2, 8, 16), (128, 32, 1, 3, 3), padding=(0, 1, 1))
NARROW = conv_geometry((1, 64, 2, 8, 16), (64, 64, 1, 2, 2), padding=(0, 1, 1))
LETTERS = {"fprop": ("x", "w"), "dgrad": ("y", "w"), "wgrad": ("y", "x")}


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the emulator needs a C++17 compiler",
)


@needs_compiler
@pytest.mark.parametrize("pass_", LETTERS)
@pytest.mark.parametrize(
    ("step", "geometry"),
    [
        *((step, GEOMETRY) for step in BUDGETS if step in cuda.STEPS),
        ("implicit_gemm", NARROW),  # tiles of 64 columns, and twice as many rows
    ],
    ids=lambda part: part if isinstance(part, str) else f"{part.w[0]} filters",
)
def test_no_bank_conflicts(step, geometry, pass_):
    from tinyvid.kernels.emulator.check import check

    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal(getattr(geometry, letter)).astype(np.float32)
        for letter in LETTERS[pass_]
    ]
    launch = getattr(cuda, pass_)
    report = check(
        lambda: launch(*arrays, geometry, step=step, device="emulator"), ["forward"], ["late"]
    )
    shared = [count for count in report.counts if count.space == "shared"]
    assert shared, "the kernel uses no shared memory"
    costly = [f"{c.place} {c.access}: {c.ratio:.2f}" for c in shared if c.moved > c.fewest]
    assert costly == []
