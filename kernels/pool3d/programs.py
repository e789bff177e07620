"""What the CUDA variants of 3-D pooling launch, at the size of a typical layer."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tinyvid.geometry import PoolGeometry
from tinyvid.kernels.inspection import Program, Work
from tinyvid.kernels.pool3d import argmax_dtype, cuda
from tinyvid.kernels.pool3d.cases import CASES

LAYER = "c3d pool2"  # 128 channels, windows of 2 x 2 x 2


def work_of(pass_: str, geometry: PoolGeometry, element: int = 4) -> Work:
    """Return the work of a pass: an operation for each cell of a window, each array moved once.

    Args:
        pass_: of `cuda.PASSES`. element: bytes of a number.
    """
    x, y = (math.prod(shape) * element for shape in (geometry.x, geometry.y))
    offsets = math.prod(geometry.y) * argmax_dtype(geometry).itemsize
    cells = math.prod(geometry.y) * math.prod(geometry.window)
    return {
        "max_fprop": Work(cells, x, y + offsets),
        "max_dgrad": Work(cells, y + offsets, x),
        # Of x it reads the cells that argmax names.
        "max_gather": Work(0, y + offsets, y),
        "avg_fprop": Work(cells, x, y),
        "avg_dgrad": Work(cells, y, x),
    }[pass_]


def _programs() -> Iterator[Program]:
    geometry = next(case for case in CASES if case.name == LAYER).geometry
    for name, step in cuda.STEPS.items():
        for pass_ in step.passes:
            kind, _, of_kernel = pass_.partition("_")
            yield Program(
                op=f"{kind}_pool3d",
                pass_=of_kernel,
                variant=f"cuda/{name}",
                file=f"pool3d/{step.file}",
                kernel=f"pool3d_{pass_}_{name}",
                block=cuda.THREADS,
                constants=cuda.constants(geometry, np.float32),
                layer=LAYER,
                work=work_of(pass_, geometry),
            )


PROGRAMS = [*_programs()]
