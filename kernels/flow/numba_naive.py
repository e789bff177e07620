"""Optical flow by its formulas: a thread for each pixel, and a launch for each step.

`levels.cu`, `naive.cu` and `horn_schunck.cu` for Numba. What differs: threads are counted along one
axis, arrays are indexed along theirs, and the weights of neighbours come as arrays.
"""

import math

from tinyvid.kernels.numba_launch import cuda, device_function


@device_function
def nearest(at, size):
    return min(max(at, 0), size - 1)


# The derivatives of the mean of two images along x (dx = 1, dy = 0) or y.
@device_function
def derivative(first, second, taps, n, y, x, dy, dx):
    real = first.dtype.type
    value = real(0)
    radius = taps.size // 2
    for i in range(taps.size):
        row = nearest(y + (i - radius) * dy, first.shape[1])
        column = nearest(x + (i - radius) * dx, first.shape[2])
        value += taps[i] * ((first[n, row, column] + second[n, row, column]) / real(2))
    return value


# ---- Horn and Schunck ----------------------------------------------------------------------------


# linear[n] = the derivatives along x and y, the change, 1 / (alpha^2 + |gradient|^2).
@cuda.jit
def flow_horn_schunck_linear(first, second, taps, alpha_squared, linear):
    rest, x = divmod(cuda.grid(1), first.shape[2])
    n, y = divmod(rest, first.shape[1])
    if n >= first.shape[0]:
        return
    gx = derivative(first, second, taps, n, y, x, 0, 1)
    gy = derivative(first, second, taps, n, y, x, 1, 0)
    linear[n, 0, y, x] = gx
    linear[n, 1, y, x] = gy
    linear[n, 2, y, x] = second[n, y, x] - first[n, y, x]
    linear[n, 3, y, x] = first.dtype.type(1) / (alpha_squared[0] + gx * gx + gy * gy)


# The mean of the eight neighbours: those beside a pixel count 1/6, the others 1/12.
@device_function
def mean_around(u, n, i, y, x):
    real = u.dtype.type
    above, below = nearest(y - 1, u.shape[2]), nearest(y + 1, u.shape[2])
    left, right = nearest(x - 1, u.shape[3]), nearest(x + 1, u.shape[3])
    sides = u[n, i, above, x] + u[n, i, below, x] + u[n, i, y, left] + u[n, i, y, right]
    corners = u[n, i, above, left] + u[n, i, above, right]
    corners += u[n, i, below, left] + u[n, i, below, right]
    return sides / real(6) + corners / real(12)


# next = mean - gradient (gradient . mean + change) / (alpha^2 + |gradient|^2).
@cuda.jit
def flow_horn_schunck_iterate(u, linear, after):
    rest, x = divmod(cuda.grid(1), u.shape[3])
    n, y = divmod(rest, u.shape[2])
    if n >= u.shape[0]:
        return
    mean_x, mean_y = mean_around(u, n, 0, y, x), mean_around(u, n, 1, y, x)
    gx, gy = linear[n, 0, y, x], linear[n, 1, y, x]
    pull = (gx * mean_x + gy * mean_y + linear[n, 2, y, x]) * linear[n, 3, y, x]
    after[n, 0, y, x] = mean_x - gx * pull
    after[n, 1, y, x] = mean_y - gy * pull


# ---- between the iterations of TV-L1 -------------------------------------------------------------


# Every second pixel of a smoothed image.
@cuda.jit
def flow_halve(image, taps, half):
    rest, x = divmod(cuda.grid(1), half.shape[2])
    n, y = divmod(rest, half.shape[1])
    if n >= half.shape[0]:
        return
    radius = taps.size // 2
    value = image.dtype.type(0)
    for j in range(taps.size):
        row = nearest(2 * y + j - radius, image.shape[1])
        along = image.dtype.type(0)
        for i in range(taps.size):
            along += taps[i] * image[n, row, nearest(2 * x + i - radius, image.shape[2])]
        value += taps[j] * along
    half[n, y, x] = value


# A flow at twice the size: pixel 2 x is what x was, those in between are interpolated.
@cuda.jit
def flow_enlarge(u, larger):
    rest, x = divmod(cuda.grid(1), larger.shape[3])
    rest, y = divmod(rest, larger.shape[2])
    n, i = divmod(rest, 2)
    if n >= larger.shape[0]:
        return
    real = u.dtype.type
    above, left = y // 2, x // 2
    below = nearest(above + y % 2, u.shape[2])
    right = nearest(left + x % 2, u.shape[3])
    here = (u[n, i, above, left] + u[n, i, below, left]) / real(2)
    larger[n, i, y, x] = here + (u[n, i, above, right] + u[n, i, below, right]) / real(2)


# planes[n] = the image, and its derivatives along x and y.
@cuda.jit
def flow_gradient(image, taps, planes):
    rest, x = divmod(cuda.grid(1), image.shape[2])
    n, y = divmod(rest, image.shape[1])
    if n >= image.shape[0]:
        return
    planes[n, 0, y, x] = image[n, y, x]
    planes[n, 1, y, x] = derivative(image, image, taps, n, y, x, 0, 1)
    planes[n, 2, y, x] = derivative(image, image, taps, n, y, x, 1, 0)


