"""How a variant launches a CUDA kernel: what its static facts depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.inspection.budget import Budget


@dataclass(frozen=True)
class Program:
    """One CUDA kernel that a variant launches. A module of launchers lists its own in `PROGRAMS`.

        PROGRAMS = [
            Program("cuda/tiled", "fprop", "conv3d/tiled.cu", "conv3d_fprop_tiled", 256,
                    constants=constants(CASE.geometry, np.float32), geometry=CASE.geometry),
            ...
        ]

    A variant that launches several kernels for a pass has a program for each.

    Attributes:
        variant, pass_: of the registry, such as `cuda/tiled` and `fprop`.
        file: CUDA C++, relative to the folder of the kernels.
        kernel: its symbol, or a name expression such as `scale<float, 4>`.
        block: threads of a block.
        constants: macros it is compiled with: the sizes of a typical layer.
        dynamic_shared: bytes of dynamic shared memory of a block.
        geometry: of that layer, for arithmetic intensity and roofline; None for a kernel that
            does only a part of the pass, such as a transform or a sum of partial results.
        arithmetic: which units multiply: `float32`, `tf32` or `bf16` (tensor cores), `float64`.
        saving: how many times fewer multiplications the algorithm needs than the definition:
            27 / 8 for Winograd's F(2x2x2, 3x3x3).
        budget: what the machine code must keep to. Every kernel must not spill.
    """

    variant: str
    pass_: str
    file: str
    kernel: str
    block: int
    constants: Mapping[str, Any] = field(default_factory=dict)
    dynamic_shared: int = 0
    geometry: ConvGeometry | None = None
    arithmetic: str = "float32"
    saving: float = 1.0
    budget: Budget = field(default_factory=Budget)
