"""The LSTM on the CPU (`cpu/fused_step`): BLAS over all steps, compiled loops from step to step.

The input's part of all gates does not depend on the state: it is one product over all steps.
What is left for each step is the product with the previous state and the gates, see
`recurrence.py`. Backwards it is the same, and the weights' gradients are one product over all
steps.

Inside, arrays are time-major (`L N ...`), so that each step is contiguous; what is returned is
a view of them. The batch is split among threads, some sequences each. Sums are taken in an order
that no split changes, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from tinyvid.kernels import lanes
from tinyvid.kernels.lstm import recurrence
from tinyvid.kernels.memory import empty
from tinyvid.kernels.threads import chunks_of, parallel_for

SEQUENCES = 8  # of the batch that one thread takes through all steps
PANELS = 16  # of the weights that one thread lays out at a time
ROWS, COLUMNS = 256, 1024  # of the product that one thread computes at a time


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
    gates = empty((length, n, 4 * hidden), x.dtype)
    h, c = (empty((length, n, hidden), x.dtype) for _ in range(2))
    h_state, c_state = np.array(h0, order="C"), np.array(c0, order="C")
    panels, b = _panels(w_hh.T), _read_only(np.ascontiguousarray(b))
    ends = _ends(lengths, n, length)

    def sequences(s: slice) -> None:
        arrays = (gates, b, panels, h_state, c_state, h, c)
        recurrence.forward(s.start, s.stop, *arrays, ends, bool(reverse))

    _matmul(_time_major(x).reshape(-1, inputs), w_ih.T, gates.reshape(-1, 4 * hidden))
    parallel_for(sequences, chunks_of(n, SEQUENCES))
    return _batch_major(h), _batch_major(c), _batch_major(gates)


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
    """Go back through time, then take one product for each weight."""
    n, length, inputs = x.shape
    hidden = w_hh.shape[1]
    gh, gc, x, h, c, gates = (_time_major(array) for array in (gh, gc, x, h, c, gates))
    if lengths is not None:  # what stands past the end must not meet the zeros of `ga`: inf * 0
        x = np.where((np.arange(length)[:, None] < lengths)[..., None], x, x.dtype.type(0))
    h_before = _before(h, h0, lengths, reverse)
    c_before = _before(c, c0, lengths, reverse)
    ga = empty(gates.shape, gates.dtype)  # of the gates before their activation
    s_h, s_c = np.zeros((2, n, hidden), x.dtype)  # what later steps send to the state
    panels, ends = _panels(w_hh), _ends(lengths, n, length)

    def sequences(s: slice) -> None:
        arrays = (ga, panels, s_h, s_c, gh, gc, c, c_before, gates)
        recurrence.backward(s.start, s.stop, *arrays, ends, bool(reverse))

    parallel_for(sequences, chunks_of(n, SEQUENCES))
    ga_rows = ga.reshape(-1, 4 * hidden)  # (L N, 4H)
    gx = np.empty((length, n, inputs), x.dtype)
    gw_ih, gw_hh = np.empty_like(w_ih, order="C"), np.empty_like(w_hh, order="C")
    _matmul(ga_rows, w_ih, gx.reshape(-1, inputs))
    _matmul(ga_rows.T, x.reshape(-1, inputs), gw_ih)
    _matmul(ga_rows.T, h_before.reshape(-1, hidden), gw_hh)
    gb = ga_rows.sum(axis=0)
    return _batch_major(gx), gw_ih, gw_hh, gb, s_h, s_c


def _panels(w: np.ndarray) -> np.ndarray:
    """Lay out the columns of w `K M` in panels as wide as two vectors, `M / width, K, width`."""
    width = 2 * lanes.BYTES // w.itemsize
    panels = empty((-(-w.shape[1] // width), w.shape[0], width), w.dtype)
    w = _read_only(w)
    parallel_for(
        lambda s: recurrence.pack(w, panels, s.start, s.stop), chunks_of(len(panels), PANELS)
    )
    return _read_only(panels)


def _ends(lengths: np.ndarray | None, n: int, length: int) -> np.ndarray:
    return _read_only(np.full(n, length) if lengths is None else np.ascontiguousarray(lengths))


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


def _time_major(a: np.ndarray) -> np.ndarray:
    """View `N L ...` as a contiguous `L N ...` array, copied if it does not lie so already.

    It is read-only, so that Numba compiles one version whether or not `a` may be written to.
    """
    return _read_only(np.ascontiguousarray(a.swapaxes(0, 1)))


def _read_only(a: np.ndarray) -> np.ndarray:
    view = a.view()
    view.flags.writeable = False
    return view


def _batch_major(a: np.ndarray) -> np.ndarray:
    """View `L N ...` as `N L ...`."""
    return a.swapaxes(0, 1)
