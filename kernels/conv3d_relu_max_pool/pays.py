"""What a convolution costs on the processor with its pooling, at once and each for itself.

See `tinyvid.kernels.cost` and `tinyvid.kernels.conv3d.costs`.
"""

from __future__ import annotations

from math import prod
from typing import Any

from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels import cost
from tinyvid.kernels.conv3d.costs import directly
from tinyvid.kernels.registry import Kernel

MANY_CELLS = 8  # of a window: from here on wgrad goes from patch to patch
COPY = 0.8  # nanoseconds to bring a number of x to its place in a band
PATCHES = 7.0  # multiply-adds a nanosecond where each reads a sum from the cache, and writes it
POOLED = 0.2  # nanoseconds to compare a number with the largest of its window
SCATTERED = 4.0  # nanoseconds to bring the gradient of a window to the cell that it is of


def fprop(geometry: ConvGeometry) -> float:
    """Return the nanoseconds of `cpu/direct`, fprop: what is pooled is not moved to memory."""
    cells = prod(geometry.y)
    return directly(geometry, "fprop") + POOLED * cells - cost.moved(cells)


def wgrad(geometry: ConvGeometry, pool: PoolGeometry) -> float:
    """Return the nanoseconds of `cpu/direct`, wgrad: of one cell for each window, or of all."""
    if prod(pool.window) < MANY_CELLS:
        return directly(geometry, "wgrad") + SCATTERED * prod(pool.y)
    products = prod(pool.y) * prod(geometry.w[1:])
    return cost.START + products / PATCHES + 2 * COPY * prod(geometry.x)


def apart(kernels: list[Kernel], x: Any, w: Any, geometry: ConvGeometry) -> float:
    """Return the nanoseconds of the convolution and the pooling, one after the other.

    Args:
        kernels: fprop of the convolution, and wgrad if there is a way back. geometry: theirs.
    """
    total = 0.0
    for kernel in kernels:
        variant = kernel.select(x, w, geometry)
        total += variant.cost(x, w, geometry) if variant.cost else 0.0
    # Its output is written, and read by the pooling; on the way back, its gradient likewise.
    return total + cost.moved(2 * len(kernels) * prod(geometry.y))
