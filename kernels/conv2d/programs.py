"""What the CUDA variants of 2-D convolution launch: kernels of 3-D convolution, at other sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tinyvid.kernels.conv2d import cuda
from tinyvid.kernels.conv2d.cases import CASES
from tinyvid.kernels.conv2d.over_time import over_time
from tinyvid.kernels.conv3d import cuda as conv3d
from tinyvid.kernels.conv3d import first_layer
from tinyvid.kernels.conv3d.programs import ARITHMETIC, BUDGETS
from tinyvid.kernels.inspection import Budget, Program, convolution_work

# A layer that keeps the budget of `conv3d`'s steps in full. Fewer than 33 columns would not: a tile
# of 32 has 8 x 4 sums a thread, and half as many multiply-adds stand beside the same copies, whose
# addresses alone keep them at 72 to 79 %. With 16 x 4 sums there are 80 %, and dgrad spills; what
# brings 85 % is 8 x 8, of which a layer of 96 filters (75 % now) would leave a quarter idle.
LAYER = "c3d_early_fusion"  # 3 colours x 16 frames, 3 x 3
GEOMETRY = next(case for case in CASES if case.name == LAYER).geometry
FLOAT = np.dtype(np.float32)


def _programs() -> Iterator[Program]:
    for step in cuda.STEPS:
        for pass_ in ("fprop", "dgrad", "wgrad"):
            of_3d = cuda.solid(step, pass_, GEOMETRY, FLOAT)
            plan = conv3d.STEPS[step].plan(pass_, of_3d, FLOAT)
            whole = Program(
                op="conv2d",
                pass_=pass_,
                variant=f"cuda/{step}",
                file=f"conv3d/{conv3d.STEPS[step].file}",
                kernel=f"conv3d_{pass_}_{step}",
                block=plan.threads,
                constants=conv3d.constants(step, pass_, of_3d, FLOAT),
                dynamic_shared=plan.shared,
                layer=LAYER,
                work=convolution_work(pass_, GEOMETRY),
                arithmetic=ARITHMETIC.get(step, "float32"),
                budget=BUDGETS.get(step, Budget()),
            )
            yield whole
        if step in ARITHMETIC:
            yield _part(whole, f"conv3d_round_{step}")
        if step not in ("naive", "tiled"):
            yield _part(whole, "conv3d_sum_slices")


def _part(program: Program, kernel: str) -> Program:
    """Return a kernel of the same file that does a part of any pass, in blocks of its bounds."""
    return replace(
        program,
        pass_="any",
        kernel=kernel,
        block=None,
        dynamic_shared=0,
        work=None,
        budget=Budget(),
    )


def _first_layer() -> Iterator[Program]:
    of_3d = over_time(GEOMETRY)
    for pass_ in ("fprop", "wgrad"):
        plan = first_layer.plan(pass_, of_3d, FLOAT)
        whole = Program(
            op="conv2d_uint8",
            pass_=pass_,
            variant="cuda/first_layer",
            file="conv3d/first_layer.cu",
            kernel=f"conv3d_uint8_{pass_}",
            block=plan.threads,
            constants=conv3d.constants_of(plan, of_3d, FLOAT, True),
            layer=LAYER,
            work=convolution_work(pass_, GEOMETRY, of_x=1),
            budget=Budget(registers=128),
        )
        yield whole
    yield replace(_part(whole, "conv3d_sum_slices"), pass_="wgrad")


PROGRAMS = [*_programs(), *_first_layer()]
