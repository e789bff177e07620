"""What a step of the ladder of 3-D convolution asks of its launch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tinyvid.geometry import ConvGeometry, Ints

# A launch aims at this many blocks: two for each of the 132 multiprocessors of an H100. It
# decides how sums are cut, so it does not depend on the GPU at hand.
BLOCKS = 264
# What a pass puts out, as the geometry names its shape.
OUTPUT = {"fprop": "y", "dgrad": "x", "wgrad": "w"}
SLICE = 256  # terms of a sum, the fewest that a slice of it has
SLAB = 96  # terms that are summed up before they are added to the total, as in `product.cuh`


@dataclass(frozen=True)
class Plan:
    """How a kernel is launched.

    Attributes:
        blocks, threads: of the launch; shared: bytes of dynamic shared memory.
        slices: parts of the sum, each with a workspace as large as the output.
        constants: what is compiled in, beside the type and the geometry.
        args: numbers that the kernel takes after its arrays.
        workspace: shapes of the arrays that the kernels need beside; a step of one kernel takes
            them after its output.
    """

    blocks: int
    threads: int
    shared: int = 0
    slices: int = 1
    constants: Mapping[str, object] = field(default_factory=dict)
    args: tuple[int, ...] = ()
    workspace: tuple[Ints, ...] = ()


def lost(pass_: str, geometry: ConvGeometry, terms: int, slices: int, slab: int = SLAB) -> Ints:
    """Return the shape of what rounding has taken from totals so far, see `product.cuh`.

    It is that of the output, or of its slices, in memory; nothing where a slice is one slab.
    """
    N, channels, *sizes = getattr(geometry, OUTPUT[pass_])
    return (slices, N, *sizes, channels) if tiles(terms, slab) > slices else (0,)


def tiles(count: int, size: int) -> int:
    """Return how many tiles of a size it takes to cover a count."""
    return -(-count // size)


def product_columns(columns: int, chunk: int) -> int:
    """Return the width of a block's tile in chunks, see `product.cuh`.

    The one that leaves fewest columns idle; of equals, the widest.
    """
    return min((32, 16, 8), key=lambda width: (tiles(columns, width * chunk) * width, -width))


def product_rows(width: int, chunk: int) -> int:
    """Return the rows of a block's tile of such a width, see `product.cuh`: for 256 threads.

    Beside 8 chunks of columns they are for 128: so narrow a layer is often small too, and has
    more blocks with fewer rows.
    """
    return (64 if width == 16 else 32) * chunk


def matrix_product(
    pass_: str, geometry: ConvGeometry, rows: int, depth: int, chunk: int
) -> tuple[int, int, int]:
    """Return the sizes of the matrix product that a pass is: tiles of rows, columns, terms.

    Args:
        rows: of a tile. depth: terms of a stage; each tap begins a new one.
        chunk: channels that are copied at once; for wgrad each tap begins a new one.
    """
    N, _, *sizes = geometry.x
    K, group_C, *taps = geometry.w
    group_K, cells = K // geometry.groups, N * math.prod(geometry.y[2:])
    if pass_ == "fprop":
        terms = math.prod(taps) * tiles(group_C, depth) * depth
        return tiles(cells, rows), group_K, terms
    if pass_ == "wgrad":
        padded_C = tiles(group_C, chunk) * chunk
        return tiles(math.prod(taps) * padded_C, rows), group_K, tiles(cells, depth) * depth
    # With strides the cells fall in phases, and each meets some of the taps only.
    of_phase = N * math.prod(map(tiles, sizes, geometry.stride))
    meeting = [
        tiles(T, stride // math.gcd(stride, dilation))
        for T, stride, dilation in zip(taps, geometry.stride, geometry.dilation, strict=True)
    ]
    terms = math.prod(meeting) * tiles(group_K, depth) * depth
    return tiles(of_phase, rows) * math.prod(geometry.stride), group_C, terms
