"""What arithmetic and memory allow a pass to reach on a GPU: a bound, never a time measured.

A pass must read its operands and write its results at least once, and compute as much as its
definition says. No kernel can be faster than the larger of the two times that these take at the
GPU's peaks. Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance
model for multicore architectures", Communications of the ACM 52 (4), 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyvid.errors import UserError, nearest
from tinyvid.geometry import ConvGeometry


@dataclass(frozen=True)
class Work:
    """What a pass must do at the least, however it is computed.

    Attributes:
        flops: operations of its definition, two for each multiply-add.
        read, written: bytes of its operands and of its results, each array once.
    """

    flops: int
    read: int
    written: int

    @property
    def bytes(self) -> int:
        """Bytes that any kernel must move."""
        return self.read + self.written

    @property
    def intensity(self) -> float:
        """Operations for each byte that must be moved."""
        return self.flops / self.bytes


def convolution_work(pass_: str, geometry: ConvGeometry, element: int = 4, of_x: int = 0) -> Work:
    """Return the work of a pass of a convolution; products with padding count too.

    Args:
        pass_: `fprop`, `dgrad` or `wgrad`.
        element: bytes of an element: 4 for tensor cores too, which round on the way in.
        of_x: those of an element of x where it differs: 1 for a clip of bytes.
    """
    sizes = {letter: math.prod(getattr(geometry, letter)) * element for letter in "xwy"}
    sizes["x"] = sizes["x"] // element * (of_x or element)
    written = sizes[{"fprop": "y", "dgrad": "x", "wgrad": "w"}[pass_]]
    return Work(2 * geometry.macs, sum(sizes.values()) - written, written)


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


def bound(work: Work, gpu: GPU, arithmetic: str = "float32", saving: float = 1.0) -> Bound:
    """Return the bound of a pass.

    Args:
        work: what it must do. gpu: one of `GPUS`.
        arithmetic: `float32`, `tf32`, `bf16` or `float64`.
        saving: how many times fewer multiplications the algorithm needs than the definition.

    Raises:
        UserError: no such arithmetic.
    """
    arithmetic_time = work.flops / saving / (_peak(gpu, arithmetic) * 1e12)
    memory_time = work.bytes / (gpu.bandwidth * 1e9)
    seconds = max(arithmetic_time, memory_time)
    by = "arithmetic" if arithmetic_time >= memory_time else "memory"
    return Bound(seconds, work.flops / seconds / 1e12, by)


def _peak(gpu: GPU, arithmetic: str) -> float:
    if arithmetic not in gpu.peaks:
        raise UserError(
            f"no arithmetic is called {arithmetic!r}; there is {', '.join(gpu.peaks)}."
            f"{nearest(arithmetic, gpu.peaks)}"
        )
    return gpu.peaks[arithmetic]
