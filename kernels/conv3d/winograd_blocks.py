"""What `cpu/winograd` does with blocks: tiles cut and put together, taps transformed, products.

Arrays are given without gaps and as one axis. A block holds, position by position of a transformed
tile, a matrix; positions are `pitch` numbers apart:

    tiles      (position, tile, channel)          channels rounded up to whole vectors
    filters    (position, panel, channel, lane)   a panel: LANES output channels
    products   (position, row, column)            columns: whole vectors

`tile` is memory for one tile at a time, see `winograd_tiles.py`.
"""

from __future__ import annotations

from tinyvid.kernels.conv3d.winograd_plan import ROWS
from tinyvid.kernels.conv3d.winograd_tiles import (
    transform_cells,
    transform_filter,
    transform_gradients,
    transform_products,
    transform_sums,
)
from tinyvid.kernels.jit import njit
from tinyvid.kernels.simd import LANES, load, multiply_add, rectified, spread, store, zeros_of


@njit(nogil=True, cache=True)
def put_tiles(out, pitch, x, shape, m, reach, counts, low, first, count, tile):
    """Write transformed tiles `first` to `first + count` of x.

    Args:
        out: tiles, from the beginning; rows of channels.
        x: of this shape, N D H W C.
        m, reach: outputs, and cells, of a tile along each axis.
        counts: tiles of a clip along each axis.
        low: padding before the first cell along each axis.
    """
    C = shape[4]
    for i in range(count):
        n, z, p, q = _place(first + i, counts)
        origin = (z * m[0] - low[0], p * m[1] - low[1], q * m[2] - low[2])
        for c in range(0, C, LANES):
            _cut(tile, x, shape, n, origin, reach, reach, c)
            transform_cells(tile, m, reach, reach)
            _put(out, pitch, i, c, C, tile, reach)


@njit(nogil=True, cache=True)
def put_gradients(out, pitch, gy, shape, m, reach, counts, first, count, tile):
    """Write transformed tiles of gy, of this shape, N Z P Q K; otherwise as `put_tiles`."""
    K = shape[4]
    for i in range(count):
        n, z, p, q = _place(first + i, counts)
        origin = (z * m[0], p * m[1], q * m[2])
        for k in range(0, K, LANES):
            _cut(tile, gy, shape, n, origin, m, reach, k)
            transform_gradients(tile, m, m, reach)
            _put(out, pitch, i, k, K, tile, reach)


@njit(nogil=True, cache=True)
def put_together(y, shape, products, sizes, bias, rectify, m, reach, counts, first, count, tile):
    """Write outputs of tiles `first` to `first + count`: their sums, plus the bias.

    Args:
        y: of this shape, N Z P Q K.
        products: rows of tiles, columns of output channels.
        sizes: of the products positions, pitch and columns, and the first output channel.
        bias: of every output channel, up to a whole vector.
        rectify: whether to take the ReLU.
    """
    _, Z, P, Q, K = shape
    positions, pitch, columns, k = sizes
    for i in range(count):
        n, z, p, q = _place(first + i, counts)
        d0, h0, v0 = z * m[0], p * m[1], q * m[2]
        for column in range(0, min(columns, K - k), LANES):
            for position in range(positions):
                at = position * pitch + i * columns + column
                store(tile, position * LANES, load(products, at))
            transform_sums(tile, m, reach, m)
            channel = k + column
            b = load(bias, channel)
            for d in range(min(m[0], Z - d0)):
                for h in range(min(m[1], P - h0)):
                    cell = (d * reach[1] + h) * reach[2] * LANES
                    at = (((n * Z + d0 + d) * P + h0 + h) * Q + v0) * K + channel
                    for _ in range(min(m[2], Q - v0)):
                        value = load(tile, cell) + b
                        if rectify:
                            value = rectified(value)
                        if channel + LANES <= K:
                            store(y, at, value)
                        else:
                            store(tile, cell, value)
                            for lane in range(K - channel):
                                y[at + lane] = tile[cell + lane]
                        cell += LANES
                        at += K


@njit(nogil=True, cache=True)
def put_filters(out, pitch, w, start, steps, outs, which, taps, m, reach, tile):
    """Write transformed filters.

    Args:
        w: where tap i of channel c and output channel k stands at
            start + k * steps[0] + c * steps[1] + i * steps[2].
        outs: how many output channels there are.
        which: of the output channels the first, how many panels; of channels the first, and the
            one after the last.
        taps: of a filter along each axis.
    """
    k, panels, c, end = which
    count = end - c
    for panel in range(panels):
        first = k + panel * LANES
        lanes = min(LANES, outs - first)
        for channel in range(count):
            at = start + first * steps[0] + (c + channel) * steps[1]
            for t in range(taps[0]):
                for r in range(taps[1]):
                    cell = (t * reach[1] + r) * reach[2] * LANES
                    for _ in range(taps[2]):
                        for lane in range(lanes):
                            tile[cell + lane] = w[at + lane * steps[0]]
                        for lane in range(lanes, LANES):
                            tile[cell + lane] = 0
                        cell += LANES
                        at += steps[2]
            transform_filter(tile, m, taps, reach)
            to = (panel * count + channel) * LANES
            for position in range(reach[0] * reach[1] * reach[2]):
                store(out, position * pitch + to, load(tile, position * LANES))


