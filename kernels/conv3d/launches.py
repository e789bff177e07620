"""Every launch of the CUDA variants of 3-D convolution on their cases, for the access checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinyvid.kernels.conv3d import cuda, first_layer
from tinyvid.kernels.conv3d.cases import CASES, UINT8_CASES


def launches(file: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the launches of one of this folder's kernel files: a name, and what makes it.

    Every case that is not large, each pass in float32; where the step takes it, fprop with bias
    and ReLU in one of them.
    """
    if file == "first_layer.cu":
        yield from _first_layer()
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


def _first_layer() -> Iterator[tuple[str, Callable[[], object]]]:
    rng = np.random.default_rng(0)
    mean, std = (0.4, 0.45, 0.5), (0.2, 0.22, 0.25)
    for case in UINT8_CASES:
        geometry = case.geometry
        if case.large or first_layer.unfit(geometry) is not None:
            continue
        x = rng.integers(0, 256, geometry.x, dtype=np.uint8)
        w, gy, bias = (
            rng.standard_normal(shape, dtype=np.float32)
            for shape in (geometry.w, geometry.y, geometry.w[:1])
        )
        numbers = mean, std, geometry
        for run, args in (
            (first_layer.fprop, (x, w, *numbers, bias, True)),
            (first_layer.wgrad, (gy, x, *numbers)),
        ):
            yield f"{run.__name__} {case.name}", partial(run, *args, device="emulator")
