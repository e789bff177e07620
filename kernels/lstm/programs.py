"""What the CUDA variants of the LSTM launch, at the size of a typical layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tinyvid.kernels.inspection import Budget, Program, Work
from tinyvid.kernels.lstm import cuda
from tinyvid.kernels.lstm.cases import CASES, Case
from tinyvid.kernels.lstm.plan import GATES

LAYER = "cnn features"  # 32 sequences of 16 steps, 512 inputs, 512 hidden units

# What the machine code of each kernel must keep to; without an entry, it must not spill. Back
# through time a thread has one row of weights, so that more of the loop are loads.
BUDGETS = {
    ("fused_step", "fprop"): Budget(registers=128, threads=128, ffma=0.8),
    ("fused_step", "bprop"): Budget(registers=128, threads=128, ffma=0.7),
    ("persistent", "fprop"): Budget(registers=128, threads=256, ffma=0.8),
    ("persistent", "bprop"): Budget(registers=128, threads=256, ffma=0.7),
}


def work_of(pass_: str, case: Case, element: int = 4) -> Work:
    """Return the work of a pass, the inputs' part included; the gates' functions are left out.

    Args:
        pass_: `fprop` or `bprop`. element: bytes of a number.
    """
    N, L, inputs, H = case.batch, case.steps, case.inputs, case.hidden
    steps, gates = N * L, GATES * H
    x, states, weights = steps * inputs, steps * H, gates * (inputs + H)
    products = 2 * steps * gates * (inputs + H)  # of all gates with x and h
    saved = 2 * states + steps * gates  # h, c and gates
    if pass_ == "fprop":
        return Work(products, (x + weights + gates + 2 * N * H) * element, saved * element)
    read = 2 * states + x + weights + 2 * N * H + saved
    return Work(2 * products, read * element, (x + weights + gates + 2 * N * H) * element)


def _programs() -> Iterator[Program]:
    case = next(case for case in CASES if case.name == LAYER)
    for step, about in cuda.STEPS.items():
        for pass_ in ("fprop", "bprop"):
            plan = about.plan(pass_, case.batch, case.hidden, np.dtype(np.float32))
            whole = Program(
                op="lstm",
                pass_=pass_,
                variant=f"cuda/{step}",
                file=f"lstm/{about.file}",
                kernel=f"lstm_{pass_}_{step}",
                block=plan.threads,
                constants=cuda.constants(step, pass_, case.batch, case.hidden, np.float32),
                dynamic_shared=plan.shared,
                layer=case.name,
                work=work_of(pass_, case),
                budget=BUDGETS.get((step, pass_), Budget()),
            )
            yield whole
        yield replace(
            whole,
            kernel="lstm_rows",
            block=cuda.ROW_THREADS,
            dynamic_shared=0,
            work=None,
            budget=Budget(),
        )


PROGRAMS = [*_programs()]
