"""TV-L1 on the processor, compiled (`cpu/bands`): several iterations of a band of rows at a time.

An iteration reads one row above and one below. So a band of rows that is copied with a margin of
K rows can do K iterations alone, its margins shrinking by a row at each; bands never wait for
each other, stay in the cache, and compute each pixel by the same operations as the whole image
would. The loops over a row write one or two arrays each and read few, so that LLVM can check that
they do not overlap, and uses vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvid.kernels.flow.pyramid import enlarged, gradient, pyramid
from tinyvid.kernels.flow.settings import DEFAULT, TVL1
from tinyvid.kernels.jit import njit
from tinyvid.kernels.threads import Scratch, chunks_of, parallel_for

ROWS = 64  # of a band
TOGETHER = 10  # iterations of a band before its neighbours are looked at again
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


def tvl1(first: np.ndarray, second: np.ndarray, settings: TVL1 = DEFAULT) -> np.ndarray:
    """As `reference.tvl1`, to a few thousandths of a pixel in float32."""
    first, second = np.ascontiguousarray(first), np.ascontiguousarray(second)
    flows = np.empty((len(first), 2, *first.shape[1:]), first.dtype)

    def run(pair: int) -> None:
        flows[pair] = _pair(first[pair], second[pair], settings)

    if len(first) == 1:  # the bands of one pair run at the same time, or else several pairs
        run(0)
    else:
        parallel_for(run, range(len(first)))
    return flows


def _pair(first: np.ndarray, second: np.ndarray, s: TVL1) -> np.ndarray:
    u: np.ndarray | None = None
    levels = zip(pyramid(first, s.levels), pyramid(second, s.levels), strict=True)
    for a, b in reversed(list(levels)):
        u = np.zeros((2, *a.shape), a.dtype) if u is None else enlarged(u, a.shape)
        u = _level(a, b, u, s)
    assert u is not None
    return u


def _level(a: np.ndarray, b: np.ndarray, u: np.ndarray, s: TVL1) -> np.ndarray:
    height, width = a.shape
    after = np.stack([b, *gradient(b)], axis=-1)  # (H, W, 3)
    p = np.zeros((4, height, width), a.dtype)  # of u1 along x and y, of u2 along x and y
    linear = np.empty((4, height, width), a.dtype)
    next_u, next_p = np.empty_like(u), np.empty_like(p)
    bands, scratch = chunks_of(height, ROWS), Scratch()
    constants = np.array([s.weight * s.theta, s.theta, s.tau / s.theta], a.dtype)

    def linearise(y: slice) -> None:
        _linearise(a, after, u, linear, y.start, y.stop)

    def iterate(y: slice) -> None:
        rows = min(height, ROWS + 2 * TOGETHER) + 1
        own_u = scratch.get("u", (2, rows, width), a.dtype)
        own_p = scratch.get("p", (4, rows, width + 1), a.dtype)
        d = scratch.get("d", (width,), a.dtype)
        _iterate(u, p, linear, next_u, next_p, y.start, y.stop, count, own_u, own_p, d, constants)

    def median(y: slice) -> None:
        _median(u, next_u, y.start, y.stop)

    for _ in range(s.warps):
        parallel_for(linearise, bands)
        for done in range(0, s.iterations, TOGETHER):
            count = min(TOGETHER, s.iterations - done)
            parallel_for(iterate, bands)
            u, next_u, p, next_p = next_u, u, next_p, p
        for _ in range(s.medians):
            parallel_for(median, bands)
            u, next_u = next_u, u
    return u


@njit(**_OPTIONS)
def _iterate(u, p, linear, next_u, next_p, top, bottom, count, own_u, own_p, d, constants):
    """Do `count` iterations of the rows from `top` to `bottom`, and write them to `next_`.

    own_u: (2, rows, W); own_p: (4, rows, W + 1), its first column and, at the top, its first row
    zero, which stand for what lies outside the image; row y of the image is row y - start + 1.
    """
    height = u.shape[1]
    start, stop = max(0, top - count), min(height, bottom + count)
    up = start - 1  # row 0 of `own_` is this row of the image
    own_p[:, 0] = 0
    own_p[:, :, 0] = 0
    for y in range(start, stop):
        for i in range(2):
            _copy(u[i, y], own_u[i, y - up], 0, 0)
        for i in range(4):
            _copy(p[i, y], own_p[i, y - up], 0, 1)
    for margin in range(count - 1, -1, -1):
        low, high = max(0, top - margin), min(height, bottom + margin + 1)
        for y in range(low, high):
            r = y - up
            _step(linear[0, y], linear[1, y], linear[2, y], linear[3, y], own_u[0, r],
                  own_u[1, r], d, constants)  # fmt: skip
            for i in range(2):
                _primal(own_u[i, r], d, linear[1 + i, y], own_p[2 * i, r], own_p[2 * i + 1, r],
                        own_p[2 * i + 1, r - 1], constants)  # fmt: skip
                if y > low:
                    _dual(own_u[i, r - 1], own_u[i, r], own_p[2 * i, r - 1],
                          own_p[2 * i + 1, r - 1], constants)  # fmt: skip
        if high == height and bottom + margin >= height:
            r = height - 1 - up
            for i in range(2):
                _dual(own_u[i, r], own_u[i, r], own_p[2 * i, r], own_p[2 * i + 1, r], constants)
    for y in range(top, bottom):
        for i in range(2):
            _copy(own_u[i, y - up], next_u[i, y], 0, 0)
        for i in range(4):
            _copy(own_p[i, y - up], next_p[i, y], 1, 0)


@njit(**_OPTIONS)
def _copy(source, target, skip, after):
    """target[after:] = source[skip:]"""
    for x in range(target.size - after):
        target[x + after] = source[x + skip]


@njit(**_OPTIONS)
def _step(constant, gx, gy, inverse, u, v, d, constants):
    """How far along the gradient the data term pulls: d, from -lambda theta to lambda theta."""
    limit = constants[0]
    for x in range(d.size):
        rho = constant[x] + gx[x] * u[x] + gy[x] * v[x]
        step = -rho * inverse[x]
        step = limit if step > limit else step
        d[x] = -limit if step < -limit else step


@njit(**_OPTIONS)
def _primal(u, d, g, p, q, q_above, constants):
    """u = (u + d grad) + theta div (p, q)."""
    theta = constants[1]
    for x in range(u.size):
        u[x] = u[x] + d[x] * g[x] + theta * (p[x + 1] - p[x] + q[x + 1] - q_above[x + 1])


@njit(**_OPTIONS)
def _dual(u, u_below, p, q, constants):
    """(p, q) = ((p, q) + tau/theta grad u) / (1 + tau/theta |grad u|)."""
    rate, one = constants[2], constants.dtype.type(1)
    for x in range(u.size - 1):
        right, down = u[x + 1] - u[x], u_below[x] - u[x]
        scale = one / (one + rate * np.sqrt(right * right + down * down))
        p[x + 1] = (p[x + 1] + rate * right) * scale
        q[x + 1] = (q[x + 1] + rate * down) * scale
    x = u.size - 1
    down = u_below[x] - u[x]
    p[x + 1] = p[x + 1] * 0
    q[x + 1] = (q[x + 1] + rate * down) * (one / (one + rate * np.abs(down)))


@njit(**_OPTIONS)
def _linearise(a, after, u, linear, top, bottom):
    """Warp the second image and its gradient, `after`, and write what the iterations need:
    rho(0), the gradient, and one by its square."""
    height, width = a.shape
    wx, wy = np.empty(4, a.dtype), np.empty(4, a.dtype)
    for y in range(top, bottom):
        for x in range(width):
            at_x, at_y = x + u[0, y, x], y + u[1, y, x]
            floor_x, floor_y = np.floor(at_x), np.floor(at_y)
            left, above = int(floor_x), int(floor_y)
            _weights(at_x - floor_x, wx)
            _weights(at_y - floor_y, wy)
            value, gx, gy = wx[0] * 0, wx[0] * 0, wx[0] * 0
            for j in range(4):
                row = min(max(above - 1 + j, 0), height - 1)
                for i in range(4):
                    column = min(max(left - 1 + i, 0), width - 1)
                    w = wy[j] * wx[i]
                    value += w * after[row, column, 0]
                    gx += w * after[row, column, 1]
                    gy += w * after[row, column, 2]
            linear[0, y, x] = value - gx * u[0, y, x] - gy * u[1, y, x] - a[y, x]
            linear[1, y, x] = gx
            linear[2, y, x] = gy
            square = gx * gx + gy * gy
            linear[3, y, x] = 1 / square if square > 1e-10 else 0


@njit(**_OPTIONS)
def _weights(t, w):
    """The weights of four neighbours, by Keys' cubic convolution (a = -1/2)."""
    half, three, five = w.dtype.type(0.5), w.dtype.type(3), w.dtype.type(5)
    one, two, four = w.dtype.type(1), w.dtype.type(2), w.dtype.type(4)
    w[0] = half * t * (t * (two - t) - one)
    w[1] = half * (t * t * (three * t - five) + two)
    w[2] = half * t * (t * (four - three * t) + one)
    w[3] = half * t * t * (t - one)


