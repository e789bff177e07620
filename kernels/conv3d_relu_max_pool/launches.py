"""Every launch of the CUDA variant of convolution with max pooling, for the access checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinyvid.kernels.conv3d_relu_max_pool import cuda
from tinyvid.kernels.conv3d_relu_max_pool.cases import CASES


def launches(file: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the launches: a name, and what makes it. Every case that is not large, in float32."""
    for case in CASES:
        if case.large:
            continue
        rng = np.random.default_rng(0)
        x, w, bias = (
            rng.standard_normal(shape).astype(np.float32) for shape in (case.x, case.w, case.w[:1])
        )
        sizes = case.geometry, case.pool
        yield f"fprop {case.name}", partial(cuda.fprop, x, w, bias, *sizes, device="emulator")
