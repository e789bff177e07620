"""Loops in machine code: found in its graph of branches, nested, and the main one chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinyvid.kernels.inspection.sass import Function, Instruction, counts

# Multiply-adds of a thread in one instruction; a tensor core's 16 x 8 x 8 are shared by 32.
_MULTIPLY_ADDS = {"HMMA": 32, "FFMA": 1, "DFMA": 1}
_ARITHMETIC = ("float", "double")
_MEMORY = ("LDG", "STG", "LDGSTS", "LDS", "STS")


@dataclass(frozen=True)
class Loop:
    """A natural loop: all that can be run between entering it at its head and getting back there.

    Attributes:
        instructions: its own and those of the loops inside it, in order of address.
        own: those that are in no loop inside it.
        depth: 1 for an outermost loop.
    """

    instructions: tuple[Instruction, ...]
    own: tuple[Instruction, ...]
    depth: int

    @property
    def start(self) -> int:
        """The lowest address in it."""
        return self.instructions[0].address


def loops(function: Function) -> list[Loop]:
    """Return all loops of a kernel."""
    blocks = _blocks(function)
    successors = [_successors(function, blocks, n) for n in range(len(blocks))]
    bodies = _bodies(successors)
    found = []
    for head, body in bodies.items():
        inside = [b for h, b in bodies.items() if h != head and b < body]
        around = [b for h, b in bodies.items() if h != head and b > body]
        own = body.difference(*inside)
        found.append(Loop(_join(blocks, body), _join(blocks, own), len(around) + 1))
    return found


def main_loop(function: Function) -> Loop | None:
    """Return the loop that does the work, or None where nothing is repeated.

    It is the one with most multiply-adds outside of the loops inside it; of copies that the
    compiler made (peeled beginnings, remainders of an unrolled loop), the one unrolled furthest.
    Where no loop multiplies and adds, arithmetic counts, and then accesses to memory.
    """
    # A trap after the end of a kernel branches to itself.
    found = [loop for loop in loops(function) if len(loop.instructions) > 1]
    return max(found, key=_work, default=None)


def _work(loop: Loop) -> tuple[int, ...]:
    kinds = counts(loop.own)
    multiply_adds = sum(kinds[kind] * weight for kind, weight in _MULTIPLY_ADDS.items())
    arithmetic = sum(kinds[kind] for kind in _ARITHMETIC)
    memory = sum(kinds[kind] for kind in _MEMORY)
    return multiply_adds, arithmetic, memory, len(loop.own), loop.depth


Block = tuple[Instruction, ...]


def _blocks(function: Function) -> list[Block]:
    """Cut the code where branches arrive, and after each."""
    starts = set(function.labels.values())
    blocks: list[Block] = []
    block: list[Instruction] = []
    for instruction in function.instructions:
        if block and instruction.address in starts:
            blocks.append(tuple(block))
            block = []
        block.append(instruction)
        if instruction.always_leaves or instruction.opcode.startswith(("BRA", "CALL")):
            blocks.append(tuple(block))
            block = []
    return [*blocks, tuple(block)] if block else blocks


def _successors(function: Function, blocks: list[Block], number: int) -> list[int]:
    """Return the blocks that can follow one.

    A call comes back; but compilers for sm_80 also leave loops by one that does not.
    """
    last = blocks[number][-1]
    following = []
    if not last.always_leaves and number + 1 < len(blocks):
        following.append(number + 1)
    if last.opcode.startswith(("BRA", "CALL")) and last.target in function.labels:
        address = function.labels[last.target]
        following += [n for n, block in enumerate(blocks) if block[0].address == address]
    elif last.opcode.startswith("BRX"):  # a jump by a table, whose targets are all labels listed
        listed = [label for label in function.labels if label in last.operands]
        addresses = {function.labels[label] for label in listed}
        following += [n for n, block in enumerate(blocks) if block[0].address in addresses]
    return following


def _bodies(successors: list[list[int]]) -> dict[int, frozenset[int]]:
    """Return the blocks of each loop, by its head.

    A branch closes a loop if it leads to a block that every way to it has passed. Source:
    natural loops, in Aho, Lam, Sethi, Ullman, Compilers, 2nd edition, section 9.6.
    """
    predecessors: dict[int, set[int]] = {n: set() for n in range(len(successors))}
    for block, following in enumerate(successors):
        for n in following:
            predecessors[n].add(block)
    dominators = _dominators(successors, predecessors)
    bodies: dict[int, set[int]] = {}
    for block, following in enumerate(successors):
        for head in following:
            if head not in dominators.get(block, ()):
                continue
            body = bodies.setdefault(head, {head})
            todo = [block]
            while todo:
                n = todo.pop()
                if n not in body:
                    body.add(n)
                    todo += predecessors[n] & dominators.keys()
    return {head: frozenset(body) for head, body in bodies.items()}


def _dominators(
    successors: list[list[int]], predecessors: dict[int, set[int]]
) -> dict[int, set[int]]:
    """Return, for each block that can be reached, those that every way to it passes."""
    reached, todo = {0}, [0]
    while todo:
        for n in successors[todo.pop()]:
            if n not in reached:
                reached.add(n)
                todo.append(n)
    dominators = {n: set(reached) for n in reached}
    dominators[0] = {0}
    changed = True
    while changed:
        changed = False
        for n in sorted(reached - {0}):
            before = [dominators[p] for p in predecessors[n] & reached]
            now = set.intersection(*before) | {n}
            if now != dominators[n]:
                dominators[n], changed = now, True
    return dominators


def _join(blocks: list[Block], numbers: Iterable[int]) -> tuple[Instruction, ...]:
    return tuple(i for n in sorted(numbers) for i in blocks[n])
