"""The product of direct convolution: sums that stay in the registers over all taps.

    out[row, column] = start[column] + sum over j of u[row + tap[j]] * m[j, column]

A matrix whose element [row, j] is u[row + tap[j]] is never made. Sums are those of a block: six
rows of two vectors of columns, or four of three, which are twelve registers; where there is but one
vector of columns, twelve rows of it.
"""

from __future__ import annotations

from numba import njit as plain_njit

from tinyvid.kernels import lanes as v

ROWS = 12  # of the highest block


@plain_njit(nogil=True)
def _six_by_two(out, o, ld, u, rows, i, taps, m, at, ld_m, start, relu):
    """Write six rows of two vectors each, at out[o], with sums over all taps.

    Args:
        rows, taps: the six rows at `i` and the terms of the sum; they meet at u[row + tap].
        m: the matrix whose columns begin at `at`, a row each `ld_m`, for each tap.
        start: what the sums begin with, two vectors; relu: whether to take it in the end.
    """
    size = v.count(m)
    r0, r1, r2 = rows[i], rows[i + 1], rows[i + 2]
    r3, r4, r5 = rows[i + 3], rows[i + 4], rows[i + 5]
    a0 = a1 = a2 = a3 = a4 = a5 = v.load(start, 0)
    b0 = b1 = b2 = b3 = b4 = b5 = v.load(start, size)
    for j in range(taps.size):
        tap = taps[j]
        a, b = v.load(m, at), v.load(m, at + size)
        at += ld_m
        x = v.spread(u, r0 + tap)
        a0, b0 = v.multiply_add(x, a, a0), v.multiply_add(x, b, b0)
        x = v.spread(u, r1 + tap)
        a1, b1 = v.multiply_add(x, a, a1), v.multiply_add(x, b, b1)
        x = v.spread(u, r2 + tap)
        a2, b2 = v.multiply_add(x, a, a2), v.multiply_add(x, b, b2)
        x = v.spread(u, r3 + tap)
        a3, b3 = v.multiply_add(x, a, a3), v.multiply_add(x, b, b3)
        x = v.spread(u, r4 + tap)
        a4, b4 = v.multiply_add(x, a, a4), v.multiply_add(x, b, b4)
        x = v.spread(u, r5 + tap)
        a5, b5 = v.multiply_add(x, a, a5), v.multiply_add(x, b, b5)
    if relu:
        a0, a1, a2 = v.rectified(a0), v.rectified(a1), v.rectified(a2)
        a3, a4, a5 = v.rectified(a3), v.rectified(a4), v.rectified(a5)
        b0, b1, b2 = v.rectified(b0), v.rectified(b1), v.rectified(b2)
        b3, b4, b5 = v.rectified(b3), v.rectified(b4), v.rectified(b5)
    p = o + size
    v.store(out, o, a0)
    v.store(out, p, b0)
    v.store(out, o + ld, a1)
    v.store(out, p + ld, b1)
    v.store(out, o + 2 * ld, a2)
    v.store(out, p + 2 * ld, b2)
    v.store(out, o + 3 * ld, a3)
    v.store(out, p + 3 * ld, b3)
    v.store(out, o + 4 * ld, a4)
    v.store(out, p + 4 * ld, b4)
    v.store(out, o + 5 * ld, a5)
    v.store(out, p + 5 * ld, b5)


@plain_njit(nogil=True)
def _four_by_three(out, o, ld, u, rows, i, taps, m, at, ld_m, start, relu):
    """Write four rows of three vectors each; see `_six_by_two`."""
    size = v.count(m)
    r0, r1, r2, r3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
    a0 = a1 = a2 = a3 = v.load(start, 0)
    b0 = b1 = b2 = b3 = v.load(start, size)
    c0 = c1 = c2 = c3 = v.load(start, 2 * size)
    for j in range(taps.size):
        tap = taps[j]
        a, b, c = v.load(m, at), v.load(m, at + size), v.load(m, at + 2 * size)
        at += ld_m
        x = v.spread(u, r0 + tap)
        a0, b0 = v.multiply_add(x, a, a0), v.multiply_add(x, b, b0)
        c0 = v.multiply_add(x, c, c0)
        x = v.spread(u, r1 + tap)
        a1, b1 = v.multiply_add(x, a, a1), v.multiply_add(x, b, b1)
        c1 = v.multiply_add(x, c, c1)
        x = v.spread(u, r2 + tap)
        a2, b2 = v.multiply_add(x, a, a2), v.multiply_add(x, b, b2)
        c2 = v.multiply_add(x, c, c2)
        x = v.spread(u, r3 + tap)
        a3, b3 = v.multiply_add(x, a, a3), v.multiply_add(x, b, b3)
        c3 = v.multiply_add(x, c, c3)
    if relu:
        a0, a1, a2, a3 = v.rectified(a0), v.rectified(a1), v.rectified(a2), v.rectified(a3)
        b0, b1, b2, b3 = v.rectified(b0), v.rectified(b1), v.rectified(b2), v.rectified(b3)
        c0, c1, c2, c3 = v.rectified(c0), v.rectified(c1), v.rectified(c2), v.rectified(c3)
    p, q = o + size, o + 2 * size
    v.store(out, o, a0)
    v.store(out, p, b0)
    v.store(out, q, c0)
    v.store(out, o + ld, a1)
    v.store(out, p + ld, b1)
    v.store(out, q + ld, c1)
    v.store(out, o + 2 * ld, a2)
    v.store(out, p + 2 * ld, b2)
    v.store(out, q + 2 * ld, c2)
    v.store(out, o + 3 * ld, a3)
    v.store(out, p + 3 * ld, b3)
    v.store(out, q + 3 * ld, c3)


