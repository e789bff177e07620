"""Several iterations of TV-L1 in one launch, on tiles in shared memory.

What changed since `numba_naive.py`, and why it helps: a block copies a tile once, does up to
TOGETHER iterations of both halves, and writes what is within its margin of TOGETHER pixels: an
iteration reads one pixel to each side, so that what is wrong at the edge of a tile comes no
further. `tiled.cu` for Numba. What differs: tiles are smaller, a thread has one pixel, and blocks
and threads are counted along one axis.
"""

import math

from tinyvid.kernels.numba_launch import cuda, device_function

SIDE = 16
TOGETHER = 4
INNER = SIDE - 2 * TOGETHER  # pixels of a side that a block writes
PLANES = 6  # of a tile in shared memory: two of u, four of p


# Where a pixel is in shared memory.
@device_function
def at(plane, row, column):
    return (plane * SIDE + row) * SIDE + column


# `by` = the longest step of the data term in units of the gradient, theta, and tau / theta.
@cuda.jit
def flow_iterate_tiled(u, p, linear, by, next_u, next_p, count):
    height, width = u.shape[2], u.shape[3]
    rest, tile_x = divmod(cuda.blockIdx.x, (width + INNER - 1) // INNER)
    n, tile_y = divmod(rest, (height + INNER - 1) // INNER)
    row, column = divmod(cuda.threadIdx.x, SIDE)
    y = tile_y * INNER - TOGETHER + row
    x = tile_x * INNER - TOGETHER + column
    inside = y >= 0 and y < height and x >= 0 and x < width

    # What neighbours look at is in `tile` too. Beyond the image p is 0, as the formulas ask for.
    real = u.dtype.type
    tile = cuda.shared.array(0, u.dtype)
    own_u = cuda.local.array(2, u.dtype)
    own_p = cuda.local.array(4, u.dtype)
    own_linear = cuda.local.array(4, u.dtype)
    for i in range(4):
        own_p[i] = p[n, i, y, x] if inside else real(0)
        own_linear[i] = linear[n, i, y, x] if inside else real(0)
        tile[at(2 + i, row, column)] = own_p[i]
    for i in range(2):
        own_u[i] = u[n, i, y, x] if inside else real(0)
    cuda.syncthreads()  # the tile of p is complete

    for _ in range(count):
        rho = own_linear[0] + own_linear[1] * own_u[0] + own_linear[2] * own_u[1]
        step = max(-by[0], min(by[0], -rho * own_linear[3]))
        for i in range(2):
            divergence = own_p[2 * i]
            if column > 0:
                divergence -= tile[at(2 + 2 * i, row, column - 1)]
            divergence += own_p[2 * i + 1]
            if row > 0:
                divergence -= tile[at(3 + 2 * i, row - 1, column)]
            own_u[i] += step * own_linear[1 + i] + by[1] * divergence
            tile[at(i, row, column)] = own_u[i]
        cuda.syncthreads()  # all of u is new, and nobody reads the old p any more
        if inside:
            for i in range(2):
                right, down = real(0), real(0)
                if x + 1 < width and column + 1 < SIDE:
                    right = tile[at(i, row, column + 1)] - own_u[i]
                if y + 1 < height and row + 1 < SIDE:
                    down = tile[at(i, row + 1, column)] - own_u[i]
                scale = real(1) / (real(1) + by[2] * math.sqrt(right * right + down * down))
                own_p[2 * i] = (own_p[2 * i] + by[2] * right) * scale
                own_p[2 * i + 1] = (own_p[2 * i + 1] + by[2] * down) * scale
                tile[at(2 + 2 * i, row, column)] = own_p[2 * i]
                tile[at(3 + 2 * i, row, column)] = own_p[2 * i + 1]
        cuda.syncthreads()  # all of p is new, and nobody reads this u any more

    inner = min(row, column) >= TOGETHER and max(row, column) < SIDE - TOGETHER
    if inner and inside:
        for i in range(2):
            next_u[n, i, y, x] = own_u[i]
        for i in range(4):
            next_p[n, i, y, x] = own_p[i]
