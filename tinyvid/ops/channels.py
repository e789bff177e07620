"""Arithmetic over the channels of large arrays, in blocks that stay in the cache.

The activations of a video network have few channels and millions of positions, and lie in
channels-last memory: a matrix of a row a position and a column a channel. NumPy adds its rows
one after the other, which costs float32 a digit or two. Here each block of rows is added by
itself and the blocks' sums in float64. Blocks depend on the shape alone, so that the results
do not depend on the number of threads. Other devices than the CPU add by their own means.
"""

from __future__ import annotations

import math

import numpy as np

from tinyvid.device import device_of
from tinyvid.kernels.threads import chunks_of, parallel_for

BLOCK = 2**16  # elements in a block
ROWS = 512  # at most, since they are added one after the other


def total(array: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """Return the sum over `dims`, which stay as axes of size 1."""
    if array.size > BLOCK and array.dtype.kind == "f" and device_of(array) == "cpu":
        kept = [i for i in range(array.ndim) if i not in dims]
        summed = sorted(dims, key=lambda i: -array.strides[i])  # as they lie in memory
        rows = array.transpose(*summed, *kept)
        channels = math.prod(array.shape[i] for i in kept)
        if rows.flags.c_contiguous and channels <= BLOCK // 16:
            shape = [1 if i in dims else n for i, n in enumerate(array.shape)]
            return _column_sums(rows.reshape(-1, channels)).astype(array.dtype).reshape(shape)
    if device_of(array) == "cpu":
        return np.add.reduce(array, dims, keepdims=True)  # what `sum` calls, a little later
    return array.sum(dims, keepdims=True) if dims else array


def _column_sums(rows: np.ndarray) -> np.ndarray:
    """Return the sum of the rows of a matrix, in float64."""
    lanes, blocks = _lanes(rows)
    sums = np.empty((len(blocks), lanes.shape[1]), rows.dtype)

    def add(i: int) -> None:
        lanes[blocks[i]].sum(0, out=sums[i])

    parallel_for(add, range(len(blocks)))
    return _over_lanes(sums, rows.shape[1])


def _lanes(rows: np.ndarray) -> tuple[np.ndarray, list[slice]]:
    """Return several rows as one where they divide evenly, and the blocks of the result.

    A row of few channels is too short for NumPy's inner loop; 64 of them are not.
    """
    lanes = rows.reshape(-1, math.gcd(len(rows), 64) * rows.shape[1])
    return lanes, chunks_of(len(lanes), max(min(BLOCK // lanes.shape[1], ROWS), 1))


def _over_lanes(sums: np.ndarray, channels: int) -> np.ndarray:
    return sums.reshape(-1, channels).sum(0, dtype=np.float64)


def channels_last(array: np.ndarray) -> np.ndarray:
    """Return an array `N C ...` as a matrix of its positions and channels."""
    rows = np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])
    return rows if rows.flags.c_contiguous else rows.copy()


def channels_first(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return such a matrix as a view of shape `N C ...`."""
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance of each column, in float64.

    The squares are taken about the mean of their block, and moved to the mean of all
    (Chan, Golub & LeVeque, 1983, formula 2.1): rows are read from memory once. What a block's
    mean lacks in float32 is seen in what the centred rows still add up to.
    """
    if device_of(rows) != "cpu":
        return rows.mean(0, np.float64), rows.var(0, np.float64)
    lanes, blocks = _lanes(rows)
    means = np.empty((len(blocks), lanes.shape[1]), rows.dtype)
    squares, rests = np.empty_like(means), np.empty_like(means)

    def block(i: int) -> None:
        x = lanes[blocks[i]]
        x.mean(0, out=means[i])
        centred = x - means[i]
        centred.sum(0, out=rests[i])
        centred *= centred
        centred.sum(0, out=squares[i])

    parallel_for(block, range(len(blocks)))
    counts = np.array([[b.stop - b.start] for b in blocks], np.float64)
    exact = means + rests / counts
    mean = _over_lanes(exact * counts, rows.shape[1]) / len(rows)
    apart = exact - np.tile(mean, lanes.shape[1] // rows.shape[1])
    squares = squares - rests * rests / counts + apart * apart * counts
    return mean, _over_lanes(squares, rows.shape[1]) / len(rows)


def shift_and_scale(
    rows: np.ndarray, centre: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Return (rows − centre) · scale + shift, each a number a column."""
    if device_of(rows) != "cpu":
        centre, scale, shift = (v.astype(rows.dtype) for v in (centre, scale, shift))
        return (rows - centre) * scale + shift
    lanes, blocks = _lanes(rows)
    centre, scale, shift = (_spread(v, lanes, rows) for v in (centre, scale, shift))
    out = np.empty_like(lanes)

    def block(b: slice) -> None:
        y = np.subtract(lanes[b], centre, out=out[b])
        y *= scale
        y += shift

    parallel_for(block, blocks)
    return out.reshape(rows.shape)


def _spread(vector: np.ndarray, lanes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.tile(vector.astype(rows.dtype), lanes.shape[1] // rows.shape[1])


def standardise_backward(
    g: np.ndarray, rows: np.ndarray, mean: np.ndarray, r: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of y = x̂ · weight + bias, with x̂ = (rows − mean) · r.

    With M rows: gbias = Σ g, gweight = Σ g · x̂, and
    gx = weight · r · (g − gbias / M − x̂ · gweight / M).
    """
    m, channels = rows.shape
    if device_of(rows) != "cpu":
        normed = (rows - mean.astype(rows.dtype)) * r.astype(rows.dtype)
        gbias, gweight = g.sum(0, np.float64), (g * normed).sum(0, np.float64)
        gbias, gweight = gbias.astype(g.dtype), gweight.astype(g.dtype)
        gx = (weight * r).astype(g.dtype) * (g - gbias / m - normed * (gweight / m))
        return gx, gweight, gbias
    (x, blocks), (gy, _) = _lanes(rows), _lanes(g)
    centre = _spread(mean, x, rows)
    sums = np.empty((2, len(blocks), x.shape[1]), rows.dtype)

    def add(i: int) -> None:
        b = blocks[i]
        gy[b].sum(0, out=sums[0, i])
        product = x[b] - centre
        product *= gy[b]
        product.sum(0, out=sums[1, i])

    parallel_for(add, range(len(blocks)))
    gbias, gweight = _over_lanes(sums[0], channels), _over_lanes(sums[1], channels) * r
    scale, slope, shift = weight * r, -weight * r * r * gweight / m, -weight * r * gbias / m
    scale, slope, shift = (_spread(v, x, rows) for v in (scale, slope, shift))
    gx = np.empty_like(x)

    def combine(b: slice) -> None:
        out = np.subtract(x[b], centre, out=gx[b])
        out *= slope
        out += shift
        out += gy[b] * scale

    parallel_for(combine, blocks)
    return gx.reshape(rows.shape), gweight.astype(g.dtype), gbias.astype(g.dtype)