@njit(nogil=True, cache=True)
def put_taps(gw, products, sizes, which, taps, m, reach, add, tile):
    """Write, or add, gradients of the taps.

    Args:
        gw: (K, taps, C).
        products: rows of output channels, columns of channels.
        sizes: of the products positions, pitch and columns.
        which: of the output channels the first, and the one after the last; of the channels
            likewise; and how many channels there are.
    """
    positions, pitch, columns = sizes
    k, k_end, c, c_end, C = which
    number = taps[0] * taps[1] * taps[2]
    for row in range(k_end - k):
        for column in range(0, c_end - c, LANES):
            for position in range(positions):
                at = position * pitch + row * columns + column
                store(tile, position * LANES, load(products, at))
            transform_products(tile, m, reach, taps)
            at = (k + row) * number * C + c + column
            lanes = min(LANES, c_end - c - column)
            for t in range(taps[0]):
                for r in range(taps[1]):
                    cell = (t * reach[1] + r) * reach[2] * LANES
                    for _ in range(taps[2]):
                        if lanes == LANES:
                            value = load(tile, cell)
                            store(gw, at, load(gw, at) + value if add else value)
                        else:
                            for lane in range(lanes):
                                gw[at + lane] = tile[cell + lane] + (gw[at + lane] if add else 0)
                        cell += LANES
                        at += C


@njit(nogil=True, cache=True)
def multiply(out, a, b, sizes, pitches, steps, add):
    """Write, or add, matrix products: out[p] = a[p] @ b[p] for every position p.

    Rows are taken ROWS at a time: beyond the last one, what lies there is read and written.

    Args:
        sizes: positions, rows, depth, and panels: vectors of columns.
        pitches: of out, a and b.
        steps: from row to row of out; from row to row of a, and along its depth; from panel to
            panel of b, and along its depth.
    """
    positions, rows, depth, panels = sizes
    width, row, deeper, next_panel, next_vector = steps
    for position in range(positions):
        for panel in range(panels):
            for i in range(0, rows, ROWS):
                o = position * pitches[0] + i * width + panel * LANES
                if add:
                    s0, s1, s2 = load(out, o), load(out, o + width), load(out, o + 2 * width)
                    s3, s4 = load(out, o + 3 * width), load(out, o + 4 * width)
                    s5 = load(out, o + 5 * width)
                else:
                    s0, s1, s2 = zeros_of(out), zeros_of(out), zeros_of(out)
                    s3, s4, s5 = zeros_of(out), zeros_of(out), zeros_of(out)
                at = position * pitches[1] + i * row
                of_b = position * pitches[2] + panel * next_panel
                for _ in range(depth):
                    vector = load(b, of_b)
                    s0 = multiply_add(spread(a, at), vector, s0)
                    s1 = multiply_add(spread(a, at + row), vector, s1)
                    s2 = multiply_add(spread(a, at + 2 * row), vector, s2)
                    s3 = multiply_add(spread(a, at + 3 * row), vector, s3)
                    s4 = multiply_add(spread(a, at + 4 * row), vector, s4)
                    s5 = multiply_add(spread(a, at + 5 * row), vector, s5)
                    at += deeper
                    of_b += next_vector
                store(out, o, s0)
                store(out, o + width, s1)
                store(out, o + 2 * width, s2)
                store(out, o + 3 * width, s3)
                store(out, o + 4 * width, s4)
                store(out, o + 5 * width, s5)


@njit(nogil=True)
def _put(out, pitch, row, c, C, tile, reach):
    """Write a transformed tile, LANES channels from c on, into its row."""
    at = row * ((C + LANES - 1) // LANES * LANES) + c
    for position in range(reach[0] * reach[1] * reach[2]):
        store(out, position * pitch + at, load(tile, position * LANES))


@njit(nogil=True, error_model="numpy")
def _place(tile, counts):
    """Return the clip and the place in it of a tile, of which each clip has `counts`."""
    rest, q = divmod(tile, counts[2])
    rest, p = divmod(rest, counts[1])
    n, z = divmod(rest, counts[0])
    return n, z, p, q


@njit(nogil=True)
def _cut(tile, x, shape, n, origin, given, reach, c):
    """Copy the cells of a tile, and LANES channels from c on; 0 where x has none."""
    _, D, H, W, C = shape
    lanes = min(LANES, C - c)
    first = min(max(0, -origin[2]), given[2])  # cells of a line that lie in x
    last = max(first, min(given[2], W - origin[2]))
    zeros = zeros_of(tile)
    for i in range(given[0]):
        d = origin[0] + i
        for j in range(given[1]):
            h = origin[1] + j
            cell = (i * reach[1] + j) * reach[2] * LANES
            inside = 0 <= d < D and 0 <= h < H
            begin, end = (first, last) if inside else (given[2], given[2])
            for v in range(begin):
                store(tile, cell + v * LANES, zeros)
            for v in range(end, given[2]):
                store(tile, cell + v * LANES, zeros)
            at = (((n * D + d) * H + h) * W + origin[2] + begin) * C + c
            if lanes == LANES:
                for v in range(begin, end):
                    store(tile, cell + v * LANES, load(x, at))
                    at += C
            else:
                for v in range(begin, end):
                    store(tile, cell + v * LANES, zeros)
                    for lane in range(lanes):
                        tile[cell + v * LANES + lane] = x[at + lane]
                    at += C