# The weight of neighbour i of four of a point, t beyond the second (Keys 1981, a = -1/2).
@device_function
def cubic_weight(t, i, real):
    if i == 0:
        return t * (t * (real(2) - t) - real(1)) / real(2)
    if i == 1:
        return (t * t * (real(3) * t - real(5)) + real(2)) / real(2)
    if i == 2:
        return t * (t * (real(4) - real(3) * t) + real(1)) / real(2)
    return t * t * (t - real(1)) / real(2)


# The largest integer that is not above. Numba's `math.floor` goes through float64.
@device_function
def floor(value, real):
    whole = int(value)
    return whole - 1 if value < real(whole) else whole


# linear[n] = rho where u is 0, the gradient along x and y, and 1 / |gradient|^2.
@cuda.jit
def flow_linearise(first, planes, u, linear):
    rest, x = divmod(cuda.grid(1), u.shape[3])
    n, y = divmod(rest, u.shape[2])
    if n >= u.shape[0]:
        return
    real = u.dtype.type
    ux, uy = u[n, 0, y, x], u[n, 1, y, x]
    # Whole pixels and fractions apart: in a wide image x + ux would round the fraction.
    whole_x, whole_y = floor(ux, real), floor(uy, real)
    after_x, after_y = ux - real(whole_x), uy - real(whole_y)
    value, gx, gy = real(0), real(0), real(0)
    for j in range(4):
        row = nearest(y + whole_y - 1 + j, u.shape[2])
        for i in range(4):
            column = nearest(x + whole_x - 1 + i, u.shape[3])
            w = cubic_weight(after_y, j, real) * cubic_weight(after_x, i, real)
            value += w * planes[n, 0, row, column]
            gx += w * planes[n, 1, row, column]
            gy += w * planes[n, 2, row, column]
    linear[n, 0, y, x] = value - gx * ux - gy * uy - first[n, y, x]
    linear[n, 1, y, x] = gx
    linear[n, 2, y, x] = gy
    square = gx * gx + gy * gy
    linear[n, 3, y, x] = real(1) / square if square > real(1e-10) else real(0)


# The median of each 3x3 neighbourhood, by sorting as far as its middle.
@cuda.jit
def flow_median(u, filtered):
    rest, x = divmod(cuda.grid(1), u.shape[3])
    rest, y = divmod(rest, u.shape[2])
    n, i = divmod(rest, 2)
    if n >= u.shape[0]:
        return
    around = cuda.local.array(9, u.dtype)
    for k in range(9):
        row = nearest(y - 1 + k // 3, u.shape[2])
        around[k] = u[n, i, row, nearest(x - 1 + k % 3, u.shape[3])]
    for k in range(5):
        for after in range(k + 1, 9):
            if around[after] < around[k]:
                around[k], around[after] = around[after], around[k]
    filtered[n, i, y, x] = around[4]


# ---- the iterations of TV-L1 ---------------------------------------------------------------------

# `by` = the longest step of the data term in units of the gradient, theta, and tau / theta.


# u of both axes: a step along the gradient to where rho is 0, or to the limit; theta div p.
@cuda.jit
def flow_primal_naive(p, linear, by, u):
    rest, x = divmod(cuda.grid(1), u.shape[3])
    n, y = divmod(rest, u.shape[2])
    if n >= u.shape[0]:
        return
    gx, gy = linear[n, 1, y, x], linear[n, 2, y, x]
    rho = linear[n, 0, y, x] + gx * u[n, 0, y, x] + gy * u[n, 1, y, x]
    step = max(-by[0], min(by[0], -rho * linear[n, 3, y, x]))
    for i in range(2):
        divergence = p[n, 2 * i, y, x]
        if x > 0:
            divergence -= p[n, 2 * i, y, x - 1]
        divergence += p[n, 2 * i + 1, y, x]
        if y > 0:
            divergence -= p[n, 2 * i + 1, y - 1, x]
        u[n, i, y, x] += step * linear[n, 1 + i, y, x] + by[1] * divergence


# p = (p + tau/theta grad u) / (1 + tau/theta |grad u|).
@cuda.jit
def flow_dual_naive(u, by, p):
    rest, x = divmod(cuda.grid(1), u.shape[3])
    rest, y = divmod(rest, u.shape[2])
    n, i = divmod(rest, 2)
    if n >= u.shape[0]:
        return
    real = u.dtype.type
    right, down = real(0), real(0)
    if x + 1 < u.shape[3]:
        right = u[n, i, y, x + 1] - u[n, i, y, x]
    if y + 1 < u.shape[2]:
        down = u[n, i, y + 1, x] - u[n, i, y, x]
    scale = real(1) / (real(1) + by[2] * math.sqrt(right * right + down * down))
    p[n, 2 * i, y, x] = (p[n, 2 * i, y, x] + by[2] * right) * scale
    p[n, 2 * i + 1, y, x] = (p[n, 2 * i + 1, y, x] + by[2] * down) * scale
