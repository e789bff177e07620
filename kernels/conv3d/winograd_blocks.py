"""What `cpu/winograd` does with blocks: tiles cut and put together, taps transformed, products.

Arrays are given without gaps and as one axis. A block holds, position by position of a transformed
tile, a matrix; positions are `pitch` numbers apart:

    tiles      (position, tile, channel)          channels rounded up to whole vectors
    filters    (position, panel, channel, lane)   a panel: LANES output channels
    products   (position, row, column)            columns: whole vectors

`tile` is memory for one tile at a time, see `winograd_tiles.py`.
"""

from __future__ import annotations

from numpy import empty

from tinyvid.kernels.conv3d.winograd_plan import ROWS
from tinyvid.kernels.conv3d.winograd_tiles import (
    transform_cells,
    transform_filter,
    transform_gradients,
    transform_products,
    transform_sums,
)
from tinyvid.kernels.jit import njit
from tinyvid.kernels.lanes import BYTES
from tinyvid.kernels.simd import (
    LANES,
    load,
    multiply_add,
    rectified,
    spread,
    store,
    turn,
    zeros_of,
)

# Sums of ROWS rows of two panels take 12 registers of AVX-512, but 24 of AVX2, which has 16.
TWO_PANELS = BYTES == 64


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
    by_k, by_c, by_tap = steps
    count, number = end - c, taps[0] * taps[1] * taps[2]
    held = empty(number * LANES, tile.dtype)
    for panel in range(panels):
        first = k + panel * LANES
        lanes = min(LANES, outs - first)
        side_by_side = lanes == LANES and number >= LANES and (by_tap == 1 or by_tap == -1)
        for channel in range(count):
            at = start + first * by_k + (c + channel) * by_c
            if side_by_side:  # taps from the first on, and those up to the last
                begin = at if by_tap == 1 else at - number + 1
                for i in range(0, number, LANES):
                    i = min(i, number - LANES)
                    turn(held, i * LANES, w, begin + i, by_k)
            tap = 0
            for t in range(taps[0]):
                for r in range(taps[1]):
                    cell = (t * reach[1] + r) * reach[2] * LANES
                    for _ in range(taps[2]):
                        if side_by_side:
                            i = tap if by_tap == 1 else number - 1 - tap
                            store(tile, cell, load(held, i * LANES))
                        else:
                            for lane in range(lanes):
                                tile[cell + lane] = w[at + lane * by_k]
                            for lane in range(lanes, LANES):
                                tile[cell + lane] = 0
                        tap += 1
                        cell += LANES
                        at += by_tap
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

    Rows are taken ROWS at a time: beyond the last one, what lies there is read and written. Of
    panels two are taken at a time, where registers hold the sums of both.

    Args:
        sizes: positions, rows, depth, and panels: vectors of columns.
        pitches: of out, a and b.
        steps: from row to row of out; from row to row of a, and along its depth; from panel to
            panel of b, and along its depth.
    """
    positions, rows, depth, panels = sizes
    width, row, deeper, next_panel, next_vector = steps
    for position in range(positions):
        panel = 0
        while panel < panels:
            pair = TWO_PANELS and panel + 2 <= panels
            of_b = position * pitches[2] + panel * next_panel
            for i in range(0, rows, ROWS):
                o = position * pitches[0] + i * width + panel * LANES
                at = position * pitches[1] + i * row
                if pair:
                    other = of_b + next_panel
                    _two_panels(
                        out, o, width, a, at, row, deeper, b, of_b, other, next_vector, depth, add
                    )
                else:
                    _one_panel(out, o, width, a, at, row, deeper, b, of_b, next_vector, depth, add)
            panel += 2 if pair else 1


@njit(nogil=True)
def _one_panel(out, o, width, a, at, row, deeper, b, of_b, next_vector, depth, add):
    """Write, or add, ROWS rows of a vector of columns at out[o]; see `multiply`."""
    if add:
        s0, s1, s2 = load(out, o), load(out, o + width), load(out, o + 2 * width)
        s3, s4 = load(out, o + 3 * width), load(out, o + 4 * width)
        s5 = load(out, o + 5 * width)
    else:
        s0 = s1 = s2 = s3 = s4 = s5 = zeros_of(out)
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
def _two_panels(out, o, width, a, at, row, deeper, b, of_b, other, next_vector, depth, add):
    """As `_one_panel`, of two panels of b that lie side by side in `out`."""
    p = o + LANES
    if add:
        s0, t0 = load(out, o), load(out, p)
        s1, t1 = load(out, o + width), load(out, p + width)
        s2, t2 = load(out, o + 2 * width), load(out, p + 2 * width)
        s3, t3 = load(out, o + 3 * width), load(out, p + 3 * width)
        s4, t4 = load(out, o + 4 * width), load(out, p + 4 * width)
        s5, t5 = load(out, o + 5 * width), load(out, p + 5 * width)
    else:
        s0 = s1 = s2 = s3 = s4 = s5 = t0 = t1 = t2 = t3 = t4 = t5 = zeros_of(out)
    for _ in range(depth):
        u, v = load(b, of_b), load(b, other)
        x = spread(a, at)
        s0, t0 = multiply_add(x, u, s0), multiply_add(x, v, t0)
        x = spread(a, at + row)
        s1, t1 = multiply_add(x, u, s1), multiply_add(x, v, t1)
        x = spread(a, at + 2 * row)
        s2, t2 = multiply_add(x, u, s2), multiply_add(x, v, t2)
        x = spread(a, at + 3 * row)
        s3, t3 = multiply_add(x, u, s3), multiply_add(x, v, t3)
        x = spread(a, at + 4 * row)
        s4, t4 = multiply_add(x, u, s4), multiply_add(x, v, t4)
        x = spread(a, at + 5 * row)
        s5, t5 = multiply_add(x, u, s5), multiply_add(x, v, t5)
        at += deeper
        of_b += next_vector
        other += next_vector
    store(out, o, s0)
    store(out, p, t0)
    store(out, o + width, s1)
    store(out, p + width, t1)
    store(out, o + 2 * width, s2)
    store(out, p + 2 * width, t2)
    store(out, o + 3 * width, s3)
    store(out, p + 3 * width, t3)
    store(out, o + 4 * width, s4)
    store(out, p + 4 * width, t4)
    store(out, o + 5 * width, s5)
    store(out, p + 5 * width, t5)


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
