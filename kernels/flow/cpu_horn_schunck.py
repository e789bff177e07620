"""Horn and Schunck's method on the processor, compiled (`cpu/bands`), in bands as `cpu.py`.

A band is copied with a margin of K rows, and does K iterations alone, its margins shrinking by a
row at each, between two arrays of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvid.kernels.flow.cpu import ROWS, TOGETHER
from tinyvid.kernels.flow.pyramid import gradient
from tinyvid.kernels.jit import njit
from tinyvid.kernels.threads import Scratch, chunks_of, parallel_for

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


def horn_schunck(
    first: np.ndarray, second: np.ndarray, alpha: float = 15.0, iterations: int = 200
) -> np.ndarray:
    """As `reference.horn_schunck`, to a few millionths of a pixel in float32."""
    n, height, width = first.shape
    dtype = first.dtype
    gx, gy = gradient((first + second) / 2)
    inverse = (1 / (alpha**2 + gx * gx + gy * gy)).astype(dtype)
    linear = np.stack([gx, gy, second - first, inverse], axis=1)  # (N, 4, H, W)
    u, next_u = np.zeros((n, 2, height, width), dtype), np.empty((n, 2, height, width), dtype)
    jobs = [(pair, y) for pair in range(n) for y in chunks_of(height, ROWS)]
    scratch = Scratch()

    def iterate(job: tuple[int, slice]) -> None:
        pair, y = job
        rows = min(height, ROWS + 2 * TOGETHER)
        own = scratch.get("u", (2, 2, rows, width), dtype)
        _iterate(u[pair], linear[pair], next_u[pair], y.start, y.stop, count, own)

    for done in range(0, iterations, TOGETHER):
        count = min(TOGETHER, iterations - done)
        parallel_for(iterate, jobs)
        u, next_u = next_u, u
    return u


@njit(**_OPTIONS)
def _iterate(u, linear, next_u, top, bottom, count, own):
    """Do `count` iterations of the rows from `top` to `bottom`, and write them to `next_u`.

    own: two flows (2, rows, W), read and written in turn; row y of the image is row y - start.
    """
    height, width = u.shape[1:]
    start, stop = max(0, top - count), min(height, bottom + count)
    for i in range(2):
        for y in range(start, stop):
            for x in range(width):
                own[0, i, y - start, x] = u[i, y, x]
    means = np.empty((2, width), u.dtype)
    for iteration in range(count):
        margin = count - 1 - iteration
        now, after = own[iteration % 2], own[1 - iteration % 2]
        for y in range(max(0, top - margin), min(height, bottom + margin)):
            r, above = y - start, max(y - 1, 0) - start
            below = min(y + 1, height - 1) - start
            for i in range(2):
                _mean(now[i, above], now[i, r], now[i, below], means[i])
            _next(means[0], means[1], linear[0, y], linear[1, y], linear[2, y], linear[3, y],
                  after[0, r], after[1, r])  # fmt: skip
    for i in range(2):
        for y in range(top, bottom):
            for x in range(width):
                next_u[i, y, x] = own[count % 2, i, y - start, x]


@njit(**_OPTIONS)
def _mean(above, here, below, mean):
    """The means of the eight neighbours along a row: those beside count 1/6, the others 1/12."""
    sixth, twelfth = mean.dtype.type(1 / 6), mean.dtype.type(1 / 12)
    last = here.size - 1
    for x in range(1, last):
        sides = above[x] + below[x] + here[x - 1] + here[x + 1]
        corners = above[x - 1] + above[x + 1] + below[x - 1] + below[x + 1]
        mean[x] = sides * sixth + corners * twelfth
    for x in (0, last):
        left, right = max(x - 1, 0), min(x + 1, last)
        sides = above[x] + below[x] + here[left] + here[right]
        corners = above[left] + above[right] + below[left] + below[right]
        mean[x] = sides * sixth + corners * twelfth


@njit(**_OPTIONS)
def _next(mean_x, mean_y, gx, gy, change, inverse, next_x, next_y):
    """next = mean - gradient (gradient . mean + change) / (alpha² + |gradient|²)."""
    for x in range(next_x.size):
        pull = (gx[x] * mean_x[x] + gy[x] * mean_y[x] + change[x]) * inverse[x]
        next_x[x] = mean_x[x] - gx[x] * pull
        next_y[x] = mean_y[x] - gy[x] * pull
