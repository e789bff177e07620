"""The LSTM on the CPU (`cpu/fused_step`): BLAS for the products, Numba for the gates.

The input's part of all gates does not depend on the state: it is one product over all steps.
What is left for each step is the product with the previous state, and everything after it,
fused into loops over memory that is still in the cache. Backwards it is the same, and the
weights' gradients are one product over all steps.

Inside, arrays are time-major (`L N ...`), so that each step is contiguous; what is returned is
a view of them. A step is split by hidden units among threads: a thread computes the four gates
of its units, which is all that their states need. The split depends on the sizes alone, and
BLAS runs on one thread in each, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from tinyvid.kernels.jit import njit
from tinyvid.kernels.threads import blas_on_one_thread, chunks_of, parallel_for

UNITS = 128  # hidden units that one thread steps at a time
ROWS, COLUMNS = 512, 512  # of the product that one thread computes at a time


def fprop(
    x: np.ndarray,
    w_ih: np.ndarray,
    w_hh: np.ndarray,
    b: np.ndarray,
    h0: np.ndarray,
    c0: np.ndarray,
    lengths: np.ndarray | None,
    reverse: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the sequence forward: one product for all inputs, then a fused step at a time."""
    n, length, inputs = x.shape
    hidden = w_hh.shape[1]
    gates = np.empty((length, n, 4 * hidden), x.dtype)
    h, c = np.empty((2, length, n, hidden), x.dtype)
    units = chunks_of(hidden, UNITS)
    # The rows of W_hh that make the gates of some units: (H, 4 units), contiguous.
    weights = [w_hh.reshape(4, hidden, hidden)[:, u].reshape(-1, hidden).T.copy("K") for u in units]
    h_state, c_state = np.array(h0, order="C"), np.array(c0, order="C")
    h_next = np.empty_like(h_state)

    def step(k: int) -> None:
        u = units[k]
        a = h_state @ weights[k]  # (N, 4 units)
        _add_inputs(a, gates[t], u.start)
        np.tanh(a, out=a)
        _step_cell(a, gates[t], c_state, c[t], running, u.start)
        tanh_c = np.tanh(c[t, :, u])
        _step_state(tanh_c, gates[t], h_state, h_next, h[t], running, u.start)

    with blas_on_one_thread():
        _matmul(_time_major(x).reshape(-1, inputs), w_ih.T, gates.reshape(-1, 4 * hidden))
        gates += b
        for t in _steps(length, reverse):
            running = _running(t, lengths, n)
            parallel_for(step, range(len(units)))
            h_state, h_next = h_next, h_state
    return _batch_major(h), _batch_major(c), _batch_major(gates)


# sigmoid(a) = (1 + tanh(a / 2)) / 2, so one call of tanh serves all four gates.


@njit(nogil=True, cache=True)
def _add_inputs(a, inputs, start):
    """Add the inputs' part to the states' part `a` (N, 4 units), and halve all but g."""
    units, hidden = a.shape[1] // 4, inputs.shape[1] // 4
    for n in range(len(a)):
        for gate in range(4):
            scale = a.dtype.type(1.0 if gate == 2 else 0.5)
            for j in range(units):
                at = gate * units + j
                a[n, at] = (a[n, at] + inputs[n, gate * hidden + start + j]) * scale


@njit(nogil=True, cache=True)
def _step_cell(a, gates, c_state, c, running, start):
    """Finish the gates from their tanh `a`, and step the cells."""
    units, hidden = a.shape[1] // 4, c.shape[1]
    half = a.dtype.type(0.5)
    for n in range(len(a)):
        for j in range(units):
            at = start + j
            if not running[n]:
                c[n, at] = 0
                for gate in range(4):
                    gates[n, gate * hidden + at] = 0
                continue
            i = half + half * a[n, j]
            f = half + half * a[n, units + j]
            g = a[n, 2 * units + j]
            gates[n, at] = i
            gates[n, hidden + at] = f
            gates[n, 2 * hidden + at] = g
            gates[n, 3 * hidden + at] = half + half * a[n, 3 * units + j]
            c_state[n, at] = f * c_state[n, at] + i * g
            c[n, at] = c_state[n, at]


@njit(nogil=True, cache=True)
def _step_state(tanh_c, gates, h_state, h_next, h, running, start):
    """Step the states, from the one that all threads still read to the next."""
    hidden = h.shape[1]
    for n in range(len(h)):
        for j in range(tanh_c.shape[1]):
            at = start + j
            h[n, at] = gates[n, 3 * hidden + at] * tanh_c[n, j] if running[n] else 0
            h_next[n, at] = h[n, at] if running[n] else h_state[n, at]


