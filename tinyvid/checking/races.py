"""Kernels under the emulator's checker: races, stray accesses, reads of what was never written."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinyvid.checking.suite import problems_of
from tinyvid.kernels import Kernel, Variant
from tinyvid.kernels.emulator.check import check


def arguments(
    kernel: Kernel, variant: Variant, dtype: str = "float32"
) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the name and the random arguments of each case that a variant takes."""
    found = []
    for problem in problems_of(kernel, variant, "emulator"):
        rng = np.random.default_rng(0)
        args = problem.arguments(kernel.pass_, partial(_random, rng, dtype))
        if variant.unfit is None or variant.unfit(*args) is None:
            found.append((problem.name, args))
    return found


def check_accesses(kernel: Kernel, variant: Variant, dtype: str = "float32") -> list[str]:
    """Run a CUDA variant on all cases that it takes, in every schedule, under the checker.

    Returns:
        What was found, a sentence each.
    """
    found: list[str] = []
    for name, args in arguments(kernel, variant, dtype):
        report = check(partial(variant.function, *args, device="emulator"), count_lines=False)
        found += [f"{name}: {finding}" for finding in report.findings]
    return found


def _random(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)
