"""How the steps of the LSTM's ladder are launched.

Blocks are dealt out by hidden units and by sequences. Each sum's order is the same however that
is done (`product.cuh`), so that results do not depend on the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tinyvid.errors import UserError

GATES = 4
# Of `product.cuh`: threads of a team and hidden units that it works out, warps that share a sum,
# stages that a ring has at the least, chunks of a stage.
TEAM, UNITS, PARTS, STAGES, STAGE = 128, 4, 4, 3, 16
MOST_TEAMS = 2  # of a block of the persistent kernel
_CHUNK = 16  # bytes
_LINE = (STAGE + 1) * _CHUNK  # of a sequence, in a stage

# Blocks that a grid with a barrier may have: one for each multiprocessor of an A100. Where the
# GPU at hand is known, it is asked.
MULTIPROCESSORS = 108
# Bytes of dynamic shared memory: every GPU since sm_80 has 99 KiB for a block that asks.
SHARED = 98 * 1024


@dataclass(frozen=True)
class Plan:
    """How a kernel is launched.

    Attributes:
        blocks, threads: of the launch; shared: bytes of dynamic shared memory.
        constants: what is compiled in, beside the type and the number of hidden units.
        args: numbers that the kernel takes after the sizes.
        cooperative: all blocks must run at once, for `grid_sync()`.
    """

    blocks: int
    threads: int
    shared: int = 0
    constants: Mapping[str, object] = field(default_factory=dict)
    args: tuple[int, ...] = ()
    cooperative: bool = False


def tiles(count: int, size: int) -> int:
    """Return how many tiles of a size it takes to cover a count."""
    return -(-count // size)


def naive(
    pass_: str, n: int, hidden: int, dtype: np.dtype, multiprocessors: int = MULTIPROCESSORS
) -> Plan:
    """A thread for each hidden unit of each sequence."""
    return Plan(tiles(n * hidden, TEAM), TEAM)


def fused_step(
    pass_: str, n: int, hidden: int, dtype: np.dtype, multiprocessors: int = MULTIPROCESSORS
) -> Plan:
    """A block for each four units of a tile of sequences."""
    each = next((e for e in _each(dtype) if 8 * e >= n), _each(dtype)[-1])
    blocks = tiles(hidden, UNITS) * tiles(n, 8 * each)
    return Plan(blocks, TEAM, constants={"SEQUENCES_EACH": each})


def persistent(
    pass_: str, n: int, hidden: int, dtype: np.dtype, multiprocessors: int = MULTIPROCESSORS
) -> Plan:
    """A block for each slice of the batch where it can hold all weights, else a grid of blocks.

    Raises:
        UserError: the weights of all units do not fit the shared memory of a grid.
    """
    whole = tiles(hidden, UNITS) * UNITS
    shared = _shared(pass_, hidden, dtype, whole, each=1)
    if shared <= SHARED:
        return _persistent(pass_, n, hidden, dtype, whole, 1, tiles(n, 8))
    # The fewest units for each block that leave no more blocks than run at once.
    units = tiles(tiles(hidden, multiprocessors), UNITS) * UNITS
    slices = max(1, multiprocessors // tiles(hidden, units))
    fitting = [e for e in _each(dtype) if _shared(pass_, hidden, dtype, units, e) <= SHARED]
    if not fitting:
        raise UserError(
            f"the recurrent weights of {hidden} hidden units, spread over {multiprocessors} "
            f"blocks, take {_shared(pass_, hidden, dtype, units, 1)} bytes of a block's shared "
            f"memory; it has {SHARED}"
        )
    # Smaller tiles of sequences while there are blocks enough for all of them at once.
    each = next((e for e in fitting if tiles(n, 8 * e) <= slices), fitting[-1])
    slices = min(slices, tiles(n, 8 * each))
    return _persistent(pass_, n, hidden, dtype, units, each, slices)


def _persistent(
    pass_: str, n: int, hidden: int, dtype: np.dtype, units: int, each: int, slices: int
) -> Plan:
    unit_tiles = tiles(hidden, units)
    return Plan(
        blocks=unit_tiles * slices,
        threads=_teams(units) * TEAM,
        shared=_shared(pass_, hidden, dtype, units, each),
        constants={"SEQUENCES_EACH": each},
        args=(units, _held(pass_, hidden, dtype, units)),
        cooperative=unit_tiles > 1,
    )


def _each(dtype: np.dtype) -> tuple[int, ...]:
    """Return how many sequences a thread may have: as many as 128 bits have numbers, or fewer."""
    return tuple(e for e in (1, 2, 4) if e * dtype.itemsize <= _CHUNK)


def _teams(units: int) -> int:
    return min(MOST_TEAMS, units // UNITS)


def _depth(pass_: str, hidden: int) -> int:
    """Return the terms of a sum: over the units forward, over their gates back."""
    return hidden if pass_ == "fprop" else GATES * hidden


def _held(pass_: str, hidden: int, dtype: np.dtype, units: int) -> int:
    """Return the stages of the ring: all of a sum where the teams go through it several times."""
    stages = tiles(_depth(pass_, hidden) * dtype.itemsize, STAGE * _CHUNK)
    return max(STAGES, stages) if units > _teams(units) * UNITS else STAGES


def _shared(pass_: str, hidden: int, dtype: np.dtype, units: int, each: int) -> int:
    """Return the bytes of shared memory that a block of the persistent kernel takes."""
    rows = GATES if pass_ == "fprop" else 1
    pitch = (tiles(_depth(pass_, hidden) * dtype.itemsize, _CHUNK) | 1) * _CHUNK
    ring = _held(pass_, hidden, dtype, units) * 8 * each * _LINE
    parts = math.prod((_teams(units), PARTS, rows, 8 * each, UNITS, dtype.itemsize))
    return rows * units * pitch + ring + parts
