"""Direct 3-D convolution on the processor: `cpu/direct`, for few channels.

Where channels are few, a matrix of patches is many times what it is made of, and a product
with so few columns leaves BLAS half idle. Here nothing is copied out but a band of the
input with its border, and sums stay in the registers over all taps: see
`tinyvid.kernels.conv3d.bands`. Bias and ReLU are applied there too. (Georganas et al., "Anatomy
of high-performance deep learning convolutions on SIMD architectures", SC 2018.)

Largest error in float32: a sum over n taps and channels is added up one product after the other,
and is off by at most n / 2^24 of the sum of its products' sizes; wgrad's likewise, with n the
cells of a band and the number of bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv3d import bands
from tinyvid.kernels.conv3d.band_product import ROWS
from tinyvid.kernels.conv3d.costs import FPROP_CELLS, WGRAD_CELLS, band_of
from tinyvid.kernels.conv3d.cpu import channels_first, channels_last, filters_of, phases, windows
from tinyvid.kernels.conv3d.patches import Axis
from tinyvid.kernels.memory import empty
from tinyvid.kernels.threads import chunks_of, parallel_for

ITEMS = 32  # pieces of work; wgrad has a sum of its own for each


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv3d`."""
    return uint8_fprop(x, w, (), (), geometry, bias, relu)


