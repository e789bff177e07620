"""3-D convolution on the processor: `cpu/im2col`.

Each output cell sees a patch of the input; copied out as the row of a matrix, the patches
turn convolution into matrix products, which BLAS does well (Chellapilla, Puri and Simard,
"High Performance Convolutional Neural Networks for Document Processing", IWFHR 2006). With m
for an output cell (n, z, p, q) and j for a tap and a channel (t, r, s, c):

    fprop   y[m, k]  = sum over j of patches(x)[m, j] * w[k, j]
    wgrad   gw[k, j] = sum over m of gy[m, k] * patches(x)[m, j]
    dgrad   gx[m, c] = sum over j of patches(gy)[m, j] * w'[j, c]      j = (t, r, s, k)

The whole matrix would be 27 times the input for a 3x3x3 filter. So it never exists but in
blocks (some rows, some columns) that stay in cache: packed, multiplied and forgotten.

dgrad gathers, as fprop does. With stride 1 it correlates gy with the filter turned round.
With stride s, cells of x whose padded position has the same remainder by s are met by the
same taps, and for them it is again a correlation of stride 1; there are s such phases along
each axis. So no product with a zero between the strides is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

from tinyvid.geometry import ConvGeometry, Ints
from tinyvid.kernels.conv3d.finish import UNFINISHED, Finish
from tinyvid.kernels.conv3d.patches import Axis, Patches
from tinyvid.kernels.memory import empty
from tinyvid.kernels.threads import Scratch, chunks_of, parallel_for

# Sizes of a block of patches, and of the work. They decide the order of the sums, so they
# depend on shapes alone, never on the number of threads.
COLUMNS = 1024  # at most, but at least one run of taps
_ELEMENTS = 1 << 17  # about; half a megabyte of float32
_ROWS = (256, 2048)  # at least, at most
ITEMS = 16  # split a sum, where needed, so that at least so many threads have work


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv3d`."""
    x, w = channels_last(x), channels_last(w)
    y = empty(_moved(geometry.y), x.dtype)
    finish = Finish(bias, relu, y.dtype)
    out = y.reshape(math.prod(y.shape[:4]), geometry.y[1])
    if not w.size:  # sums of nothing, where there are no channels
        out[...] = 0
        finish(out, slice(0, len(out)), slice(0, out.shape[1]))
        return channels_first(y)
    patches = Patches(x, windows(geometry), geometry.groups, COLUMNS)
    filters = w.reshape(geometry.groups, -1, patches.shape[1])  # (groups, K, T*R*S*C)
    _correlate(patches, filters.transpose(0, 2, 1), out, finish)
    return channels_first(y)


def dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gx; see `tinyvid.kernels.conv3d`."""
    gy, w = channels_last(gy), channels_last(w)
    gx = empty(_moved(geometry.x), gy.dtype)
    for phase in product(*(phases(geometry, axis) for axis in range(3))):
        cells = gx[:, phase[0].cells, phase[1].cells, phase[2].cells]
        filters = filters_of(phase, w, geometry.groups)
        if not filters.size:
            cells[...] = 0
            continue
        patches = Patches(gy, [along.axis for along in phase], geometry.groups, COLUMNS)
        out = cells if cells.flags.c_contiguous else empty(cells.shape, cells.dtype)
        _correlate(patches, filters, out.reshape(-1, gx.shape[4]))
        if out is not cells:
            cells[...] = out
    return channels_first(gx)


def wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv3d`."""
    gy, x = channels_last(gy), channels_last(x)
    gw = np.zeros(_moved(geometry.w), gy.dtype)
    if not gw.size:
        return channels_first(gw)
    patches = Patches(x, windows(geometry), geometry.groups, COLUMNS)
    _correlate_along_rows(patches, gy.reshape(-1, gy.shape[4]), gw.reshape(len(gw), -1))
    return channels_first(gw)


