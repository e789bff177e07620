"""What work costs on the processor, so that a kernel can choose between its variants.

A variant states its cost as a sum of work divided by rates: nanoseconds of one thread, summed over
the threads, in float32. Only the order of the variants' costs matters, and all of them share
the threads alike, so the rates need not be those of this very machine: those here are of two cores
of an AMD EPYC with AVX2 and NumPy's OpenBLAS, rounded.
"""

from __future__ import annotations

GEMM = 35.0  # multiply-adds a nanosecond of a large matrix product by BLAS
VECTOR = 20.0  # the same of a compiled loop whose sums stay in vector registers
BYTES = 12.0  # read or written a nanosecond, where memory is gone through once
CALL = 1_000.0  # nanoseconds of a call into NumPy
LOOP = 30_000.0  # nanoseconds that a loop over threads takes to start and to end


def gemm(m: int, n: int, k: int, calls: int = 1) -> float:
    """Return the nanoseconds of products (m, k) x (k, n) of float32.

    Each operand and the product are gone through once beside the multiply-adds: BLAS packs them.
    """
    return calls * (CALL + m * n * k / GEMM + moved(m * k + k * n + m * n))


def moved(elements: int) -> float:
    """Return the nanoseconds in which so many float32 are read or written."""
    return 4 * elements / BYTES
