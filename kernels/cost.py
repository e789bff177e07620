"""What work costs on the processor, so that a kernel can choose between its variants.

A variant states its cost as a sum of work divided by rates: nanoseconds of one thread, summed over
the threads, in float32. Work is multiply-adds, numbers moved, and what begins and ends once a call.

Only the order of the variants' costs matters, and all of them share the threads alike, so the
rates need not be those of this very machine: those here are of two cores of an AMD EPYC, rounded,
and fitted to what `benchmarks/bench_variants.py` measured there, all variants at a time.
"""

from __future__ import annotations

GEMM = 90.0  # multiply-adds a nanosecond of a large matrix product by BLAS
PACKED = 20.0  # numbers of its left operand that BLAS lays out a nanosecond
BYTES = 25.0  # read or written a nanosecond, where memory is gone through once
ALONE = 2  # times as much costs what one thread does while the others wait
START = 220_000.0  # nanoseconds of the Python of a call, and of its loops over threads
LOOP = 30_000.0  # of each further loop over threads


def gemm(m: float, n: int, k: int) -> float:
    """Return the nanoseconds of a product (m, k) x (k, n) of float32.

    BLAS lays out the left operand before it multiplies: of a product with few columns, that is
    most of the work.
    """
    return m * n * k / GEMM + m * k / PACKED


def moved(elements: float) -> float:
    """Return the nanoseconds in which so many float32 are read or written."""
    return 4 * elements / BYTES