def bprop(
    gh: np.ndarray,
    gc: np.ndarray,
    x: np.ndarray,
    w_ih: np.ndarray,
    w_hh: np.ndarray,
    h0: np.ndarray,
    c0: np.ndarray,
    lengths: np.ndarray | None,
    reverse: bool,
    h: np.ndarray,
    c: np.ndarray,
    gates: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Go back through time: a fused step at a time, then one product for each weight."""
    n, length, inputs = x.shape
    hidden = w_hh.shape[1]
    gh, gc, x, h, c, gates = (_time_major(array) for array in (gh, gc, x, h, c, gates))
    if lengths is not None:  # what stands past the end must not meet the zeros of `ga`: inf * 0
        x = np.where((np.arange(length)[:, None] < lengths)[..., None], x, x.dtype.type(0))
    h_before = _before(h, h0, lengths, reverse)
    c_before = _before(c, c0, lengths, reverse)
    ga = np.empty_like(gates)  # of the gates before their activation
    s_h, s_c = np.zeros((2, n, hidden), x.dtype)  # what later steps send to the state
    units, order = chunks_of(hidden, UNITS), _steps(length, reverse)

    def receive(u: slice, later: int) -> None:
        """Take what the step read later sends; sequences that ended before it send nothing."""
        received = ga[later] @ w_hh[:, u]  # (N, units)
        _keep_running(s_h, received, _running(later, lengths, n), u.start)

    def step(u: slice) -> None:
        if later is not None:
            receive(u, later)
        tanh_c = np.tanh(c[t, :, u])
        _step_back(ga[t], s_h, s_c, gh[t], gc[t], tanh_c, c_before[t], gates[t], running, u.start)

    with blas_on_one_thread():
        later: int | None = None
        for t in reversed(order):
            running = _running(t, lengths, n)
            parallel_for(step, units)
            later = t
        parallel_for(lambda u: receive(u, order[0]), units)
        ga_rows = ga.reshape(-1, 4 * hidden)  # (L N, 4H)
        gx = np.empty((length, n, inputs), x.dtype)
        gw_ih, gw_hh = np.empty_like(w_ih, order="C"), np.empty_like(w_hh, order="C")
        _matmul(ga_rows, w_ih, gx.reshape(-1, inputs))
        _matmul(ga_rows.T, x.reshape(-1, inputs), gw_ih)
        _matmul(ga_rows.T, h_before.reshape(-1, hidden), gw_hh)
        gb = ga_rows.sum(axis=0)
    return _batch_major(gx), gw_ih, gw_hh, gb, s_h, s_c


@njit(nogil=True, cache=True)
def _keep_running(s_h, received, running, start):
    for n in range(len(s_h)):
        if running[n]:
            for j in range(received.shape[1]):
                s_h[n, start + j] = received[n, j]


@njit(nogil=True, cache=True)
def _step_back(ga, s_h, s_c, gh, gc, tanh_c, c_before, gates, running, start):
    """One step of the chain rule; the equations stand in `reference.py`."""
    hidden = s_h.shape[1]
    one = ga.dtype.type(1)
    for n in range(len(ga)):
        for j in range(tanh_c.shape[1]):
            at = start + j
            at_f, at_g, at_o = hidden + at, 2 * hidden + at, 3 * hidden + at
            if not running[n]:
                ga[n, at] = ga[n, at_f] = ga[n, at_g] = ga[n, at_o] = 0
                continue
            i, f, g, o = gates[n, at], gates[n, at_f], gates[n, at_g], gates[n, at_o]
            g_h = s_h[n, at] + gh[n, at]
            g_c = s_c[n, at] + gc[n, at] + g_h * o * (one - tanh_c[n, j] * tanh_c[n, j])
            ga[n, at] = g_c * g * i * (one - i)
            ga[n, at_f] = g_c * c_before[n, at] * f * (one - f)
            ga[n, at_g] = g_c * i * (one - g * g)
            ga[n, at_o] = g_h * tanh_c[n, j] * o * (one - o)
            s_c[n, at] = g_c * f


def _matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Write a @ b to `out`, tile by tile on several threads."""

    def tile(place: tuple[slice, slice]) -> None:
        rows, columns = place
        np.matmul(a[rows], b[:, columns], out=out[rows, columns])

    tiles = product(chunks_of(len(out), ROWS), chunks_of(out.shape[1], COLUMNS))
    parallel_for(tile, list(tiles))


def _before(
    states: np.ndarray, first: np.ndarray, lengths: np.ndarray | None, reverse: bool
) -> np.ndarray:
    """Return for each step the state that it started from: `L N H`, as `states` after it."""
    before = np.empty_like(states)
    if not reverse:
        before[0], before[1:] = first, states[:-1]
        return before
    before[-1], before[:-1] = first, states[1:]
    if lengths is not None:  # a sequence starts at its own last step
        ends = (lengths - 1, np.arange(len(lengths)))
        before[ends] = first
    return before


def _steps(length: int, reverse: bool) -> range:
    """The steps in the order in which they are read."""
    return range(length - 1, -1, -1) if reverse else range(length)


def _running(t: int, lengths: np.ndarray | None, n: int) -> np.ndarray:
    """Which of the n sequences have a step t."""
    return np.ones(n, np.bool_) if lengths is None else t < lengths


def _time_major(a: np.ndarray) -> np.ndarray:
    """View `N L ...` as a contiguous `L N ...` array, copied if it does not lie so already.

    It is read-only, so that Numba compiles one version whether or not `a` may be written to.
    """
    view = np.ascontiguousarray(a.swapaxes(0, 1)).view()
    view.flags.writeable = False
    return view


def _batch_major(a: np.ndarray) -> np.ndarray:
    """View `L N ...` as `N L ...`."""
    return a.swapaxes(0, 1)
