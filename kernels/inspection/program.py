"""How a variant launches a CUDA kernel: what its static facts depend on."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinyvid.kernels.inspection.budget import Budget
from tinyvid.kernels.inspection.roofline import Work
from tinyvid.kernels.registry import kernels


@dataclass(frozen=True)
class Program:
    """One CUDA kernel that a variant launches.

    An operation that has CUDA variants lists theirs as `PROGRAMS` in a module `programs` of its
    folder. A variant that launches several kernels for a pass has a program for each.

    Attributes:
        op, pass_, variant: of the registry, such as `conv3d`, `fprop` and `cuda/tiled`.
        file: CUDA C++, relative to the folder of the kernels.
        kernel: its symbol, or a name expression such as `scale<float, 4>`.
        block: threads of a block; None for those of its `__launch_bounds__`.
        constants: macros it is compiled with, among them the sizes of a typical layer.
        dynamic_shared: bytes of dynamic shared memory of a block.
        layer: the name of that layer. work: what the pass must do there, for the roofline; None
            for a kernel that does a part of the pass, such as a transform or a sum of slices.
        arithmetic: which units multiply: `float32`, `tf32` or `bf16` (tensor cores), `float64`.
        saving: how many times fewer multiplications the algorithm needs than the definition:
            27 / 8 for Winograd's F(2x2x2, 3x3x3).
        budget: what the machine code must keep to. By default it must not spill.
    """

    op: str
    pass_: str
    variant: str
    file: str
    kernel: str
    block: int | None
    constants: Mapping[str, Any] = field(default_factory=dict)
    dynamic_shared: int = 0
    layer: str = ""
    work: Work | None = None
    arithmetic: str = "float32"
    saving: float = 1.0
    budget: Budget = field(default_factory=Budget)


def programs() -> list[Program]:
    """Return the programs of all operations, in the order of the registry."""
    packages: dict[str, None] = {}
    for kernel in kernels():
        for variant in kernel.variants.values():
            packages[variant.path.partition(":")[0].rpartition(".")[0]] = None
    found: list[Program] = []
    for package in packages:
        if importlib.util.find_spec(f"{package}.programs"):
            found += importlib.import_module(f"{package}.programs").PROGRAMS
    return found
