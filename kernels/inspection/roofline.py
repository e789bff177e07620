"""What arithmetic and memory allow a pass to reach on a GPU: a bound, never a time measured.

A pass must read its two arrays and write its result at least once, and multiply as often as its
definition says. No kernel can be faster than the larger of the two times that these take at the
GPU's peaks. Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance
model for multicore architectures", Communications of the ACM 52 (4), 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyvid.errors import UserError, nearest
from tinyvid.geometry import ConvGeometry

BYTES = {"float32": 4, "tf32": 4, "bf16": 4, "float64": 8}  # an element in memory


@dataclass(frozen=True)
class GPU:
    """Peaks of a GPU at its boost clock, of matrices without sparsity, from the vendor.

    Attributes:
        arch: its architecture, such as `sm_90`.
        peaks: 10^12 operations a second, two for a multiply-add, by arithmetic. `tf32` and `bf16`
            are the tensor cores', with sums in float32.
        bandwidth: of its memory, in 10^9 bytes a second.
        source: where the numbers stand.
    """

    name: str
    arch: str
    peaks: dict[str, float]
    bandwidth: float
    source: str


GPUS = [
    GPU(
        "H100 SXM",
        "sm_90",
        {"float32": 66.9, "tf32": 494.7, "bf16": 989.4, "float64": 33.5},
        3350,
        "NVIDIA H100 Tensor Core GPU data sheet, and the Hopper architecture white paper, table 2",
    ),
    GPU(
        "A100 SXM 80GB",
        "sm_80",
        {"float32": 19.5, "tf32": 156, "bf16": 312, "float64": 9.7},
        2039,
        "NVIDIA A100 Tensor Core GPU data sheet",
    ),
    GPU(
        "RTX 4090",
        "sm_89",
        {"float32": 82.6, "tf32": 82.6, "bf16": 165.2, "float64": 1.29},
        1008,
        "NVIDIA Ada GPU architecture white paper, appendix A",
    ),
]


@dataclass(frozen=True)
class Bound:
    """What a GPU allows.

    Attributes:
        seconds: the least time that the pass takes.
        tflops: 10^12 operations of the definition a second, at most.
        by: what sets the bound, `arithmetic` or `memory`.
    """

    seconds: float
    tflops: float
    by: str


def flops(geometry: ConvGeometry) -> int:
    """Operations of one pass, two for each multiply-add; those with padding count too."""
    return 2 * geometry.macs


def compulsory_bytes(geometry: ConvGeometry, arithmetic: str = "float32") -> int:
    """Bytes that any pass must move: x, w and y, or their gradients, once each."""
    return _element(arithmetic) * sum(math.prod(s) for s in (geometry.x, geometry.w, geometry.y))


def intensity(geometry: ConvGeometry, arithmetic: str = "float32") -> float:
    """Operations for each byte that must be moved."""
    return flops(geometry) / compulsory_bytes(geometry, arithmetic)


def bound(
    geometry: ConvGeometry, gpu: GPU, arithmetic: str = "float32", saving: float = 1.0
) -> Bound:
    """Return the bound of a pass, which is the same for all three.

    Args:
        geometry: the sizes. gpu: one of `GPUS`.
        arithmetic: `float32`, `tf32`, `bf16` or `float64`.
        saving: how many times fewer multiplications the algorithm needs than the definition.

    Raises:
        UserError: no such arithmetic.
    """
    arithmetic_time = flops(geometry) / saving / (_peak(gpu, arithmetic) * 1e12)
    memory_time = compulsory_bytes(geometry, arithmetic) / (gpu.bandwidth * 1e9)
    seconds = max(arithmetic_time, memory_time)
    by = "arithmetic" if arithmetic_time >= memory_time else "memory"
    return Bound(seconds, flops(geometry) / seconds / 1e12, by)


def _peak(gpu: GPU, arithmetic: str) -> float:
    _element(arithmetic)
    return gpu.peaks[arithmetic]


def _element(arithmetic: str) -> int:
    if arithmetic not in BYTES:
        raise UserError(
            f"no arithmetic is called {arithmetic!r}; there is {', '.join(BYTES)}."
            f"{nearest(arithmetic, BYTES)}"
        )
    return BYTES[arithmetic]
