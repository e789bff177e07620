"""What compiled CUDA kernels are like, found out without a GPU.

| module | |
|---|---|
| `compile` | CUDA C++ to machine code with NVRTC |
| `resources` | registers, spills and shared memory, from the assembler's log |
| `sass`, `loops` | the machine code: instructions, loops, the one that does the work |
| `occupancy` | how many blocks run on a multiprocessor at once |
| `roofline` | what arithmetic and memory allow a pass to reach on a GPU |
| `facts`, `budget` | all of it together, and what a kernel must keep to |

    python -m tinyvid.kernels.inspection FILE.cu --kernel NAME --arch sm_80 -D REAL=float
"""

from tinyvid.kernels.inspection.budget import Budget
from tinyvid.kernels.inspection.program import Program
from tinyvid.kernels.inspection.roofline import Work, convolution_work

__all__ = ["Budget", "Program", "Work", "convolution_work"]
