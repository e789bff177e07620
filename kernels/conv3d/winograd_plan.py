"""How `cpu/winograd` cuts a convolution: the tile along each axis, blocks, and what it all costs.

Everything here follows from the shapes and the precision asked for, never from the number of
threads: it decides the order of sums. Blocks are sized for a second-level cache of half a megabyte
for each core and a third-level cache of some 32 megabytes that cores share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from tinyvid.geometry import ConvGeometry, Ints
from tinyvid.kernels import cost
from tinyvid.kernels.accuracy import get_precision

LANES = 16  # channels of a vector, and of a panel of filters
ROWS = 6  # rows of a matrix product at a time: 6 vectors of sums take 12 registers of AVX2

# Bytes.
KEPT = 8 << 20  # of transformed filters, at most, that are kept while tiles go by
OWN = 4 << 20  # of a thread's tiles and their products beside them
SHARED = 32 << 20  # of tiles that all threads multiply by their own filters
GROUP = 4 << 20  # of a thread's products, of wgrad
DEPTH = (64, 128)  # channels of a thread's filters at a time: at least, and at most
PANELS = 4  # of filters that a thread takes at a time, at most
PARTS, ITEMS, GROUPS = 16, 8, 4  # pieces of work in a loop: of tiles, of products, of panels

# What was measured, for the cost: nanoseconds for each number of a transformed tile.
CUT = 0.2  # to cut tiles out and to transform them
PUT = 0.3  # to put them together
SPREAD = 0.8  # to transform tiles of gradients, which have fewer cells than that
TAPS = 0.1  # to transform taps
GATHERED = 0.6  # for each tap itself: to bring taps of LANES filters side by side
TAP_SUMS = 0.16  # to transform their gradients
WRITTEN = 0.7  # for each gradient of a tap itself: to write it
SINGLE = 0.6  # beside CUT where channels fill no vector, and are taken one by one
SINGLE_OUT = 3.0  # nanoseconds for each output that is written by itself, likewise
PRODUCTS = 80.0  # multiply-adds a nanosecond, from the third-level cache
SUMS = 57.0  # the same of wgrad, whose sums are short


@dataclass(frozen=True)
class Plan:
    """How a pass is cut.

    Attributes:
        taps: of a filter along each axis.
        m: outputs of a tile along each axis; reach: its cells.
        counts: tiles of a clip along each axis; tiles: of all clips.
        low: padding before the first cell along each axis.
        block: tiles that are transformed at a time.
        kept: whether filters are transformed once, and threads take blocks of tiles; else threads
            take panels of filters, and transform them for each block.
        panels: of filters that a thread takes at a time.
        depth: of a thread's filters, channels at a time. For wgrad, output channels at a time.
        cost: about how many nanoseconds the pass takes.
    """

    taps: Ints
    m: Ints
    reach: Ints
    counts: Ints
    tiles: int
    low: Ints
    block: int
    kept: bool
    panels: int
    depth: int
    cost: float

    @property
    def positions(self) -> int:
        """Return how many there are of a transformed tile."""
        return math.prod(self.reach)

    @property
    def parts(self) -> list[slice]:
        """Return pieces of a block of tiles."""
        size = -(-self.block // PARTS)
        return [slice(i, min(i + size, self.block)) for i in range(0, self.block, size)]


def unfit(geometry: ConvGeometry) -> str | None:
    """Return why the algorithm cannot take a geometry, or None if it can."""
    taps = geometry.w[2:]
    if not set(taps) <= {1, 3} or 3 not in taps:
        return f"it takes filters of 1 or 3 taps along each axis, and not 1 along all, not {taps}"
    for name in ("stride", "dilation"):
        if getattr(geometry, name) != (1, 1, 1):
            return f"it takes {name} 1, not {getattr(geometry, name)}"
    return None if geometry.groups == 1 else f"it takes one group, not {geometry.groups}"


def cost_of(geometry: ConvGeometry, pass_: str) -> float:
    """Return about how many nanoseconds a pass takes in float32, see `tinyvid.kernels.cost`."""
    return plan(pass_, geometry, 4).cost


def plan(pass_: str, geometry: ConvGeometry, itemsize: int) -> Plan:
    """Return how a pass is cut: of all tiles that may be taken, the one of least cost."""
    return _plan(pass_, geometry, itemsize, get_precision() == "exact")


@lru_cache(maxsize=4096)
def _plan(pass_: str, geometry: ConvGeometry, itemsize: int, exact: bool) -> Plan:
    options = [(1,) if taps == 1 else (2,) if exact else (2, 4) for taps in geometry.w[2:]]
    plans = [_cut(pass_, geometry, itemsize, m) for m in product(*options)]
    return min(plans, key=lambda plan: plan.cost)


def _cut(pass_: str, geometry: ConvGeometry, itemsize: int, m: Ints) -> Plan:
    C, K = geometry.x[1], geometry.y[1]
    taps = geometry.w[2:]
    out = geometry.y
    low = tuple(low for low, _ in geometry.padding)
    if pass_ == "dgrad":  # a correlation of gy with the filters turned round
        C, K, out = K, C, geometry.x
        low = tuple(size - 1 - pad for size, pad in zip(taps, low, strict=True))
    reach = tuple(outputs + size - 1 for outputs, size in zip(m, taps, strict=True))
    counts = tuple(-(-size // outputs) for size, outputs in zip(out[2:], m, strict=True))
    tiles = out[0] * math.prod(counts)
    positions = math.prod(reach)
    single_C, single_K = C % LANES, K % LANES
    C, K = (-(-channels // LANES) * LANES for channels in (C, K))
    a_tile = positions * itemsize  # bytes, for each channel

    # Each loop over threads should have so many pieces of work.
    kept = pass_ != "wgrad" and a_tile * C * K <= KEPT
    if kept:
        block = min(OWN // (a_tile * (C + K)), -(-tiles // PARTS))
        block = max(-(-block // ROWS), 1) * ROWS
    else:
        block = max(SHARED // (a_tile * (C + K if pass_ == "wgrad" else C)), ROWS)
        block = -(-tiles // -(-tiles // block)) if tiles else 1  # blocks of one size
    if pass_ == "wgrad":  # the products are what a thread has: depth x panels
        panels = max(min(PANELS, C // LANES), 1)
        columns = -(-C // (panels * LANES))
        depth = min(GROUP // (a_tile * panels * LANES), -(-K * columns // ITEMS))
        depth = max(-(-depth // ROWS), 1) * ROWS
    else:
        panels = min(PANELS, max(K // LANES // GROUPS, 1))
        # Twice as many as rows: else products are read and written more often than tiles are.
        depth = min(max(-(-2 * block // LANES) * LANES, DEPTH[0]), DEPTH[1], C)

    blocks = -(-tiles // block)
    cells = positions * tiles
    if pass_ == "wgrad":
        nanoseconds = (
            2 * cost.LOOP * blocks
            + cells * C * K / SUMS
            + cells * (CUT * C + SPREAD * K + SINGLE * (single_C + single_K))
            + (TAP_SUMS * positions + WRITTEN * math.prod(taps)) * C * K * blocks
        )
    else:
        rows = blocks * -(-min(block, tiles) // ROWS) * ROWS
        nanoseconds = (
            2 * cost.LOOP * (1 if kept else blocks)
            + positions * rows * C * K / PRODUCTS
            + cells * (CUT * C + PUT * K + SINGLE * single_C)
            + SINGLE_OUT * tiles * math.prod(m) * single_K
            + (TAPS * positions + GATHERED * math.prod(taps)) * C * K * (1 if kept else blocks)
        )
    nanoseconds += cost.START
    return Plan(taps, m, reach, counts, tiles, low, block, kept, panels, depth, nanoseconds)