@njit(**_OPTIONS)
def _median(u, out, top, bottom):
    """The median of each 3×3 neighbourhood; the border is repeated."""
    height, width = u.shape[1:]
    for i in range(2):
        for y in range(top, bottom):
            above, here, below = u[i, max(y - 1, 0)], u[i, y], u[i, min(y + 1, height - 1)]
            for x in range(1, width - 1):
                out[i, y, x] = _middle(above, here, below, x - 1, x, x + 1)
            out[i, y, 0] = _middle(above, here, below, 0, 0, 1)
            out[i, y, width - 1] = _middle(above, here, below, width - 2, width - 1, width - 1)


@njit(**_OPTIONS)
def _middle(above, here, below, left, x, right):
    """The median of nine: of the largest of the columns' least, the middle of their middles, and
    the least of their largest."""
    low_1, mid_1, high_1 = _sorted(above[left], here[left], below[left])
    low_2, mid_2, high_2 = _sorted(above[x], here[x], below[x])
    low_3, mid_3, high_3 = _sorted(above[right], here[right], below[right])
    low = max(low_1, low_2, low_3)
    high = min(high_1, high_2, high_3)
    return _sorted(low, _sorted(mid_1, mid_2, mid_3)[1], high)[1]


@njit(**_OPTIONS)
def _sorted(a, b, c):
    low, high = min(a, b), max(a, b)
    return min(low, c), max(low, min(high, c)), max(high, c)
