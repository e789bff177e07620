"""Every launch of the CUDA variants of 2-D convolution on their cases, for the access checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinyvid.kernels.conv2d import cuda, first_layer
from tinyvid.kernels.conv2d.cases import CASES, UINT8_CASES
from tinyvid.kernels.conv3d.cuda import STEPS as FILES


def launches(file: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the launches of one of the kernel files of 3-D convolution: a name, and what makes it.

    Every case that is not large, each pass in float32; fprop with bias and ReLU in one of them.
    """
    if file == "first_layer.cu":
        yield from _first_layer()
    for step in (step for step in cuda.STEPS if FILES[step].file == file):
        for case in CASES:
            if case.large:
                continue
            geometry = case.geometry
            x, w, gy, bias = _given(geometry.x, geometry.w, geometry.y, geometry.w[:1])
            finish = (bias, True) if case is CASES[0] else ()
            for run, args in (
                (cuda.fprop, (x, w, geometry, *finish)),
                (cuda.dgrad, (gy, w, geometry)),
                (cuda.wgrad, (gy, x, geometry)),
            ):
                if cuda.unfit(step, run.__name__, geometry) is None:
                    yield (
                        f"conv2d {run.__name__} {case.name}",
                        partial(run, *args, step=step, device="emulator"),
                    )


def _first_layer() -> Iterator[tuple[str, Callable[[], object]]]:
    mean, std = (0.4, 0.45, 0.5), (0.2, 0.22, 0.25)
    for case in UINT8_CASES:
        geometry = case.geometry
        if case.large or first_layer.unfit(geometry) is not None:
            continue
        x = np.random.default_rng(1).integers(0, 256, geometry.x, dtype=np.uint8)
        w, gy, bias = _given(geometry.w, geometry.y, geometry.w[:1])
        numbers = mean, std, geometry
        for run, args in (
            (first_layer.fprop, (x, w, *numbers, bias, True)),
            (first_layer.wgrad, (gy, x, *numbers)),
        ):
            yield f"conv2d {run.__name__} {case.name}", partial(run, *args, device="emulator")


def _given(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
