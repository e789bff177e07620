"""What the CUDA variant of convolution with max pooling launches, at the size of C3D's layers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels.conv3d_relu_max_pool import cuda
from tinyvid.kernels.conv3d_relu_max_pool.cases import CASES
from tinyvid.kernels.inspection import Budget, Program, Work

LAYERS = ("c3d conv1", "c3d conv2")  # 3 channels, and 64


def work_of(geometry: ConvGeometry, pool: PoolGeometry, element: int = 4) -> Work:
    """Return the work: products, those with padding too; each array moved once.

    Args:
        element: bytes of a number.
    """
    cells = math.prod(pool.y[:2]) * math.prod(pool.y[2:]) * math.prod(pool.window)
    read = math.prod(geometry.x) + math.prod(geometry.w) + geometry.w[0]
    return Work(
        2 * cells * math.prod(geometry.w[1:]), element * read, (element + 1) * math.prod(pool.y)
    )


def _programs() -> Iterator[Program]:
    for layer in LAYERS:
        case = next(case for case in CASES if case.name == layer)
        sizes = case.geometry, case.pool
        yield Program(
            op="conv3d_relu_max_pool",
            pass_="fprop",
            variant="cuda/implicit_gemm",
            file="conv3d_relu_max_pool/implicit_gemm.cu",
            kernel="conv3d_relu_max_pool_fprop",
            block=cuda.plan(*sizes, np.float32).threads,
            constants=cuda.constants(*sizes, np.float32),
            layer=layer,
            work=work_of(*sizes),
            budget=Budget(registers=128, ffma=0.85),
        )


PROGRAMS = [*_programs()]
