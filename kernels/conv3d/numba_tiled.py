"""Convolution from tiles in shared memory: neighbouring windows overlap, so a block fetches what
its windows cover once, and its threads share it.

What changed since `numba_naive.py`, and why it helps: a block works on a box of neighbouring
cells, and brings the part of x under all their windows (the halo), and the part of w, into shared
memory, some channels at a time. Each is read from global memory once for the whole block; a 3x3x3
filter then reads it 27 times from shared memory, where that is cheap.

    cells of y   . . . .        4 windows of 3 overlap:
    under them  . . . . . .     6 cells of x instead of 12

`tiled.cu` for Numba, loop for loop. What differs: structures are named tuples, and the slices of
wgrad's sum are an axis of its result.
"""

from typing import NamedTuple

from tinyvid.kernels.conv3d.numba_naive import finish, group_C, group_K
from tinyvid.kernels.numba_launch import add, cuda, device_function

THREADS = 256


class Index(NamedTuple):
    d: int
    h: int
    w: int


@device_function
def tiles(count, size):
    return (count + size - 1) // size


@device_function
def size_x(geometry):
    return Index(geometry.D, geometry.H, geometry.W)


@device_function
def size_y(geometry):
    return Index(geometry.Z, geometry.P, geometry.Q)


# A tap of the filter, counted along its last axis first.
@device_function
def tap_at(tap, geometry):
    return Index(tap // geometry.S // geometry.R, tap // geometry.S % geometry.R, tap % geometry.S)


# A box of cells of an array N D H W C. A cell's place in it is (d * extent.h + h) * extent.w + w,
# counted from the origin.
class Patch(NamedTuple):
    n: int
    origin: Index
    extent: Index


# Brings a patch to shared memory with `channels` of its channels, those from `first` on. Cells and
# channels outside of the array are zero.
@device_function
def load(patch, to, channels, source, first, last):
    _, D, H, W, _ = source.shape
    origin, extent = patch.origin, patch.extent
    zero = to.dtype.type(0)
    for i in range(cuda.threadIdx.x, extent.d * extent.h * extent.w * channels, THREADS):
        cell, of_first = divmod(i, channels)
        line, w = divmod(cell, extent.w)
        d, h = divmod(line, extent.h)
        d, h, w, c = d + origin.d, h + origin.h, w + origin.w, first + of_first
        inside = d >= 0 and d < D and h >= 0 and h < H and w >= 0 and w < W and c < last
        to[i] = source[patch.n, d, h, w, c] if inside else zero


# An array of `size` cells falls into boxes of `box` cells; this is number `at`.
@device_function
def box_at(at, box, size):
    line, w = divmod(at, tiles(size.w, box.w))
    plane, h = divmod(line, tiles(size.h, box.h))
    n, d = divmod(plane, tiles(size.d, box.d))
    return Patch(n, Index(d * box.d, h * box.h, w * box.w), box)


@device_function
def boxes(N, box, size):
    return N * tiles(size.d, box.d) * tiles(size.h, box.h) * tiles(size.w, box.w)


# What the windows of a box of y cover of x.
@device_function
def under(box, g):
    origin = Index(
        box.origin.d * g.stride_d - g.padding_d,
        box.origin.h * g.stride_h - g.padding_h,
        box.origin.w * g.stride_w - g.padding_w,
    )
    extent = Index(
        (box.extent.d - 1) * g.stride_d + (g.T - 1) * g.dilation_d + 1,
        (box.extent.h - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1,
        (box.extent.w - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1,
    )
    return Patch(box.n, origin, extent)


# The cells of y whose windows cover any of a box of x, along one axis: the first, and how many.
@device_function
def meeting(origin, cells, taps, stride, padding, dilation):
    reach = (taps - 1) * dilation
    return tiles(origin + padding - reach, stride), (cells - 1 + reach) // stride + 1


@device_function
def over(box, g):
    at, cells = box.origin, box.extent
    d, depth = meeting(at.d, cells.d, g.T, g.stride_d, g.padding_d, g.dilation_d)
    h, height = meeting(at.h, cells.h, g.R, g.stride_h, g.padding_h, g.dilation_h)
    w, width = meeting(at.w, cells.w, g.S, g.stride_w, g.padding_w, g.dilation_w)
    return Patch(box.n, Index(d, h, w), Index(depth, height, width))


# ---- fprop and dgrad: a block has 16 cells and 16 channels of the output, a thread one of each ---

BOX = Index(2, 2, 4)
CHANNELS = 16
PITCH = CHANNELS + 1  # the odd pitch spreads a column over the banks


class Outputs(NamedTuple):
    box: Patch
    group: int
    first: int  # of the block's channels
    channel: int  # this thread's
    cell: Index  # this thread's, counted from the box's origin


@device_function
def outputs_at(size, channels_of_group, groups):
    at, along = divmod(cuda.blockIdx.x, tiles(channels_of_group, CHANNELS))
    number, group = divmod(at, groups)
    cell, channel = divmod(cuda.threadIdx.x, CHANNELS)
    first = along * CHANNELS
    of_box = Index(cell // (BOX.h * BOX.w), cell // BOX.w % BOX.h, cell % BOX.w)
    return Outputs(box_at(number, BOX, size), group, first, first + channel, of_box)


# Writes this thread's element, if there is one: cells and channels do not fill the last tiles.
@device_function
def store(to, outputs, channels, value):
    start, cell = outputs.box.origin, outputs.cell
    d, h, w = start.d + cell.d, start.h + cell.h, start.w + cell.w
    _, D, H, W, _ = to.shape
    if d < D and h < H and w < W and outputs.channel < channels:
        to[outputs.box.n, d, h, w, outputs.group * channels + outputs.channel] = value


# `chunk` channels are summed over at a time: as many as shared memory holds.
@cuda.jit
def conv3d_fprop_tiled(x, w, bias, y, geometry, chunk, relu):
    g = geometry
    outputs = outputs_at(size_y(g), group_K(g), g.groups)
    patch = under(outputs.box, g)
    extent, taps = patch.extent, g.T * g.R * g.S
    C, K = group_C(g), group_K(g)
    first_c, first_k = outputs.group * C, outputs.group * K
    real = y.dtype
    halo = cuda.shared.array(0, real)
    filters = halo[extent.d * extent.h * extent.w * chunk :]
    zero = real.type(0)
    value = lost = zero
    for c in range(0, C, chunk):
        cuda.syncthreads()  # others may still read the channels before
        load(patch, halo, chunk, x, first_c + c, first_c + C)
        for i in range(cuda.threadIdx.x, CHANNELS * taps * chunk, THREADS):
            of_block, row = divmod(i, taps * chunk)
            number, of_chunk = divmod(row, chunk)
            k, tap = outputs.first + of_block, tap_at(number, g)
            inside = k < K and c + of_chunk < C
            filters[row * PITCH + of_block] = (
                w[first_k + k, tap.d, tap.h, tap.w, c + of_chunk] if inside else zero
            )
        cuda.syncthreads()  # both parts have come in
        at = cuda.threadIdx.x % CHANNELS
        for t in range(g.T):
            d = outputs.cell.d * g.stride_d + t * g.dilation_d
            for r in range(g.R):
                h = outputs.cell.h * g.stride_h + r * g.dilation_h
                part = zero
                for s in range(g.S):
                    v = outputs.cell.w * g.stride_w + s * g.dilation_w
                    cell = ((d * extent.h + h) * extent.w + v) * chunk
                    for i in range(chunk):
                        part += halo[cell + i] * filters[at]
                        at += PITCH
                value, lost = add(value, lost, part)
    if outputs.channel < K:
        store(y, outputs, K, finish(value, bias, first_k + outputs.channel, relu))


@cuda.jit
def conv3d_dgrad_tiled(gy, w, gx, geometry, chunk):
    g = geometry
    outputs = outputs_at(size_x(g), group_C(g), g.groups)
    patch = over(outputs.box, g)
    extent, taps = patch.extent, g.T * g.R * g.S
    C, K = group_C(g), group_K(g)
    first_k, channel = outputs.group * K, cuda.threadIdx.x % CHANNELS
    d = outputs.box.origin.d + outputs.cell.d + g.padding_d
    h = outputs.box.origin.h + outputs.cell.h + g.padding_h
    v = outputs.box.origin.w + outputs.cell.w + g.padding_w
    real = gx.dtype
    halo = cuda.shared.array(0, real)
    filters = halo[extent.d * extent.h * extent.w * chunk :]
    zero = real.type(0)
    value = lost = zero
    for k in range(0, K, chunk):
        cuda.syncthreads()  # others may still read the channels before
        load(patch, halo, chunk, gy, first_k + k, first_k + K)
        for i in range(cuda.threadIdx.x, chunk * taps * CHANNELS, THREADS):
            row, of_block = divmod(i, CHANNELS)
            of_chunk, number = divmod(row, taps)
            c, tap = outputs.first + of_block, tap_at(number, g)
            inside = c < C and k + of_chunk < K
            filters[(number * chunk + of_chunk) * PITCH + of_block] = (
                w[first_k + k + of_chunk, tap.d, tap.h, tap.w, c] if inside else zero
            )
        cuda.syncthreads()  # both parts have come in
        for t in range(g.T):
            # Only where the stride divides it does a window of y meet this cell in this tap.
            z, apart = divmod(d - t * g.dilation_d, g.stride_d)
            if apart != 0:
                continue
            for r in range(g.R):
                p, apart = divmod(h - r * g.dilation_h, g.stride_h)
                if apart != 0:
                    continue
                part = zero
                for s in range(g.S):
                    q, apart = divmod(v - s * g.dilation_w, g.stride_w)
                    if apart != 0:
                        continue
                    line = (z - patch.origin.d) * extent.h + p - patch.origin.h
                    cell = (line * extent.w + q - patch.origin.w) * chunk
                    row = ((t * g.R + r) * g.S + s) * chunk
                    for i in range(chunk):
                        part += halo[cell + i] * filters[(row + i) * PITCH + channel]
                value, lost = add(value, lost, part)
    store(gx, outputs, C, value)


# ---- wgrad: a block has 16 taps, 4 channels of x and 4 of gy, a thread one of each ---------------

OF_X = OF_Y = 4
TAPS = THREADS // OF_X // OF_Y


# The sum runs over boxes of y, `box` cells each; gw has an axis more, one place for each slice of
# them.
@cuda.jit
def conv3d_wgrad_tiled(gy, x, gw, geometry, box_d, box_h, box_w):
    g = geometry
    cells = Index(box_d, box_h, box_w)
    C, K, taps = group_C(g), group_K(g), g.T * g.R * g.S
    after_c, along_c = divmod(cuda.blockIdx.x, tiles(C, OF_X))
    after_k, along_k = divmod(after_c, tiles(K, OF_Y))
    after_t, along_t = divmod(after_k, tiles(taps, TAPS))
    slice_, group = divmod(after_t, g.groups)
    first_c, first_k = along_c * OF_X, along_k * OF_Y
    every, slices = boxes(g.N, cells, size_y(g)), gw.shape[0]

    row, c = divmod(cuda.threadIdx.x, OF_X)
    of_block, k = divmod(row, OF_Y)
    number = along_t * TAPS + of_block
    tap = tap_at(number, g)
    t, r, s = tap.d * g.dilation_d, tap.h * g.dilation_h, tap.w * g.dilation_w
    real = gw.dtype
    gradients = cuda.shared.array(0, real)
    halo = gradients[cells.d * cells.h * cells.w * OF_Y :]
    zero = real.type(0)
    value = lost = zero
    for i in range(every * slice_ // slices, every * (slice_ + 1) // slices):
        box = box_at(i, cells, size_y(g))
        patch = under(box, g)
        cuda.syncthreads()  # others may still read the box before
        load(box, gradients, OF_Y, gy, group * K + first_k, group * K + K)
        load(patch, halo, OF_X, x, group * C + first_c, group * C + C)
        cuda.syncthreads()  # both parts have come in
        if number >= taps:
            continue
        part = zero
        at, extent = k, patch.extent
        for z in range(cells.d):
            for p in range(cells.h):
                for q in range(cells.w):
                    d, h, v = z * g.stride_d + t, p * g.stride_h + r, q * g.stride_w + s
                    cell = (d * extent.h + h) * extent.w + v
                    part += gradients[at] * halo[cell * OF_X + c]
                    at += OF_Y
        value, lost = add(value, lost, part)
    if number < taps and first_c + c < C and first_k + k < K:
        gw[slice_, group * K + first_k + k, tap.d, tap.h, tap.w, first_c + c] = value


# out[i] = sum over slices of partial[slice][i], in a fixed order.
@cuda.jit
def conv3d_sum_slices(partial, out):
    i = cuda.grid(1)
    if i >= out.size:
        return
    value = out.dtype.type(0)
    for slice_ in range(partial.shape[0]):
        value += partial[slice_, i]
    out[i] = value
