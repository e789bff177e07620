"""What the CUDA variants of 3-D convolution launch, at the size of a typical layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyvid.kernels.conv3d.cases import CASES
from tinyvid.kernels.conv3d.cuda import STEPS, constants, unfit
from tinyvid.kernels.inspection import Budget, Program

LAYER = next(case for case in CASES if case.name == "c3d_conv3b")  # 256 channels, 3 x 3 x 3

# What the machine code of each step must keep to; without an entry, it must not spill.
BUDGETS = {
    "implicit_gemm": Budget(registers=128, threads=256, ffma=0.85, wide_loads=True),
}


def _programs() -> Iterator[Program]:
    geometry, dtype = LAYER.geometry, np.dtype(np.float32)
    for step, entry in STEPS.items():
        for pass_ in ("fprop", "dgrad", "wgrad"):
            if unfit(step, pass_, geometry) is not None:
                continue
            plan = entry.plan(pass_, geometry, dtype)
            yield Program(
                op="conv3d",
                pass_=pass_,
                variant=f"cuda/{step}",
                file=f"conv3d/{entry.file}",
                kernel=f"conv3d_{pass_}_{step}",
                block=plan.threads,
                constants=constants(step, pass_, geometry, dtype),
                dynamic_shared=plan.shared,
                layer=LAYER.name,
                geometry=geometry,
                budget=BUDGETS.get(step, Budget()),
            )


PROGRAMS = list(_programs())
