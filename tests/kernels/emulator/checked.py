"""Launches of test kernels on the checked emulator, and what is found in them."""

import itertools
from pathlib import Path

import numpy as np
from emulated import module

from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.found import AccessError, Finding
from tinyvid.kernels.emulator.settings import COPIES, SCHEDULES
from tinyvid.kernels.launch import empty

HERE = Path(__file__).parent
MODES = list(itertools.product(SCHEDULES, COPIES))

f32, f64, i32, u8, u16, u32 = np.float32, np.float64, np.int32, np.uint8, np.uint16, np.uint32
RACE, OUT, UNSET = "race", "out of bounds", "uninitialised read"


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
