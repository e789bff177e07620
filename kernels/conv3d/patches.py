"""Patches of a batch as rows of a matrix, copied out block by block (im2col)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, product
from typing import Any, NamedTuple

import numpy as np
from numba import types

from tinyvid.kernels.jit import for_dtypes
from tinyvid.kernels.threads import Scratch


class Axis(NamedTuple):
    """Along one axis, output cell i meets the source at i * step + offset, for each offset."""

    size: int
    step: int
    offsets: tuple[int, ...]


class Patches:
    """The matrix whose row m holds all that output cell m sees of the source.

    Args:
        source: N D H V C in memory without gaps.
        axes: how the output meets the source along D, H and V.
        groups: the channels fall into this many groups, each with a matrix of its own.

    Attributes:
        shape: rows (one an output cell, in the order n, z, p, q) and columns (in the order
            of the taps t, r, s, then the group's channels).
        blocks: the columns in pieces of about `columns`: a pair of slices, of columns and of
            runs, for each.
    """

    def __init__(self, source: np.ndarray, axes: Sequence[Axis], groups: int, columns: int):
        N, D, H, V, C = source.shape
        self.source = source.reshape(N, D, H, V * C)
        self.axes = tuple(axes)
        self.groups, self.channels = groups, C
        self.width = C // groups  # channels of a group
        taps = [len(axis.offsets) for axis in axes]
        cells = [axis.size for axis in axes]
        self.shape = (int(np.prod([len(source), *cells])), int(np.prod([*taps, self.width])))
        # A filter of one cell that moves over the whole source: its patches are the source.
        self.is_source = tuple(axes) == tuple(Axis(size, 1, (0,)) for size in source.shape[1:4])
        self.runs = _runs(self.axes, merge=groups == 1)
        self.blocks = _blocks(self.runs[:, 3] * self.width, columns)

    def pack(
        self, rows: slice, block: tuple[slice, slice], group: int, scratch: Scratch
    ) -> np.ndarray:
        """Return these rows and columns of a group's matrix; they last until the next call."""
        first_channel = group * self.width
        if self.is_source:
            matrix = self.source.reshape(-1, self.channels)
            return matrix[rows, first_channel : first_channel + self.width]
        columns, runs = block
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        out = scratch.get("patches", shape, self.source.dtype)
        (Z, stride_d, _), (P, stride_h, _), (Q, stride_v, _) = self.axes
        _pack(out.dtype.name)(
            out,
            self.source,
            self.channels,
            first_channel,
            self.width,
            rows.start,
            *(Z, P, Q),
            *(stride_d, stride_h, stride_v),
            self.runs[runs],
        )
        return out


def _runs(axes: Sequence[Axis], merge: bool) -> np.ndarray:
    """Return the taps as rows of (offset in D, in H, in V, how many neighbours in V).

    Neighbouring taps with all their channels lie in one piece in memory, and are copied as one.
    """
    d, h, v = (axis.offsets for axis in axes)
    pieces = [(offset, 1) for offset in v]
    if merge:
        neighbours = groupby(enumerate(v), key=lambda pair: pair[1] - pair[0])
        groups = [[offset for _, offset in run] for _, run in neighbours]
        pieces = [(run[0], len(run)) for run in groups]
    runs = [(i, j, *piece) for i, j, piece in product(d, h, pieces)]
    return np.array(runs, np.int64).reshape(-1, 4)


def _blocks(widths: np.ndarray, columns: int) -> list[tuple[slice, slice]]:
    """Split runs of these widths into blocks of at most `columns`, but at least one run."""
    ends = [0, *np.cumsum(widths).tolist()]
    blocks, first = [], 0
    for last in range(1, len(ends)):
        if last == len(widths) or ends[last + 1] - ends[first] > columns:
            blocks.append((slice(ends[first], ends[last]), slice(first, last)))
            first = last
    return blocks


def _signature(scalar: types.Type) -> Any:
    source = types.Array(scalar, 4, "C", readonly=True)
    runs = types.Array(types.int64, 2, "C", readonly=True)
    return types.void(types.Array(scalar, 2, "C"), source, *[types.int64] * 10, runs)


@for_dtypes(_signature)
def _pack(out, x, C, first_channel, width, first_row, Z, P, Q, step_d, step_h, step_v, runs):
    """Fill `out` with the rows from `first_row` on, and the columns of these runs."""
    _, D, H, _ = x.shape
    V = x.shape[3] // C
    rows = out.shape[0]
    row = 0
    while row < rows:
        # The outputs of one line of q are neighbours: find where it lies once.
        line, q0 = divmod(first_row + row, Q)
        plane, p = divmod(line, P)
        n, z = divmod(plane, Z)
        count = min(Q - q0, rows - row)
        column = 0
        for run in range(runs.shape[0]):
            d = z * step_d + runs[run, 0]
            h = p * step_h + runs[run, 1]
            taps = runs[run, 3]
            size = taps * width
            if d < 0 or d >= D or h < 0 or h >= H:
                for i in range(row, row + count):
                    out[i, column : column + size] = 0
            else:
                source = x[n, d, h]
                for i in range(count):
                    v = (q0 + i) * step_v + runs[run, 2]
                    if v >= 0 and v + taps <= V:
                        # Slices, so that the compiler sees indices that cannot be negative.
                        piece = out[row + i, column : column + size]
                        start = v * C + first_channel
                        cells = source[start : start + size]
                        for j in range(size):
                            piece[j] = cells[j]
                    else:
                        for tap in range(taps):
                            start = column + tap * width
                            piece = out[row + i, start : start + width]
                            if v + tap < 0 or v + tap >= V:
                                piece[:] = 0
                            else:
                                start = (v + tap) * C + first_channel
                                piece[:] = source[start : start + width]
            column += size
        row += count
