"""Modules and functions on the emulator, with the interface of `cupy.RawModule`.

>>> module = Module("scale.cu")
>>> module.get_function("scale")((grid,), (block,), (x, np.float32(2), np.int32(x.size)))

Arrays are NumPy arrays and are worked on in place. A launch returns when it has ended.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tinyvid.errors import UserError, nearest
from tinyvid.kernels.emulator import lines, native
from tinyvid.kernels.emulator.arguments import Arguments
from tinyvid.kernels.emulator.build import Build, build, no_kernel
from tinyvid.kernels.emulator.found import AccessError, Finding, LineCount
from tinyvid.kernels.emulator.report import Checker
from tinyvid.kernels.emulator.settings import SCHEDULES, Options, current

# What every GPU since compute capability 5 allows.
MOST_THREADS, MOST_BLOCK, MOST_GRID = 1024, (1024, 1024, 64), (2**31 - 1, 65535, 65535)


Sizes: TypeAlias = tuple[tuple[int, int, int], tuple[int, int, int]]

_SPACE = {False: native.GLOBAL, True: native.CONSTANT}
# Of all libraries: the handlers of signals that a launch sets up are the process's.
_ONE_AT_A_TIME = threading.Lock()


class KernelFault(RuntimeError):
    """A kernel did what ends its launch, such as wait for a thread that does not come.

    Attributes:
        kind: such as `divergent barrier`. text: what happened, in a sentence.
        kernel: its name. file, line: where. block, thread: (x, y, z) of who met it first.
    """

    def __init__(self, kernel: str, fault: native.Fault, place: lines.Place, text: str = ""):
        self.kind, self.text = fault.kind.decode(), text or fault.text.decode()
        self.kernel = kernel
        self.file, self.line = place.file, place.line
        self.block, self.thread = fault.block.tuple(), fault.thread.tuple()
        super().__init__(
            f"{lines.shown(self.file)}:{self.line}: {self.kind} in {kernel}, "
            f"block {self.block}, thread {self.thread}: {self.text}"
        )


class KernelInterrupted(KeyboardInterrupt):
    """Ctrl-C has ended a launch; the message says where the kernel was."""

    def __init__(self, kernel: str, fault: native.Fault, place: lines.Place):
        where = ""
        if place.line:
            block, thread = fault.block.tuple(), fault.thread.tuple()
            where = f" in {place}, block {block}, thread {thread}"
            where += f"; {fault.text.decode()}" if fault.text else ""
        super().__init__(f"{kernel} was running{where}")


@dataclass
class Launched:
    """A checked launch that has ended, as `Options.watch` gets it.

    Attributes:
        module: what ran. kernel: the kernel's name. grid, block: its sizes.
        findings: what the checker found, a fault included.
        counts: what lines cost, with `Options.count_lines`.
        fault: what ended it, or None.
    """

    module: Module
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    findings: list[Finding]
    counts: list[LineCount]
    fault: KernelFault | None


class Module:
    """A kernel file, compiled for the emulator.

    Args:
        file, constants, name_expressions, include: as for `build.build`, which says what is
            raised.
        enable_cooperative_groups: launch kernels cooperatively, all blocks alive at once, so that
            they may call `grid_sync()`.

    Under `options(checked=True)` its functions run a second build, made when it is first needed;
    `__device__` and `__constant__` variables of the two are apart.
    """

    def __init__(
        self,
        file: str | Path,
        constants: Mapping[str, object] | None = None,
        name_expressions: Sequence[str] = (),
        enable_cooperative_groups: bool = False,
        include: Sequence[str | Path] = (),
    ):
        self.file, self.constants, self.include = Path(file), dict(constants or {}), tuple(include)
        self.name_expressions = tuple(name_expressions)
        self.cooperative = enable_cooperative_groups
        self._built: dict[bool, tuple[Build, native.Library]] = {}
        self._lock = threading.Lock()
        self.built(current().checked)

    def built(self, checked: bool) -> tuple[Build, native.Library]:
        """Return the build, checked or not, and its library."""
        with self._lock:
            if checked not in self._built:
                made = build(
                    self.file, self.constants, self.name_expressions, checked, self.include
                )
                self._built[checked] = made, native.Library(made.library)
            return self._built[checked]

    def get_function(self, name: str) -> Function:
        """Return a kernel: an `extern "C"` one by its name, a template's instance by the name
        expression it was asked for with.

        Raises:
            UserError: there is none of that name.
        """
        made, library = self.built(current().checked)
        if name not in library.kernels:
            known = made.source.kernel(name)
            if known is None:
                raise no_kernel(self.file, name, library.kernels)
            how = "is a template:" if known.template else 'is not extern "C": make it so, or'
            raise UserError(
                f"{self.file} has no kernel {name!r}. It {how} name it in name_expressions"
            )
        return Function(self, name)

    def get_global(self, name: str) -> Global:
        """Return a `__device__` or `__constant__` variable.

        Raises:
            UserError: there is none of that name.
        """
        _, library = self.built(current().checked)
        if name not in library.variables:
            known = ", ".join(library.variables) or "none"
            raise UserError(
                f"{self.file} has no __device__ or __constant__ variable {name!r}. It has {known}."
                f"{nearest(name, library.variables)}"
            )
        return Global(self, name)


class Global:
    """A variable of a module, with the part of `cupy.cuda.MemoryPointer` that launchers use."""

    def __init__(self, module: Module, name: str):
        self.module, self.name = module, name

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self._variable().bytes

    def copy_from_host(self, memory: int | ctypes.c_void_p, size: int) -> None:
        """Fill it with `size` bytes from the address `memory`."""
        variable = self._variable(size)
        ctypes.memmove(variable.address, memory, size)

    def copy_to_host(self, memory: int | ctypes.c_void_p, size: int) -> None:
        """Copy `size` bytes of it to the address `memory`."""
        variable = self._variable(size)
        ctypes.memmove(memory, variable.address, size)

    def _variable(self, size: int = 0) -> native.Variable:
        variable = self.module.built(current().checked)[1].variables[self.name]
        if size > variable.bytes:
            raise UserError(f"{self.name} has {variable.bytes} bytes, not {size}")
        return variable


class Function:
    """A kernel of a module; call it to launch it."""

    def __init__(self, module: Module, name: str):
        self.module, self.name = module, name

    @property
    def parameters(self) -> list[tuple[str, native.Parameter]]:
        """Its parameters: names, and what kind of value each takes."""
        made, library = self.module.built(current().checked)
        kernel = library.kernels[self.name]
        source = made.source.kernel(self.name)
        names = source.parameters if source else []
        if len(names) != kernel.parameter_count:
            names = [f"argument_{i}" for i in range(kernel.parameter_count)]
        return [(name, kernel.parameters[i]) for i, name in enumerate(names)]

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
    ) -> None:
        """Launch the kernel and wait for its end.

        Args:
            grid: blocks along x (y, z). block: threads of each along x (y, z).
            args: one a parameter. For a pointer an array whose elements are of its type, or
                None; for a number a NumPy scalar of its type or, for an integer, an int.
            shared_mem: bytes of dynamic shared memory.

        Raises:
            UserError: a size or an argument is not what the kernel takes.
            KernelFault: the kernel met a fault.
            KernelInterrupted: Ctrl-C ended it.
            AccessError: the checker found one, and no `Options.watch` is there to be told.
        """
        options = current()
        _, library = self.module.built(options.checked)
        kernel = library.kernels[self.name]
        sizes = _check_sizes(self.name, kernel, grid, block)
        names = [name for name, _ in self.parameters]
        arguments = Arguments(self.name, kernel, names, args, guarded=options.checked)
        regions = arguments.regions + [
            native.Region(v.name, v.address, v.bytes, _SPACE[v.constant], None)
            for v in library.variables.values()
        ]
        request = native.Request(
            native.Triple(*sizes[0]),
            native.Triple(*sizes[1]),
            int(shared_mem),
            arguments.pointers,
            (native.Region * len(regions))(*regions),
            len(regions),
            SCHEDULES.index(options.schedule),
            options.seed,
            options.copies == "late",
            self.module.cooperative,
            1 if options.checked else _workers(options),
            _python_only_raises(),
        )
        if options.checked:
            launched = self._launch_checked(library, request, sizes, options)
            arguments.finish()
            if options.watch is not None:
                options.watch(launched)
            elif launched.findings:
                raise AccessError(launched.findings)
            error = launched.fault
        else:
            with _ONE_AT_A_TIME:
                fault = library.launch(kernel, request)
            error = _error(self.name, fault, library, [])
        if error is not None:
            raise error

    def _launch_checked(
        self, library: native.Library, request: native.Request, sizes: Sizes, options: Options
    ) -> Launched:
        checker = Checker(library.handle, library.path)
        with _ONE_AT_A_TIME:
            checker.options(count_lines=options.count_lines)
            fault = library.launch(library.kernels[self.name], request)
            findings = checker.take_findings(self.name, *sizes)
            counts = checker.take_counts() if options.count_lines else []
        error = _error(self.name, fault, library, findings)
        return Launched(self.module, self.name, *sizes, findings, counts, error)


def _error(
    kernel: str, fault: native.Fault | None, library: native.Library, findings: list[Finding]
) -> KernelFault | None:
    if fault is None:
        return None
    if fault.code:  # met by the processor
        place = lines.line_of(library.path, fault.code)
    elif fault.site.file is None:  # met by the checker, whose last finding says more
        return KernelFault(kernel, fault, findings[-1].place, findings[-1].text)
    else:
        place = lines.Place(fault.site.file.decode(), fault.site.line)
    if fault.kind == b"interrupted":
        raise KernelInterrupted(kernel, fault, place)
    return KernelFault(kernel, fault, place)


def _python_only_raises() -> bool:
    """Whether Ctrl-C means nothing to Python here but KeyboardInterrupt (see crash.h)."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def _check_sizes(
    kernel: str, entry: native.Kernel, grid: Sequence[int], block: Sequence[int]
) -> Sizes:
    sizes = _sizes("grid", grid, MOST_GRID), _sizes("block", block, MOST_BLOCK)
    threads, most = math.prod(sizes[1]), entry.most_threads or MOST_THREADS
    if threads > most:
        why = "its __launch_bounds__ allow" if entry.most_threads else "a GPU takes at most"
        raise UserError(f"{kernel}: block={tuple(block)} has {threads} threads; {why} {most}")
    return sizes


def _sizes(name: str, sizes: Sequence[int], most: tuple[int, int, int]) -> tuple[int, int, int]:
    x, y, z = (*(int(size) for size in sizes), 1, 1)[:3]
    for axis, size, limit in zip("xyz", (x, y, z), most, strict=True):
        if len(sizes) > 3 or not 1 <= size <= limit:
            raise UserError(
                f"{name}={tuple(sizes)}: give 1 to 3 sizes; {axis} must be from 1 to {limit}"
            )
    return x, y, z


def _workers(options: Options) -> int:
    if options.workers:
        return options.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
