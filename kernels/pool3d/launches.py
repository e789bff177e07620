"""Every launch of the CUDA variants of 3-D pooling on their cases, for the access checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinyvid.kernels.pool3d import cuda, reference
from tinyvid.kernels.pool3d.cases import CASES, Case


def arguments(pass_: str, case: Case, dtype: np.dtype | type = np.float32) -> tuple:
    """Return random arguments of a pass, those after the geometry included."""
    geometry = case.geometry
    rng = np.random.default_rng(0)
    x, gy = (rng.standard_normal(shape).astype(dtype) for shape in (geometry.x, geometry.y))
    if pass_.startswith("avg"):
        array = x if pass_ == "avg_fprop" else gy
        return (array, geometry, case.count_include_pad, case.divisor_override)
    if pass_ == "max_fprop":
        return (x, geometry)
    _, argmax = reference.max_fprop(x, geometry)
    return (gy if pass_ == "max_dgrad" else x, argmax, geometry)


def launches(file: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the launches of one of this folder's kernel files: a name, and what makes it.

    Every case that is not large, each pass that the step takes of it, in float32.
    """
    for name, step in cuda.STEPS.items():
        if step.file != file:
            continue
        for case in CASES:
            for pass_ in step.passes:
                if case.large or cuda.unfit(name, pass_, case.geometry) is not None:
                    continue
                if pass_.startswith("avg") and case.dilation != (1, 1, 1):
                    continue
                run = partial(getattr(cuda, pass_), *arguments(pass_, case))
                yield f"{pass_} {case.name}", partial(run, step=name, device="emulator")
