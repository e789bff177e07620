"""What the emulator's tests share."""

import functools
import shutil
from pathlib import Path

import pytest

from tinyvid.kernels.emulator import Module

HERE = Path(__file__).parent
SCHEDULES = ["forward", "reversed", "shuffled"]

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)


@functools.cache
def module(name, *name_expressions, cooperative=False):
    """Return the module of a file beside this one, built once."""
    return Module(
        HERE / name,
        name_expressions=name_expressions,
        enable_cooperative_groups=cooperative,
    )
