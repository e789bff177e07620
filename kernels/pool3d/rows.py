"""Loops of pooling over whole rows of memory, for `cpu.py`.

A row is what lies side by side in channels-last memory: all columns of an input line, each
with its channels, W · C numbers. A window is met in two steps: first its T · R rows, element by
element, then its S columns. The first step is vector code however few the channels are.

Given are tables with a line of memory in each row: x `N·D·H, W·C`, y `N·Z·P, Q·C`.
"""

from __future__ import annotations

import numpy as np

from tinyvid.kernels.jit import njit

# ---------------------------------------------------------------- maxima


@njit(nogil=True, cache=True)
def max_fprop(begin, end, y, argmax, x, zs, ps, qs, size, window, dilation):
    """Write the lines `begin` to before `end` of y and argmax; tables as `cpu._windows` makes."""
    channels = x.shape[1] // size[2]
    best, at = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], np.int32)
    column_at = np.empty(channels, np.int32)
    rows = np.empty(window[0] * window[1], np.int64)
    offsets = np.empty(rows.size, np.int32)
    for line in range(begin, end):
        nz, p = divmod(line, len(ps))
        n, z = divmod(nz, len(zs))
        count = 0  # of the window's rows, listed in the order in which they compete
        for t in range(zs[z, 1], zs[z, 2]):
            d = n * size[0] + zs[z, 0] + t * dilation[0]
            for r in range(ps[p, 1], ps[p, 2]):
                rows[count] = d * size[1] + ps[p, 0] + r * dilation[1]
                offsets[count] = (t * window[1] + r) * window[2]
                count += 1
        best[:] = x[rows[0]]
        at[:] = offsets[0]
        for i in range(1, count, 2):
            j = min(i + 1, count - 1)
            _compare_two_rows(best, at, x[rows[i]], offsets[i], x[rows[j]], offsets[j])
        for q in range(len(qs)):
            out = slice(q * channels, (q + 1) * channels)
            first, last = qs[q, 1], qs[q, 2] - 1
            cell = (qs[q, 0] + first * dilation[2]) * channels
            for c in range(channels):
                y[line, out.start + c] = best[cell + c]
                column_at[c] = at[cell + c] + first
            for s in range(first + 1, last + 1, 2):
                s2 = min(s + 1, last)
                cell = (qs[q, 0] + s * dilation[2]) * channels
                cell2 = (qs[q, 0] + s2 * dilation[2]) * channels
                _compare_two_columns(y[line, out], column_at, best, at, cell, s, cell2, s2)
            for c in range(channels):
                argmax[line, out.start + c] = column_at[c]


# Two at a time, the last one standing in for the one beyond it: of a single comparison LLVM makes
# a masked store, which some processors take tens of cycles for.


@njit(nogil=True, cache=True)
def _compare_two_rows(best, at, row, offset, row2, offset2):
    for i in range(len(best)):
        one = larger(best[i], at[i], row[i], offset)
        best[i], at[i] = larger(one[0], one[1], row2[i], offset2)


@njit(nogil=True, cache=True)
def _compare_two_columns(y, y_at, best, at, cell, s, cell2, s2):
    for c in range(len(y)):
        one = _earlier(y[c], y_at[c], best[cell + c], np.int32(at[cell + c] + s))
        y[c], y_at[c] = _earlier(one[0], one[1], best[cell2 + c], np.int32(at[cell2 + c] + s2))


@njit(nogil=True, cache=True)
def larger(best, at, cell, offset):
    """Return the larger of two numbers, and its offset; the first if they are equal."""
    # NaN is larger than everything, and the last one stays, as in PyTorch.
    second = (cell > best) | (cell != cell)
    # A mask of all ones or all zeros instead of an if, for the compiler to see a vector.
    return cell if second else best, at ^ ((at ^ offset) & -np.int32(second))


@njit(nogil=True, cache=True)
def _earlier(best, at, cell, offset):
    """The same where the offsets may come in any order: they decide between equals."""
    number = (cell > best) | ((cell == best) & (offset < at))
    second = number | ((cell != cell) & ((best == best) | (offset > at)))
    return cell if second else best, at ^ ((at ^ offset) & -np.int32(second))


