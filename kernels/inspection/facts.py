"""All that is known of a kernel from its machine code, for one architecture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyvid.kernels.inspection.compile import compile_file
from tinyvid.kernels.inspection.loops import main_loop
from tinyvid.kernels.inspection.occupancy import Occupancy, occupancy
from tinyvid.kernels.inspection.resources import Resources, kernel_symbol, resources
from tinyvid.kernels.inspection.sass import (
    Function,
    Instruction,
    counts,
    functions,
    integer_divisions,
    widths,
)

MULTIPLY_ADDS = ("FFMA", "DFMA", "HMMA")


@dataclass(frozen=True)
class LoopFacts:
    """The main loop of a kernel, or all of its code where nothing is repeated.

    Attributes:
        repeats: whether it is a loop.
        size: instructions. kinds: how many there are of each kind.
        load_bits: how many global loads, asynchronous ones too, move so many bits.
        shared_bits: likewise the loads from shared memory.
        divisions: where integers are divided by what varies, each a `file:line`.
        stages: of asynchronous copies, at least; 0 where there are none.
        lines: the first and the last line of the kernel's own file that it comes from.
        code: its instructions.
    """

    repeats: bool
    size: int
    kinds: Mapping[str, int]
    load_bits: Mapping[int, int]
    shared_bits: Mapping[int, int]
    divisions: tuple[str, ...]
    stages: int
    lines: tuple[int, int]
    code: tuple[Instruction, ...] = field(repr=False)

    @property
    def multiply_adds(self) -> int:
        """Instructions that multiply and add floats, of scalars."""
        return self.kinds.get("FFMA", 0) + self.kinds.get("DFMA", 0)

    @property
    def ffma_share(self) -> float:
        """The share of them in all instructions."""
        return self.multiply_adds / self.size


@dataclass(frozen=True)
class Facts:
    """What is known of a kernel, compiled for `arch` and launched in blocks of `threads`.

    `shared` is the bytes of shared memory of a block, static and dynamic; `local` says how many
    instructions of each `file:line` move words to or from local memory, such as spilled registers.
    """

    file: Path
    kernel: str
    arch: str
    nvrtc: str
    threads: int
    shared: int
    resources: Resources
    occupancy: Occupancy
    loop: LoopFacts
    local: Mapping[str, int] = field(default_factory=dict)


def inspect(
    file: str | Path,
    kernel: str,
    arch: str,
    constants: Mapping[str, Any] | None = None,
    threads: int | None = None,
    dynamic_shared: int = 0,
    names: tuple[str, ...] = (),
) -> Facts:
    """Compile a file and return what is known of one of its kernels.

    Args:
        file, arch, constants, names: as of `compile_file`.
        kernel: its symbol, or one of `names`.
        threads: of a block; by default those of `__launch_bounds__`, else 256.
        dynamic_shared: bytes of dynamic shared memory at the launch.

    Raises:
        UserError: it does not compile, there is no such kernel, or a tool is not installed.
    """
    compiled = compile_file(file, arch, constants, names)
    symbol = kernel_symbol(compiled, kernel)
    used = resources(compiled)[symbol]
    threads = threads or used.max_threads or 256
    shared = used.shared + dynamic_shared
    function = functions(compiled)[symbol]
    return Facts(
        file=compiled.file,
        kernel=kernel,
        arch=arch,
        nvrtc=compiled.version,
        threads=threads,
        shared=shared,
        resources=used,
        occupancy=occupancy(arch, threads, used.registers, shared),
        loop=loop_facts(function, compiled.file),
        local=Counter(_place(i) for i in function.instructions if i.kind == "local"),
    )


def loop_facts(function: Function, file: Path) -> LoopFacts:
    """Return what the main loop of a function does; `file` is the one whose lines are told."""
    loop = main_loop(function)
    code = loop.instructions if loop is not None else _without_end(function.instructions)
    loads = widths(code, "LDG") + widths(code, "LDGSTS")
    own = [i.line for i in code if i.file == str(file)]
    return LoopFacts(
        repeats=loop is not None,
        size=len(code),
        kinds=dict(counts(code)),
        load_bits=dict(loads),
        shared_bits=dict(widths(code, "LDS")),
        divisions=tuple(dict.fromkeys(_place(i) for i in integer_divisions(code))),
        stages=stages(code),
        lines=(min(own, default=0), max(own, default=0)),
        code=code,
    )


def _place(instruction: Instruction) -> str:
    return f"{Path(instruction.file).name}:{instruction.line}"


def _without_end(code: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """Leave out what fills the room behind a kernel: a branch to itself, and NOPs."""
    end = len(code)
    while end and (code[end - 1].kind == "nothing" or code[end - 1].opcode == "BRA"):
        end -= 1
    return code[:end]


def stages(code: tuple[Instruction, ...]) -> int:
    """Return how many stages of asynchronous copies a loop keeps going, at least.

    A loop that waits until all but n groups of copies have landed works on one stage while n
    more are on their way. One that waits for all has two if it multiplies between issuing copies
    and waiting for them, once around, and one if it does not.
    """
    copies = [n for n, i in enumerate(code) if i.kind == "LDGSTS"]
    waits = [n for n, i in enumerate(code) if i.opcode.startswith("DEPBAR.LE")]
    if not copies or not waits:
        return 1 if copies else 0
    pending = max(_pending(code[n]) for n in waits)  # the last time around may wait for all
    if pending:
        return pending + 1
    issued = copies[-1]
    landed = next((n for n in waits if n > issued), waits[0])
    between = code[issued:landed] if landed > issued else code[issued:] + code[:landed]
    return 2 if any(i.kind in MULTIPLY_ADDS for i in between) else 1


def _pending(wait: Instruction) -> int:
    """Return the n of `DEPBAR.LE SB0, n`."""
    found = re.search(r"SB\d,\s*(0x[0-9a-f]+|\d+)", wait.operands)
    return int(found[1], 0) if found else 0
