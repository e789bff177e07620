"""What the CUDA variants of optical flow launch, at the size of the lecture's temporal stream."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tinyvid.kernels.flow import cuda
from tinyvid.kernels.flow.cases import CASES, Case
from tinyvid.kernels.flow.pyramid import SMALLEST
from tinyvid.kernels.inspection import Budget, Program, Work

LAYER = "temporal stream"  # a pair of 256 x 340 pixels, the default settings

# Operations of a pixel, additions, products, quotients and roots: of an iteration of TV-L1, of what
# each warp adds to that, of an iteration of Horn and Schunck, and of what it begins with.
OF_ITERATION, OF_WARP = 43, 147
OF_JACOBI, OF_LINEAR = 30, 27

# What the machine code of each kernel must keep to; without an entry, it must not spill. With 32
# registers the most threads that a multiprocessor takes are on it at a time, with 40 three in four.
# With 64, and 24 KiB, four blocks of `tiled` are: two that load while two compute.
BUDGETS = {
    "flow_iterate_tiled": Budget(registers=64, threads=256, no_division=True),
    "flow_linearise": Budget(registers=40, threads=256, no_division=True),
    **{
        kernel: Budget(registers=32, threads=256, no_division=True)
        for kernel in cuda.FILES
        if kernel not in ("flow_iterate_tiled", "flow_linearise")
    },
}


def work_of(op: str, case: Case, element: int = 4) -> Work:
    """Return the work of a flow: the iterations and warps of every level, each frame read once.

    Args:
        op: `tvl1` or `horn_schunck`. element: bytes of a number.
    """
    pairs, height, width = case.frames
    pixels, s = pairs * height * width, case.settings
    moved = 2 * pixels * element, 2 * pixels * element  # two frames, two planes of the flow
    if op == "horn_schunck":
        return Work(pixels * (OF_LINEAR + case.iterations * OF_JACOBI), *moved)
    sizes = [(height, width)]
    while len(sizes) < s.levels and min(sizes[-1]) >= 2 * SMALLEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    every = pairs * sum(map(math.prod, sizes))
    return Work(every * s.warps * (OF_WARP + s.iterations * OF_ITERATION), *moved)


def _programs() -> Iterator[Program]:
    case = next(case for case in CASES if case.name == LAYER)
    # What both steps of TV-L1 launch stands with the first; `whole`: it stands for its pass.
    for kernel, file in cuda.FILES.items():
        op = "horn_schunck" if "horn_schunck" in kernel else "tvl1"
        step = "tiled" if kernel.endswith("tiled") else "naive"
        whole = kernel.endswith(("tiled", "primal_naive", "schunck_iterate"))
        yield Program(
            op=op,
            pass_="flow",
            variant=f"cuda/{step}",
            file=f"flow/{file}",
            kernel=kernel,
            block=math.prod(cuda.BLOCK),
            constants=cuda.constants(np.float32),
            layer=LAYER,
            work=work_of(op, case) if whole else None,
            budget=BUDGETS.get(kernel, Budget()),
        )


PROGRAMS = [*_programs()]