@njit(nogil=True, cache=True)
def max_dgrad(begin, end, gx, gy, argmax, zts, prs, qss, size, window):
    """Write the lines `begin` to before `end` of gx, where no cell lies in two windows.

    zts, prs and qss have, for each cell of an axis, its window and the tap that reads it, or -1.
    Each line of gy is laid out to the cells of an input line once, and serves the window's rows.
    """
    channels = gx.shape[1] // len(qss)
    sent, at = np.empty(gx.shape[1], gx.dtype), np.empty(gx.shape[1], np.int32)
    laid_out = -1
    for line in range(begin, end):
        nd, h = divmod(line, len(prs))
        n, d = divmod(nd, len(zts))
        z, t, p, r = zts[d, 0], zts[d, 1], prs[h, 0], prs[h, 1]
        if z < 0 or p < 0:
            gx[line] = 0
            continue
        row = (n * size[0] + z) * size[1] + p
        if row != laid_out:
            _lay_out(sent, at, gy[row], argmax[row], qss, channels)
            laid_out = row
        offset = np.int32((t * window[1] + r) * window[2])
        for i in range(gx.shape[1]):
            gx[line, i] = sent[i] if at[i] == offset else 0


@njit(nogil=True, cache=True)
def _lay_out(sent, at, gy, argmax, qss, channels):
    """Write what each cell of a line may receive, and the offset of its row if it does."""
    for w in range(len(qss)):
        cell, out, tap = w * channels, qss[w, 0] * channels, np.int32(qss[w, 1])
        if out < 0:
            at[cell : cell + channels] = -1
            continue
        for c in range(channels):
            sent[cell + c] = gy[out + c]
        for c in range(channels):
            at[cell + c] = np.int32(argmax[out + c]) - tap


# ---------------------------------------------------------------- means


@njit(nogil=True, cache=True, error_model="numpy")
def avg_fprop(begin, end, y, x, zs, ps, qs, z_count, p_count, q_count, size):
    """Write the lines `begin` to before `end` of y; tables as `cpu` makes them."""
    channels = x.shape[1] // size[2]
    sums = np.empty(x.shape[1], x.dtype)
    for line in range(begin, end):
        nz, p = divmod(line, len(ps))
        n, z = divmod(nz, len(zs))
        sums[:] = 0
        for t in range(zs[z, 1], zs[z, 2]):
            for r in range(ps[p, 1], ps[p, 2]):
                row = (n * size[0] + zs[z, 0] + t) * size[1] + ps[p, 0] + r
                for i in range(x.shape[1]):
                    sums[i] += x[row, i]
        for q in range(len(qs)):
            out = q * channels
            for c in range(channels):
                y[line, out + c] = 0
            for s in range(qs[q, 1], qs[q, 2]):
                cell = (qs[q, 0] + s) * channels
                for c in range(channels):
                    y[line, out + c] += sums[cell + c]
            divisor = y.dtype.type(z_count[z] * p_count[p] * q_count[q])
            for c in range(channels):
                y[line, out + c] /= divisor


@njit(nogil=True, cache=True)
def avg_dgrad(begin, end, gx, shares, d_at, zs, ts, h_at, ps, rs, w_at, qs, ss, size):
    """Write the lines `begin` to before `end` of gx; tables as `cpu._covers` makes them."""
    depth, height, width = len(d_at) - 1, len(h_at) - 1, len(w_at) - 1
    channels = gx.shape[1] // width
    sums = np.empty(shares.shape[1], gx.dtype)
    for line in range(begin, end):
        nd, h = divmod(line, height)
        n, d = divmod(nd, depth)
        sums[:] = 0
        for i in range(d_at[d], d_at[d + 1]):
            for j in range(h_at[h], h_at[h + 1]):
                row = (n * size[0] + zs[i]) * size[1] + ps[j]
                for k in range(shares.shape[1]):
                    sums[k] += shares[row, k]
        for w in range(width):
            cell = w * channels
            for c in range(channels):
                gx[line, cell + c] = 0
            for k in range(w_at[w], w_at[w + 1]):
                out = qs[k] * channels
                for c in range(channels):
                    gx[line, cell + c] += sums[out + c]
