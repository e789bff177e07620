"""Every launch of the CUDA variants of optical flow on their cases, for the access checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinyvid.kernels.flow import cuda
from tinyvid.kernels.flow.cases import CASES, Case


def frames(case: Case, dtype: np.dtype | type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Return a case's frames, of random numbers that are the same always."""
    rng = np.random.default_rng(0)
    return case.pair(lambda *shape: rng.standard_normal(shape).astype(np.float32).astype(dtype))


def launches(file: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the flows that launch one of this folder's kernel files: a name, and what makes it.

    Every case that is not large, in float32.
    """
    for case in CASES:
        if case.large:
            continue
        if file == "horn_schunck.cu":
            settings = case.alpha, case.iterations
            run = partial(cuda.naive_horn_schunck, *frames(case), *settings, device="emulator")
            yield f"horn_schunck {case.name}", run
            continue
        for step in cuda.STEPS:
            if file in ("levels.cu", f"{step}.cu"):
                run = partial(cuda.tvl1, *frames(case), case.settings, device="emulator")
                yield f"{step} {case.name}", partial(run, step=step)
