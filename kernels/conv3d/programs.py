"""What the CUDA variants of 3-D convolution launch, at the size of a typical layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tinyvid.kernels.conv3d import first_layer
from tinyvid.kernels.conv3d.cases import CASES, ConvCase
from tinyvid.kernels.conv3d.cuda import STEPS, constants, constants_of, unfit
from tinyvid.kernels.inspection import Budget, Program, convolution_work

LAYER = "c3d_conv3b"  # 256 channels, 3 x 3 x 3
FIRST_LAYER = "c3d_conv1"  # 3 channels

# What the machine code of each step must keep to; without an entry, it must not spill.
BUDGETS = {
    "implicit_gemm": Budget(registers=128, threads=256, ffma=0.85, wide_loads=True),
    "tf32": Budget(no_division=True, stages=2),
    "bf16": Budget(no_division=True, stages=2, ldmatrix=True),
}
ARITHMETIC = {"tf32": "tf32", "bf16": "bf16"}
SAVINGS = {"winograd": 27 / 8}  # 64 products for what takes 216 by the definition

# Kernels that do a part of a pass, by the ending of their names.
PARTS = {
    ("winograd", "fprop"): ("_filter", "_input", "_output"),
    ("winograd", "dgrad"): ("_filter", "_input", "_output"),
    ("winograd", "wgrad"): ("_gradient", "_output"),
}
_SLICED = ("implicit_gemm", "tf32", "bf16")  # steps that cut sums, for any pass


def _programs() -> Iterator[Program]:
    for step in STEPS:
        for pass_ in ("fprop", "dgrad", "wgrad"):
            case = next(case for case in CASES if case.name == LAYER)
            if unfit(step, pass_, case.geometry) is not None:
                continue
            whole = _program(step, pass_, case)
            yield whole
            for part in PARTS.get((step, pass_), ()):
                yield _part(whole, whole.kernel + part)
        if step in ARITHMETIC:
            yield _part(replace(whole, pass_="any"), f"conv3d_round_{step}")
        if step in _SLICED:
            yield _part(replace(whole, pass_="any"), "conv3d_sum_slices")


def _program(step: str, pass_: str, case: ConvCase) -> Program:
    geometry = case.geometry
    plan = STEPS[step].plan(pass_, geometry, np.dtype(np.float32))
    return Program(
        op="conv3d",
        pass_=pass_,
        variant=f"cuda/{step}",
        file=f"conv3d/{STEPS[step].file}",
        kernel=f"conv3d_{pass_}_{step}",
        block=plan.threads,
        constants=constants(step, pass_, geometry, np.dtype(np.float32)),
        dynamic_shared=plan.shared,
        layer=case.name,
        work=convolution_work(pass_, geometry),
        arithmetic=ARITHMETIC.get(step, "float32"),
        saving=SAVINGS.get(step, 1.0),
        budget=BUDGETS.get(step, Budget()),
    )


def _part(program: Program, kernel: str) -> Program:
    """Return a kernel of the same file that does a part of the pass, in blocks of its bounds."""
    return replace(program, kernel=kernel, block=None, dynamic_shared=0, work=None, budget=Budget())


def _first_layer() -> Iterator[Program]:
    case = next(case for case in CASES if case.name == FIRST_LAYER)
    for pass_ in ("fprop", "wgrad"):
        plan = first_layer.plan(pass_, case.geometry, np.dtype(np.float32))
        whole = Program(
            op="conv3d_uint8",
            pass_=pass_,
            variant="cuda/first_layer",
            file="conv3d/first_layer.cu",
            kernel=f"conv3d_uint8_{pass_}",
            block=plan.threads,
            constants=constants_of(plan, case.geometry, np.dtype(np.float32), True),
            layer=case.name,
            work=convolution_work(pass_, case.geometry, of_x=1),
            budget=Budget(registers=128),
        )
        yield whole
    yield _part(whole, "conv3d_sum_slices")


PROGRAMS = [*_programs(), *_first_layer()]
