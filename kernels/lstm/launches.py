"""Every launch of the CUDA variants of the LSTM on their cases, for the access checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tinyvid.kernels.lstm import cuda, reference
from tinyvid.kernels.lstm.cases import CASES, Case


def arguments(pass_: str, case: Case, dtype: Any = np.float32) -> tuple[Any, ...]:
    """Return random arguments of a pass."""
    rng = np.random.default_rng(0)
    N, L, inputs, H = case.batch, case.steps, case.inputs, case.hidden
    shapes = [(N, L, inputs), (4 * H, inputs), (4 * H, H), (4 * H,), (N, H), (N, H)]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    lengths = None if case.lengths is None else np.array(case.lengths, np.int64)
    given: tuple[Any, ...] = (*arrays, lengths, case.reverse)
    if pass_ == "fprop":
        return given
    gh, gc = rng.standard_normal((2, N, L, H)).astype(dtype)
    return (gh, gc, *given[:3], *given[4:], *reference.fprop(*given))


def launches(file: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the launches of one of this folder's kernel files: a name, and what makes it.

    Every case that is not large, both passes in float32.
    """
    for name, step in cuda.STEPS.items():
        if step.file != file:
            continue
        for case in CASES:
            if case.large:
                continue
            for pass_ in ("fprop", "bprop"):
                run = partial(getattr(cuda, pass_), *arguments(pass_, case))
                yield f"{pass_} {case.name}", partial(run, step=name, device="emulator")
