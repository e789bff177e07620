"""The updates of optimisers on the CPU: each array passes through memory once, on all threads.

The formulas, and the order of their operations, are those of `tinyvid.optim`, which computes small
parameters with NumPy: results are the same to the bit. All arrays have one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyvid.kernels.jit import njit
from tinyvid.kernels.threads import chunks_of, parallel_for

CHUNK = 2**17  # elements of a chunk


def update(loop: Callable[..., None], arrays: Sequence[np.ndarray], *numbers: Any) -> None:
    """Run a loop of this module over arrays of one size; those that are not needed are empty.

    Args:
        arrays: the new parameter, the old one, its gradient, and the state that is updated.
        numbers: what else the loop takes.
    """
    new, p, g, *state = arrays
    given = (new, _read_only(p), _read_only(g), *state)
    parallel_for(lambda c: loop(*(a[c] for a in given), *numbers), chunks_of(new.size, CHUNK))


def _read_only(a: np.ndarray) -> np.ndarray:
    view = a.view()
    view.flags.writeable = False  # so that Numba compiles one version
    return view


@njit(nogil=True, cache=True)
def sgd(new, p, g, v, first, lr, momentum, dampening, decay, nesterov):
    """One step of `tinyvid.optim.SGD`; v is empty without momentum."""
    real = p.dtype.type
    lr, momentum, kept, decay = real(lr), real(momentum), real(1 - dampening), real(decay)
    if len(v) == 0:
        for i in range(len(p)):
            d = p[i] * decay + g[i] if decay else g[i]
            new[i] = p[i] - d * lr
    else:
        for i in range(len(p)):
            d = p[i] * decay + g[i] if decay else g[i]
            v_i = d if first else v[i] * momentum + d * kept
            v[i] = v_i
            new[i] = p[i] - (d + v_i * momentum if nesterov else v_i) * lr


@njit(nogil=True, cache=True, error_model="numpy")
def adam(new, p, g, m, v, largest, beta1, new1, beta2, new2, root, eps, rate, decay, shrink):
    """One step of `tinyvid.optim.Adam`; `largest`, the largest v so far, is empty without it.

    new1 and new2 are 1 - beta; root is √(1 - beta2^t), rate the learning rate divided by
    1 - beta1^t, decay that through the gradient; p is first multiplied by `shrink`.
    """
    real = p.dtype.type
    beta1, new1, beta2, new2 = real(beta1), real(new1), real(beta2), real(new2)
    root, eps, rate, decay, shrink = real(root), real(eps), real(rate), real(decay), real(shrink)
    for i in range(len(p)):
        d = g[i] + p[i] * decay if decay else g[i]
        m[i] = m[i] * beta1 + d * new1
        v[i] = v[i] * beta2 + d * d * new2
    if len(largest):
        for i in range(len(p)):  # NaN is larger than every number
            largest[i] = largest[i] if v[i] <= largest[i] or largest[i] != largest[i] else v[i]
        v = largest
    for i in range(len(p)):
        new[i] = p[i] * shrink - m[i] / (np.sqrt(v[i]) / root + eps) * rate


def sum_of_squares(g: np.ndarray) -> float:
    """Return the sum of the squares of all elements, in float64."""
    flat = _read_only(g.reshape(-1))
    chunks = chunks_of(flat.size, CHUNK)
    sums = np.zeros(len(chunks))

    def add(i: int) -> None:
        sums[i] = _sum_of_squares(flat[chunks[i]])

    parallel_for(add, range(len(chunks)))
    return float(sums.sum())


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _sum_of_squares(g):
    total = 0.0
    for i in range(len(g)):
        total += np.float64(g[i]) * np.float64(g[i])
    return total