def uint8_fprop(
    x: np.ndarray,
    w: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv3d.uint8`. It makes a copy of the clip in floats."""
    return fprop(normalised(x, mean, std, w.dtype), w, geometry, bias, relu)


def uint8_wgrad(
    gy: np.ndarray,
    x: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv3d.uint8`. It makes a copy of the clip in floats."""
    return wgrad(gy, normalised(x, mean, std, gy.dtype), geometry)


def normalised(
    x: np.ndarray, mean: Sequence[float], std: Sequence[float], dtype: np.dtype
) -> np.ndarray:
    """Return (x / 255 - mean) / std, `N C D H W` as x, channels-last in memory."""
    scale = 1 / (255 * np.asarray(std, np.float64))
    shift = -np.asarray(mean, np.float64) / std
    u = channels_last(x).astype(dtype)
    u *= scale.astype(dtype)
    u += shift.astype(dtype)
    return channels_first(u)


def _correlate(
    patches: Patches, filters: np.ndarray, out: np.ndarray, finish: Finish = UNFINISHED
) -> None:
    """Write patches @ filters into `out`, group by group, and finish it block by block.

    Args:
        filters: (groups, columns of the patches, K of a group).
        out: (rows of the patches, K of all groups).
    """
    K = filters.shape[2]
    chunks = row_chunks(patches)
    # Where there are few rows, the sum over columns falls into slabs, added up at the end.
    slabs = _share(patches.blocks, ITEMS // max(1, len(chunks) * patches.groups))
    partial = empty((len(slabs) - 1, *out.shape), out.dtype)
    scratch = Scratch()

    def multiply(item):
        (index, slab), rows, group = item
        whole = out if index == 0 else partial[index - 1]
        y = whole[rows, group * K : (group + 1) * K]
        for i, block in enumerate(slab):
            term = y if i == 0 else scratch.get("product", y.shape, y.dtype)
            matrix = patches.pack(rows, block, group, scratch)
            np.matmul(matrix, filters[group, block[0]], out=term)
            if i:
                y += term
        if not len(partial):
            finish(out, rows, slice(group * K, (group + 1) * K))

    with np.errstate(all="ignore"):
        items = product(enumerate(slabs), chunks, range(patches.groups))
        parallel_for(multiply, list(items))
        _add_all(out, partial, finish)


def _correlate_along_rows(patches: Patches, gy: np.ndarray, out: np.ndarray) -> None:
    """Write gy.T @ patches into `out`, group by group.

    Args:
        gy: (rows of the patches, K).
        out: (K, columns of the patches), zero where there are no rows.
    """
    K = len(out) // patches.groups
    # The sum over rows falls into slabs, added up at the end.
    slabs = _share(row_chunks(patches), ITEMS // (len(patches.blocks) * patches.groups))
    partial = empty((len(slabs) - 1, *out.shape), out.dtype)
    scratch = Scratch()

    def multiply(item):
        (index, slab), block, group = item
        outputs = slice(group * K, (group + 1) * K)
        gw = (out if index == 0 else partial[index - 1])[outputs, block[0]]
        for i, rows in enumerate(slab):
            term = gw if i == 0 else scratch.get("product", gw.shape, gw.dtype)
            matrix = patches.pack(rows, block, group, scratch)
            np.matmul(gy[rows, outputs].T, matrix, out=term)
            if i:
                gw += term

    with np.errstate(all="ignore"):
        items = product(enumerate(slabs), patches.blocks, range(patches.groups))
        parallel_for(multiply, list(items))
        _add_all(out, partial)


def row_chunks(patches: Patches) -> list[slice]:
    """Split the rows so that a block of patches stays in cache."""
    widest = max(columns.stop - columns.start for columns, _ in patches.blocks)
    least, most = _ROWS
    return chunks_of(patches.shape[0], min(max(_ELEMENTS // max(widest, 1), least), most))


def _share(pieces: list, slabs: int) -> list[list]:
    """Deal out the pieces, in their order, to at most so many slabs and at least one."""
    slabs = max(1, min(slabs, len(pieces)))
    ends = [len(pieces) * i // slabs for i in range(slabs + 1)]
    return [pieces[start:stop] for start, stop in pairwise(ends)]


def _add_all(out: np.ndarray, partial: np.ndarray, finish: Finish = UNFINISHED) -> None:
    """Add the partial sums to `out`, in their order, and finish what they make."""

    def add(rows):
        for part in partial:
            out[rows] += part[rows]
        finish(out, rows, slice(0, out.shape[1]))

    if len(partial) and len(out):
        parallel_for(add, chunks_of(len(out), -(-len(out) // ITEMS)))


def windows(geometry: ConvGeometry) -> list[Axis]:
    """Return how the output of fprop meets x: tap t of output z reads d = z*stride + offset."""
    return [
        Axis(size, stride, tuple(t * dilation - low for t in range(taps)))
        for size, taps, stride, dilation, (low, _) in zip(
            geometry.y[2:],
            geometry.w[2:],
            geometry.stride,
            geometry.dilation,
            geometry.padding,
            strict=True,
        )
    ]


class _Phase(NamedTuple):
    """Cells of x along one axis that are met by the same taps, and how they meet gy."""

    cells: slice
    taps: list[int]
    axis: Axis


def phases(geometry: ConvGeometry, axis: int) -> list[_Phase]:
    """Return the phases of dgrad along one axis.

    Cell d meets output z in tap t where d + low = z * stride + t * dilation.
    """
    size, taps = geometry.x[2 + axis], geometry.w[2 + axis]
    stride, dilation = geometry.stride[axis], geometry.dilation[axis]
    low = geometry.padding[axis][0]
    phases = []
    for first in range(min(stride, size)):
        # From the last tap to the first, so that the outputs they meet are neighbours.
        meeting = [t for t in reversed(range(taps)) if (first + low - t * dilation) % stride == 0]
        offsets = tuple((first + low - t * dilation) // stride for t in meeting)
        count = len(range(first, size, stride))
        phases.append(_Phase(slice(first, None, stride), meeting, Axis(count, 1, offsets)))
    return phases


def filters_of(phase: Sequence[_Phase], w: np.ndarray, groups: int) -> np.ndarray:
    """Return what a phase of dgrad multiplies patches of gy by: (groups, T*R*S*K, C)."""
    K, T, R, S, C = w.shape
    taps = list(product(*(along.taps for along in phase)))
    grouped = w.reshape(groups, K // groups, T, R, S, C)
    filters = np.empty((groups, len(taps), K // groups, C), w.dtype)

    def copy(i):
        t, r, s = taps[i]
        filters[:, i] = grouped[:, :, t, r, s]

    parallel_for(copy, range(len(taps)))
    return filters.reshape(groups, len(taps) * (K // groups), C)


def channels_last(array: np.ndarray) -> np.ndarray:
    """Return N C D H W as N D H W C without gaps in memory: a view where it lies so already."""
    moved = array.transpose(0, 2, 3, 4, 1)
    if moved.flags.c_contiguous and moved.flags.aligned:
        return moved
    copy = empty(moved.shape, moved.dtype)
    # Along the longer one of the first two axes.
    source, target = (moved, copy) if len(moved) > 1 else (moved[0], copy[0])
    parallel_for(
        lambda part: np.copyto(target[part], source[part]),
        chunks_of(len(source), -(-len(source) // ITEMS)),
    )
    return copy


def channels_first(array: np.ndarray) -> np.ndarray:
    """Return the view N C D H W of an array N D H W C."""
    return array.transpose(0, 4, 1, 2, 3)


def _moved(shape: Ints) -> Ints:
    """Return the shape N C D H W as N D H W C."""
    return (shape[0], *shape[2:], shape[1])
