"""What a compiled kernel must keep to, and in which points it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyvid.kernels.inspection.facts import Facts


@dataclass(frozen=True)
class Budget:
    """Limits that are checked against the machine code. None, False or 0: there is no limit.

    Attributes:
        spills: most bytes of a thread that may be kept in local memory for want of registers.
        registers: most registers of a thread. threads: fewest threads of a block.
        ffma: smallest share of FFMA (DFMA in float64) in the main loop's instructions.
        wide_loads: all global loads of the main loop move 128 bits.
        no_division: no integer division in the main loop.
        stages: fewest stages of asynchronous copies, the one being worked on among them.
        ldmatrix: the main loop reads the fragments of its matrix products with `ldmatrix`.
        archs: where the limits hold but for that on spills, which holds everywhere.
    """

    spills: int = 0
    registers: int | None = None
    threads: int | None = None
    ffma: float | None = None
    wide_loads: bool = False
    no_division: bool = False
    stages: int | None = None
    ldmatrix: bool = False
    archs: tuple[str, ...] = ("sm_80", "sm_90")


def limits(budget: Budget, arch: str) -> list[str]:
    """Return the limits that hold on an architecture, a few words each."""
    found = [f"≤ {budget.spills} spilled bytes" if budget.spills else "no spills"]
    if arch not in budget.archs:
        return found
    if budget.registers is not None:
        found.append(f"≤ {budget.registers} registers")
    if budget.threads is not None:
        found.append(f"≥ {budget.threads} threads")
    if budget.ffma is not None:
        found.append(f"≥ {budget.ffma:.0%} FFMA")
    if budget.wide_loads:
        found.append("loads of 128 bits")
    if budget.no_division:
        found.append("no division")
    if budget.stages is not None:
        found.append(f"≥ {budget.stages} stages")
    if budget.ldmatrix:
        found.append("ldmatrix")
    return found


def violations(facts: Facts, budget: Budget) -> list[str]:
    """Return a sentence for each limit that is not kept."""
    found = []
    used = facts.resources
    if used.spills > budget.spills:
        found.append(
            f"spills {used.spill_stores} bytes to local memory and loads {used.spill_loads}; "
            f"at most {budget.spills} are allowed"
        )
    if facts.arch in budget.archs:
        found += _of_block(facts, budget) + _of_loop(facts, budget)
    return [f"{facts.kernel} on {facts.arch} {what}" for what in found]


def _of_block(facts: Facts, budget: Budget) -> list[str]:
    found = []
    if budget.registers is not None and facts.resources.registers > budget.registers:
        found.append(
            f"takes {facts.resources.registers} registers a thread; at most {budget.registers} "
            "are allowed"
        )
    if budget.threads is not None and facts.threads < budget.threads:
        found.append(
            f"has {facts.threads} threads a block; at least {budget.threads} are asked for"
        )
    return found


def _of_loop(facts: Facts, budget: Budget) -> list[str]:
    loop, found = facts.loop, []
    if budget.ffma is not None and loop.ffma_share < budget.ffma:
        found.append(
            f"has {loop.ffma_share:.1%} multiply-adds in the main loop "
            f"({loop.multiply_adds} of {loop.size} instructions); at least {budget.ffma:.0%} are "
            "asked for"
        )
    narrow = {bits: n for bits, n in loop.load_bits.items() if bits != 128}
    if budget.wide_loads and narrow:
        loads = ", ".join(f"{n} of {bits} bits" for bits, n in sorted(narrow.items()))
        found.append(f"has global loads in the main loop that are not of 128 bits: {loads}")
    if budget.no_division and loop.divisions:
        found.append(f"divides integers in the main loop, at {', '.join(loop.divisions)}")
    if budget.stages is not None and loop.stages < budget.stages:
        found.append(
            f"keeps the copies of {loop.stages} of the {budget.stages} stages going that are asked "
            "for in the main loop"
        )
    if budget.ldmatrix and not loop.kinds.get("LDSM"):
        found.append("reads no fragment with ldmatrix in the main loop")
    return found
