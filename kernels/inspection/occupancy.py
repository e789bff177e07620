"""How many blocks of a kernel a multiprocessor holds at once, and what stops it from holding more.

Sources: the limits are those of the table "Technical Specifications per Compute Capability" in
NVIDIA's CUDA C++ Programming Guide, which agree with `cuda::arch_traits` of the CUDA Core Compute
Libraries; the rules of allocation are those of `cuda_occupancy.h` of the CUDA toolkit.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyvid.errors import UserError, nearest

WARP = 32  # threads
MOST_THREADS = 1024  # of a block
MOST_REGISTERS = 255  # of a thread
REGISTERS = 65536  # of a multiprocessor, and at most of a block
PARTS = 4  # a multiprocessor has this many, each with its share of the registers
REGISTER_UNIT = 256  # a warp gets a multiple of this many registers
SHARED_UNIT = 128  # a block gets a multiple of this many bytes of shared memory
RESERVED = 1024  # bytes of shared memory that the system takes of each block


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor of an architecture holds: `shared` is bytes of shared memory."""

    warps: int
    blocks: int
    shared: int

    @property
    def shared_of_block(self) -> int:
        """The most that one block can have."""
        return self.shared - RESERVED


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(warps=64, blocks=32, shared=164 * 1024),
    "sm_86": Multiprocessor(warps=48, blocks=16, shared=100 * 1024),
    "sm_89": Multiprocessor(warps=48, blocks=24, shared=100 * 1024),
    "sm_90": Multiprocessor(warps=64, blocks=32, shared=228 * 1024),
    "sm_100": Multiprocessor(warps=64, blocks=32, shared=228 * 1024),
    "sm_120": Multiprocessor(warps=48, blocks=24, shared=100 * 1024),
}


@dataclass(frozen=True)
class Occupancy:
    """How full a multiprocessor gets.

    Attributes:
        blocks, warps: that run on it at once; 0 where not even one block fits.
        share: of the warps it could hold, 0 to 1.
        limiters: what would have to be less for one more block: `registers`, `shared memory`,
            `warps` or `blocks`.
    """

    blocks: int
    warps: int
    share: float
    limiters: tuple[str, ...]


def multiprocessor(arch: str) -> Multiprocessor:
    """Return the limits of an architecture, or raise UserError where they are not known."""
    try:
        return MULTIPROCESSORS[arch.rstrip("af")]
    except KeyError:
        known = list(MULTIPROCESSORS)
        raise UserError(
            f"the limits of {arch!r} are not known, only those of {', '.join(known)}."
            f"{nearest(arch, known)}"
        ) from None


def occupancy(arch: str, threads: int, registers: int, shared: int = 0) -> Occupancy:
    """Return how many blocks fit.

    Args:
        arch: such as `sm_80`.
        threads: of a block. registers: of a thread.
        shared: bytes of shared memory of a block, static and dynamic, without the reserved ones.

    Raises:
        UserError: the architecture is not known, or the block is empty or too large for any.
    """
    limits = multiprocessor(arch)
    if not 0 < threads <= MOST_THREADS:
        raise UserError(f"a block of {threads} threads: it must have 1 to {MOST_THREADS}")
    warps = -(-threads // WARP)
    fits = {
        "registers": _by_registers(registers, warps),
        "shared memory": _by_shared(shared, limits),
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
    }
    blocks = min(fits.values())
    limiters = tuple(name for name, most in fits.items() if most == blocks)
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps, limiters)


def _by_registers(registers: int, warps: int) -> int:
    of_warp = _round_up(max(registers, 1) * WARP, REGISTER_UNIT)
    # A launch is checked as if all parts got the same number of warps.
    if registers > MOST_REGISTERS or of_warp * _round_up(warps, PARTS) > REGISTERS:
        return 0
    return REGISTERS // PARTS // of_warp * PARTS // warps


def _by_shared(shared: int, limits: Multiprocessor) -> int:
    of_block = _round_up(shared + RESERVED, SHARED_UNIT)
    return 0 if shared > limits.shared_of_block else limits.shared // of_block


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
