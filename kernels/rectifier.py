"""The ReLU of large arrays, and its gradient: one pass through memory, on all threads.

NumPy goes through memory once for each step of a formula, on one thread, into fresh pages.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyvid.kernels.jit import njit
from tinyvid.kernels.memory import empty
from tinyvid.kernels.threads import chunks_of, parallel_for

CHUNK = 2**17  # elements


def rectified(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0), in the memory order of x; NaN stays NaN."""
    return _each(_rectified, x)


def where_positive(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return g * (y > 0), for arrays of one shape and dtype, in the memory order of y."""
    return _each(_where_positive, y, g)


@njit(nogil=True, cache=True)
def _rectified(x, out):
    for i in range(len(out)):
        out[i] = 0 if x[i] < 0 else x[i]


@njit(nogil=True, cache=True)
def _where_positive(y, g, out):
    zero, one = g.dtype.type(0), g.dtype.type(1)
    for i in range(len(out)):
        out[i] = g[i] * (one if y[i] > 0 else zero)


def _each(loop: Any, *arrays: np.ndarray) -> np.ndarray:
    """Run a loop over arrays of one shape, each taken in the memory order of the first."""
    x = arrays[0]
    order = sorted(range(x.ndim), key=lambda i: (x.shape[i] > 1, -abs(x.strides[i])))
    ones = min(sum(size == 1 for size in x.shape), x.ndim - 1)
    out = empty(tuple(x.shape[i] for i in order), x.dtype)
    # Without the axes of one cell, so that the first one is worth cutting.
    lying = [a.transpose(order).reshape(out.shape[ones:]) for a in arrays]
    cells = out.reshape(out.shape[ones:])
    rows = max(1, CHUNK // max(1, math.prod(cells.shape[1:])))
    parallel_for(
        lambda part: loop(*(_flat(a[part]) for a in lying), cells[part].reshape(-1)),
        chunks_of(len(cells), rows),
    )
    return out.transpose(np.argsort(order))


def _flat(a: np.ndarray) -> np.ndarray:
    """Return an array along one axis; copied only if it does not lie in that order.

    It is read-only, so that Numba compiles one version whether or not `a` may be written to.
    """
    flat = np.ascontiguousarray(a).reshape(-1)
    flat.flags.writeable = False
    return flat