@plain_njit(nogil=True)
def _twelve_by_one(out, o, ld, u, rows, i, taps, m, at, ld_m, start, relu):
    """Write twelve rows of one vector each; see `_six_by_two`."""
    r0, r1, r2, r3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
    r4, r5, r6, r7 = rows[i + 4], rows[i + 5], rows[i + 6], rows[i + 7]
    r8, r9, r10, r11 = rows[i + 8], rows[i + 9], rows[i + 10], rows[i + 11]
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = a9 = a10 = a11 = v.load(start, 0)
    for j in range(taps.size):
        tap = taps[j]
        a = v.load(m, at)
        at += ld_m
        a0 = v.multiply_add(v.spread(u, r0 + tap), a, a0)
        a1 = v.multiply_add(v.spread(u, r1 + tap), a, a1)
        a2 = v.multiply_add(v.spread(u, r2 + tap), a, a2)
        a3 = v.multiply_add(v.spread(u, r3 + tap), a, a3)
        a4 = v.multiply_add(v.spread(u, r4 + tap), a, a4)
        a5 = v.multiply_add(v.spread(u, r5 + tap), a, a5)
        a6 = v.multiply_add(v.spread(u, r6 + tap), a, a6)
        a7 = v.multiply_add(v.spread(u, r7 + tap), a, a7)
        a8 = v.multiply_add(v.spread(u, r8 + tap), a, a8)
        a9 = v.multiply_add(v.spread(u, r9 + tap), a, a9)
        a10 = v.multiply_add(v.spread(u, r10 + tap), a, a10)
        a11 = v.multiply_add(v.spread(u, r11 + tap), a, a11)
    if relu:
        a0, a1 = v.rectified(a0), v.rectified(a1)
        a2, a3 = v.rectified(a2), v.rectified(a3)
        a4, a5 = v.rectified(a4), v.rectified(a5)
        a6, a7 = v.rectified(a6), v.rectified(a7)
        a8, a9 = v.rectified(a8), v.rectified(a9)
        a10, a11 = v.rectified(a10), v.rectified(a11)
    v.store(out, o, a0)
    v.store(out, o + ld, a1)
    v.store(out, o + 2 * ld, a2)
    v.store(out, o + 3 * ld, a3)
    v.store(out, o + 4 * ld, a4)
    v.store(out, o + 5 * ld, a5)
    v.store(out, o + 6 * ld, a6)
    v.store(out, o + 7 * ld, a7)
    v.store(out, o + 8 * ld, a8)
    v.store(out, o + 9 * ld, a9)
    v.store(out, o + 10 * ld, a10)
    v.store(out, o + 11 * ld, a11)


@plain_njit(nogil=True)
def product(out, o, ld, u, rows, count, taps, m, at, ld_m, columns, start, relu):
    """Write all rows and columns; of the sums the larger of them and 0 where `relu` is true.

    The last block of rows begins so early that it ends with them; where there are fewer than
    `ROWS`, `rows` and `out` must have room for so many all the same.

    Args:
        out: flat; its first row begins at `o`, the next `ld` on; m: likewise, at `at`, `ld_m`.
        count: of rows. columns: of out and m, whole vectors.
    """
    size = v.count(m)
    k = 0
    while k < columns:
        if columns == size:
            wide, high = size, 12
        elif (columns - k) // size % 2 == 1:
            wide, high = 3 * size, 4
        else:
            wide, high = 2 * size, 6
        for i in range(0, count, high):
            row = max(0, min(i, count - high))
            where = o + row * ld + k
            if high == 12:
                _twelve_by_one(out, where, ld, u, rows, row, taps, m, at, ld_m, start, relu)
            elif high == 4:
                _four_by_three(out, where, ld, u, rows, row, taps, m, at + k, ld_m, start[k:], relu)
            else:
                _six_by_two(out, where, ld, u, rows, row, taps, m, at + k, ld_m, start[k:], relu)
        k += wide
