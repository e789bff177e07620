"""What a compiled kernel takes of a multiprocessor: registers, shared memory, and spills."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinyvid.errors import UserError, nearest
from tinyvid.kernels.inspection.compile import Compiled

_ENTRY = re.compile(r"Compiling entry function '(\S+)' for '\S+'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_HEAD = re.compile(r"\.entry\s+(\S+?)\s*\(.*?\)\s*((?:\.\w+[^{\n]*\n\s*)*)\{", re.DOTALL)


@dataclass(frozen=True)
class Resources:
    """What one kernel needs.

    Attributes:
        registers: of a thread.
        spill_stores, spill_loads: bytes of a thread that did not fit into registers, counted by
            the instructions that move them.
        stack: bytes of local memory of a thread: spills, and arrays that are indexed by variables.
        shared: bytes of static shared memory of a block, without what the system reserves.
        max_threads: the largest block, from `__launch_bounds__`; None where it does not say.
    """

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int
    max_threads: int | None

    @property
    def spills(self) -> int:
        """Bytes that are stored to local memory and loaded again."""
        return self.spill_stores + self.spill_loads


def resources(compiled: Compiled) -> dict[str, Resources]:
    """Return what each kernel of a compiled file needs, by symbol, from the assembler's log."""
    bounds = _launch_bounds(compiled.ptx)
    parts = _ENTRY.split(compiled.log)[1:]
    found = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        # The kernel's own lines come first; functions that were not inlined follow.
        stack, used = _STACK.search(text), _USED.search(text)
        if stack is None or used is None:
            raise RuntimeError(f"the assembler's log says nothing of {name}:\n{text}")
        shared = _SHARED.search(text)
        found[name] = Resources(
            registers=int(used[1]),
            spill_stores=int(stack[2]),
            spill_loads=int(stack[3]),
            stack=int(stack[1]),
            shared=int(shared[1]) if shared else 0,
            max_threads=bounds.get(name),
        )
    return found


def kernel_symbol(compiled: Compiled, kernel: str) -> str:
    """Return the symbol of a kernel, given as a symbol or as a name expression.

    Raises:
        UserError: the file has no such kernel; the message lists those it has.
    """
    known = list(resources(compiled))
    symbol = compiled.names.get(kernel, kernel)
    if symbol not in known:
        raise UserError(
            f"{compiled.file} has no kernel {kernel!r}; it has {', '.join(known) or 'none'}."
            f"{nearest(kernel, known)}"
        )
    return symbol


def _launch_bounds(ptx: str) -> dict[str, int]:
    """Return the largest block of each kernel that states one."""
    bounds = {}
    for name, directives in _HEAD.findall(ptx):
        sizes = re.search(r"\.(?:maxntid|reqntid)\s+([\d, ]+)", directives)
        if sizes:
            threads = 1
            for size in sizes[1].split(","):
                threads *= int(size)
            bounds[name] = threads
    return bounds
