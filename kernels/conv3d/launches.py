"""Every launch of the CUDA variants of 3-D convolution on their cases, for the access checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinyvid.kernels.conv3d import cuda
from tinyvid.kernels.conv3d.cases import CASES


def launches(file: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the launches of one of this folder's kernel files: a name, and what makes it.

    Every case that is not large, each pass in float32; where the step takes it, fprop with bias
    and ReLU in one of them.
    """
    steps = [name for name, step in cuda.STEPS.items() if step.file == file]
    for step in steps:
        for case in CASES:
            if case.large:
                continue
            geometry = case.geometry
            shapes = {"x": geometry.x, "w": geometry.w, "gy": geometry.y}
            rng = np.random.default_rng(0)
            given = {
                letter: rng.standard_normal(shape, dtype=np.float32)
                for letter, shape in shapes.items()
            }
            for pass_, letters in (("fprop", "xw"), ("dgrad", ("gy", "w")), ("wgrad", ("gy", "x"))):
                if cuda.unfit(step, pass_, geometry) is not None:
                    continue
                arrays = [given[letter] for letter in letters]
                more = {}
                if pass_ == "fprop" and case is CASES[0]:
                    more = {"bias": np.ones(geometry.w[0], np.float32), "relu": True}
                run = getattr(cuda, pass_)
                yield (
                    f"{pass_} {case.name}",
                    partial(run, *arrays, geometry, step=step, device="emulator", **more),
                )
