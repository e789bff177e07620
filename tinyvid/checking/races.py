"""Kernels under the emulator's checker: races, stray accesses, reads of what was never written."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinyvid.checking.suite import problems
from tinyvid.kernels import Kernel, Variant
from tinyvid.kernels.emulator import Launched, options

# Orders of the threads, and when asynchronous copies land.
SCHEDULES = (("forward", "early"), ("reversed", "late"), ("shuffled", "late"))


def arguments(
    kernel: Kernel, variant: Variant, dtype: str = "float32"
) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the name and the random arguments of each case that a variant takes."""
    found = []
    for problem in problems(kernel.op):
        rng = np.random.default_rng(0)
        args = problem.call(kernel.pass_, partial(_random, rng, dtype))
        if variant.unfit is None or variant.unfit(*args) is None:
            found.append((problem.name, args))
    return found


def check_accesses(kernel: Kernel, variant: Variant, dtype: str = "float32") -> list[str]:
    """Run a CUDA variant on all cases that it takes, in several schedules, under the checker.

    Returns:
        What was found, a sentence each.
    """
    found: list[str] = []
    for name, args in arguments(kernel, variant, dtype):
        for schedule, copies in SCHEDULES:
            note = partial(_note, found, f"{name}, {schedule}, copies {copies}")
            with options(checked=True, schedule=schedule, copies=copies, watch=note):
                variant.function(*args, device="emulator")
    return found


def _note(found: list[str], where: str, launched: Launched) -> None:
    found.extend(f"{where}: {finding}" for finding in launched.findings)


def _random(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)
