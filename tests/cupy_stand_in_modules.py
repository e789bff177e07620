"""Modules and kernels of the stand-in for CuPy: `RawModule` on the emulator.

What CuPy or the driver would refuse is refused: options that are no tuple, a grid that is no
tuple or too large, more dynamic shared memory than was asked for beforehand, a launch argument
that is neither an array nor of a type of its own.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from pathlib import Path

import numpy as np

from tinyvid.kernels.emulator import Module

GRID = (2**31 - 1, 2**16 - 1, 2**16 - 1)
BLOCK = (1024, 1024, 64)
THREADS = 1024
# What a block may have of dynamic shared memory unless the kernel's attribute says more. A GPU
# gives what the kernel's own arrays leave of 48 KiB; not knowing them, we give nothing unasked.
SHARED = 0


class CompileException(Exception):
    """As `cupy.cuda.compiler.CompileException`."""


class CUDADriverError(RuntimeError):
    """As `cupy.cuda.driver.CUDADriverError`."""


class RawModule:
    """As `cupy.RawModule`, of sources for NVRTC."""

    def __init__(
        self,
        code,
        *,
        options=(),
        backend="nvrtc",
        name_expressions=None,
        enable_cooperative_groups=False,
    ):
        if not isinstance(options, tuple) or not all(isinstance(o, str) for o in options):
            raise TypeError(f"options must be a tuple of str, not {options!r}")
        known = ("-D", "-I", "-std=")
        if backend != "nvrtc" or not all(o.startswith(known) for o in options):
            raise AssertionError(f"the stand-in knows {known} of NVRTC, not {options} {backend}")
        if name_expressions and not any(o.startswith("-std=") for o in options):
            raise ValueError("need to specify C++ standard for compiling template code")
        self.code, self.names, self.cooperative = code, name_expressions, enable_cooperative_groups
        defined = [o[2:].partition("=") for o in options if o.startswith("-D")]
        self.constants = {name: value for name, _, value in defined}
        self.include = [Path(o[2:]) for o in options if o.startswith("-I")]
        self.module = None

    def compile(self):
        name = hashlib.sha256(self.code.encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"stand_in_{name}.cu"
        if not path.exists():
            path.write_text(self.code)
        self.module = Module(path, self.constants, self.names or (), self.cooperative, self.include)

    def get_function(self, name):
        if self.module is None:
            self.compile()
        return RawKernel(self.module.get_function(name))

    def get_global(self, name):
        if self.module is None:
            self.compile()
        return MemoryPointer(self.module.get_global(name))


class MemoryPointer:
    """As `cupy.cuda.MemoryPointer`, as far as launchers use it."""

    def __init__(self, variable):
        self.variable = variable

    def copy_from_host(self, mem, size):
        raise AssertionError("this copy does not wait for the current stream")

    def copy_from_host_async(self, mem, size, stream=None):
        raise AssertionError("this copy needs pinned memory that lives until it has ended")

    def copy_from_device_async(self, src, size, stream=None):
        if not hasattr(src, "ptr") or type(size) is not int:
            raise TypeError(f"a MemoryPointer and an int, not {type(src)} and {type(size)}")
        self.variable.copy_from_host(src.ptr, size)


class RawKernel:
    """As `cupy.RawKernel`."""

    def __init__(self, function):
        self.function, self.max_dynamic_shared_size_bytes = function, SHARED

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        for name, sizes, most in (("grid", grid, GRID), ("block", block, BLOCK)):
            if not isinstance(sizes, tuple):
                raise TypeError(f"{name} must be a tuple, not {type(sizes)}")
            fits = all(0 < n <= limit for n, limit in zip(sizes, most, strict=False))
            if not 1 <= len(sizes) <= 3 or not fits:
                raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {name} {sizes}")
        if math.prod(block) > THREADS:
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {math.prod(block)} threads")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of dynamic shared memory, "
                f"max_dynamic_shared_size_bytes is {self.max_dynamic_shared_size_bytes}"
            )
        self.function(grid, block, [_passed(a) for a in args], shared_mem=shared_mem)


def _passed(argument):
    """Return a launch argument as the emulator takes it."""
    if hasattr(argument, "host"):
        return argument.host
    if not isinstance(argument, np.generic):  # an int would be passed as eight bytes
        raise TypeError(f"Unsupported type {type(argument)} as a launch argument")
    return None if type(argument) is np.uintp and argument == 0 else argument
