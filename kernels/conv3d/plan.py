"""What a step of the ladder of 3-D convolution asks of its launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tinyvid.geometry import Ints

# A launch aims at this many blocks: two for each of the 132 multiprocessors of an H100. It
# decides how sums are cut, so it does not depend on the GPU at hand.
BLOCKS = 264
# What a pass puts out, as the geometry names its shape.
OUTPUT = {"fprop": "y", "dgrad": "x", "wgrad": "w"}
SLAB = 256  # terms of a slab, which are summed up before they are added to the total


@dataclass(frozen=True)
class Plan:
    """How a kernel is launched.

    Attributes:
        blocks, threads: of the launch; shared: bytes of dynamic shared memory.
        slices: parts of the sum, each with a workspace as large as the output.
        constants: what is compiled in, beside the type and the geometry.
        args: numbers that the kernel takes after its arrays.
        workspace: shapes of the arrays that a step of several kernels needs in between.
    """

    blocks: int
    threads: int
    shared: int = 0
    slices: int = 1
    constants: Mapping[str, object] = field(default_factory=dict)
    args: tuple[int, ...] = ()
    workspace: tuple[Ints, ...] = ()


def tiles(count: int, size: int) -> int:
    """Return how many tiles of a size it takes to cover a count."""
    return -(-count // size)


def product_columns(columns: int, chunk: int) -> int:
    """Return the width of a block's tile in chunks, see `product.cuh`.

    The one that leaves fewest columns idle; of equals, the widest.
    """
    return min((32, 16, 8), key=lambda width: (tiles(columns, width * chunk) * width, -width))
