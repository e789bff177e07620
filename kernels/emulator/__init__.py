"""Runs CUDA C++ on the CPU: the kernel's own source, a fibre for each CUDA thread.

To read how it works, start at `hooks.h` (what the parts tell each other) and `runtime.cpp` (the
scheduler); then `device.h` and what it includes (CUDA's names in terms of the runtime), and
`source.py`, `build.py` and `module.py` (from a file to a launch). The access checker begins in
`checker.cpp`; `check.py` runs launches under it, and `report.py` puts what it finds into words.

>>> from tinyvid.kernels.emulator import Module, options
>>> with options(schedule="reversed"):
...     Module("scale.cu").get_function("scale")((4,), (128,), (x, y))
"""

from tinyvid.kernels.emulator.found import AccessError, Finding
from tinyvid.kernels.emulator.module import (
    Function,
    Global,
    KernelFault,
    KernelInterrupted,
    Launched,
    Module,
)
from tinyvid.kernels.emulator.settings import Options, current, options

__all__ = [
    "AccessError",
    "Finding",
    "Function",
    "Global",
    "KernelFault",
    "KernelInterrupted",
    "Launched",
    "Module",
    "Options",
    "current",
    "options",
]