def uint8_fprop(
    x: np.ndarray,
    w: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv3d.uint8`. Bytes are normalised as they are copied."""
    N, K, *cells = geometry.y
    y = empty((N, *cells, K), w.dtype)
    filters = channels_last(w).reshape(geometry.groups, K // geometry.groups, -1)
    scale = normalisation(mean, std, w.dtype)
    _correlate(x, windows(geometry), filters.transpose(0, 2, 1), y, bias, relu, scale)
    return channels_first(y)


def dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gx; see `tinyvid.kernels.conv3d`: phase by phase, as `cpu/im2col` does."""
    N, C, *sizes = geometry.x
    gx = empty((N, *sizes, C), gy.dtype)
    w = channels_last(w)
    for phase in product(*(phases(geometry, axis) for axis in range(3))):
        cells = gx[:, phase[0].cells, phase[1].cells, phase[2].cells]
        filters = filters_of(phase, w, geometry.groups)
        if not filters.size:
            cells[...] = 0
            continue
        out = cells if cells.flags.c_contiguous else empty(cells.shape, cells.dtype)
        _correlate(gy, [along.axis for along in phase], filters, out)
        if out is not cells:
            cells[...] = out
    return channels_first(gx)


def wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv3d`."""
    return uint8_wgrad(gy, x, (), (), geometry)


def uint8_wgrad(
    gy: np.ndarray,
    x: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv3d.uint8`. Bytes are normalised as they are copied."""
    groups = geometry.groups
    K, C, *window = geometry.w
    axes = windows(geometry)
    sizes = band_sizes(axes, geometry, WGRAD_CELLS)
    taps = tap_places(axes, sizes)
    columns = padded(K // groups, gy.dtype)
    loop = bands.wgrad(gy.dtype.name, x.dtype.name)
    x, gy = readable(x), flat(channels_last(gy))
    scale = normalisation(mean, std, gy.dtype)
    slabs = chunks_of(count := band_count(geometry.y, sizes), max(1, -(-count // ITEMS)))
    sums = np.zeros((groups, len(slabs), taps.size, columns), gy.dtype)
    rows = np.resize(taps, max(ROWS, taps.size))

    def add(item: tuple[int, int]) -> None:
        group, slab = item
        part = sums[group, slab].reshape(-1)
        bounds = slabs[slab].start, slabs[slab].stop
        loop(*bounds, part, gy, x, rows, of_group(sizes, group), *scale)

    if gy.size and taps.size:
        parallel_for(add, list(product(range(groups), range(len(slabs)))))
    total = sums.sum(1)[:, :, : K // groups]  # (groups, taps and channels, K of a group)
    gw = total.transpose(0, 2, 1).reshape(K, *window, C)
    return channels_first(np.ascontiguousarray(gw))


def _correlate(
    source: np.ndarray,
    axes: Sequence[Axis],
    filters: np.ndarray,
    out: np.ndarray,
    bias: np.ndarray | None = None,
    relu: bool = False,
    scale: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Write what filters find in the source into `out`.

    Args:
        source: N C D H V, in any order in memory. axes: how `out` meets it.
        filters: (groups, taps and channels, K of a group).
        out: N Z P Q K of all groups, without gaps in memory.
    """
    groups, _, K = filters.shape
    N, *cells, all_k = out.shape
    sizes = band_sizes_of(axes, source.shape[1] // groups, K, all_k, FPROP_CELLS)
    taps = tap_places(axes, sizes)
    packed, start = filters_and_start(filters, bias)
    loop = bands.fprop(out.dtype.name, source.dtype.name)
    x, y = readable(source), flat(out)
    scale = scale or normalisation((), (), out.dtype)

    def write(item: tuple[int, slice]) -> None:
        group, part = item
        given = x, packed[group].reshape(-1), taps, start[group]
        loop(part.start, part.stop, y, *given, relu, of_group(sizes, group), *scale)

    count = band_count((N, all_k, *cells), sizes)
    if out.size:
        parts = chunks_of(count, max(1, -(-count // ITEMS)))
        parallel_for(write, list(product(range(groups), parts)))


def filters_and_start(
    filters: np.ndarray, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return filters (groups, taps and channels, K) and a bias, their columns whole vectors."""
    groups, depth, K = filters.shape
    columns = padded(K, filters.dtype)
    packed = np.zeros((groups, depth, columns), filters.dtype)
    packed[:, :, :K] = filters
    start = np.zeros((groups, columns), filters.dtype)
    if bias is not None:
        start[:, :K] = bias.reshape(groups, K)
    return packed, start


# ---- what the loops are told ---------------------------------------------------------------------


def band_sizes(axes: Sequence[Axis], geometry: ConvGeometry, cells: int) -> bands.Sizes:
    """Return the sizes of a convolution's bands of about so many output cells."""
    K, groups = geometry.w[0], geometry.groups
    return band_sizes_of(axes, geometry.w[1], K // groups, K, cells)


def band_sizes_of(axes: Sequence[Axis], C: int, K: int, all_k: int, cells: int) -> bands.Sizes:
    """Return sizes; C and K are channels of a group."""
    planes, rows = band_of([axis.size for axis in axes], cells)
    return sized(axes, C, K, all_k, planes, rows)


def sized(axes: Sequence[Axis], C: int, K: int, all_k: int, planes: int, rows: int) -> bands.Sizes:
    """Return the sizes of bands of so many planes and rows of output cells."""
    lows = [min(axis.offsets, default=0) for axis in axes]
    reach = [max(axis.offsets, default=0) + 1 - low for axis, low in zip(axes, lows, strict=True)]
    steps = [axis.step for axis in axes]
    extents = [
        (size - 1) * step + more
        for size, step, more in zip((planes, rows, axes[2].size), steps, reach, strict=True)
    ]
    cells = [axis.size for axis in axes]
    return bands.Sizes._make(
        [*cells, planes, rows, *steps, *lows, *extents, C, 0, K, 0, all_k],
    )


def of_group(sizes: bands.Sizes, group: int) -> bands.Sizes:
    """Return the sizes for one of the groups of channels."""
    return sizes._replace(first_c=group * sizes.C, first_k=group * sizes.K)


def band_count(y: Sequence[int], sizes: bands.Sizes) -> int:
    """Return how many bands there are in an output N K Z P Q."""
    N, _, Z, P, _ = y
    return N * -(-Z // sizes.planes) * -(-P // sizes.rows)


def tap_places(axes: Sequence[Axis], sizes: bands.Sizes) -> np.ndarray:
    """Return where each tap and channel (t, r, s, c) of cell 0 lies in a band's copy of x."""
    d, h, v = (np.array(axis.offsets, np.int64) for axis in axes)
    d, h, v = d - sizes.low_d, h - sizes.low_h, v - sizes.low_v
    cells = (d[:, None, None] * sizes.H + h[:, None]) * sizes.V + v  # (T, R, S)
    return (cells[..., None] * sizes.C + np.arange(sizes.C)).reshape(-1)


def padded(K: int, dtype: np.dtype) -> int:
    """Return K up to whole vectors."""
    lanes = bands.v.BYTES // dtype.itemsize
    return -(-K // lanes) * lanes


def normalisation(
    mean: Sequence[float], std: Sequence[float], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift of each channel: (x / 255 - mean) / std = x * scale + shift."""
    deviations = np.asarray(std, np.float64)
    scale = 1 / (255 * deviations)
    shift = -np.asarray(mean, np.float64) / deviations
    return scale.astype(dtype), shift.astype(dtype)


def readable(x: np.ndarray) -> np.ndarray:
    """Return N C D H V as N D H V C, in any order in memory."""
    moved = x.transpose(0, 2, 3, 4, 1)
    return moved if moved.flags.aligned else moved.copy()


def flat(array: np.ndarray) -> np.ndarray:
    """Return the numbers of an array without gaps as one axis."""
    return array.reshape(-1)
