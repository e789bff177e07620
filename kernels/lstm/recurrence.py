"""The loops of the LSTM on the CPU, compiled: all steps of some of the sequences.

Sequences of a batch know nothing of each other: a thread takes a few of them through all steps,
and never waits. The product with the previous state is a loop of its own, over weights laid out in
panels: BLAS would arrange them anew at each step, for the few rows that there are.
"""

from __future__ import annotations

import numpy as np

from tinyvid.kernels.jit import njit
from tinyvid.kernels.lanes import BYTES, load, multiply_add, spread, store

EIGHT_ROWS = BYTES == 64  # AVX2 has 16 registers, AVX-512 has 32


@njit(nogil=True, cache=True)
def pack(w, panels, begin, end):
    """Lay out the columns of w `K M` in panels: `panels[p, k, j] = w[k, p * width + j]`, or 0."""
    width = panels.shape[2]
    for p in range(begin, end):
        for k in range(w.shape[0]):
            for j in range(width):
                m = p * width + j
                panels[p, k, j] = w[k, m] if m < w.shape[1] else 0


@njit(nogil=True)
def _eight_rows(out, o, columns, a, at, inner, weights, w, width, zero):
    """Write eight rows of two vectors of columns at out[o]: 16 sums, as AVX-512 has registers for.

    Args:
        a: its rows begin at `at`, `inner` numbers each. weights: the panel at `w`.
    """
    half = width // 2
    a1, a2, a3 = at + inner, at + 2 * inner, at + 3 * inner
    a4, a5, a6, a7 = at + 4 * inner, at + 5 * inner, at + 6 * inner, at + 7 * inner
    y0 = y1 = y2 = y3 = y4 = y5 = y6 = y7 = spread(zero, 0)
    z0 = z1 = z2 = z3 = z4 = z5 = z6 = z7 = y0
    for k in range(inner):
        u, v = load(weights, w), load(weights, w + half)
        w += width
        x = spread(a, at + k)
        y0, z0 = multiply_add(x, u, y0), multiply_add(x, v, z0)
        x = spread(a, a1 + k)
        y1, z1 = multiply_add(x, u, y1), multiply_add(x, v, z1)
        x = spread(a, a2 + k)
        y2, z2 = multiply_add(x, u, y2), multiply_add(x, v, z2)
        x = spread(a, a3 + k)
        y3, z3 = multiply_add(x, u, y3), multiply_add(x, v, z3)
        x = spread(a, a4 + k)
        y4, z4 = multiply_add(x, u, y4), multiply_add(x, v, z4)
        x = spread(a, a5 + k)
        y5, z5 = multiply_add(x, u, y5), multiply_add(x, v, z5)
        x = spread(a, a6 + k)
        y6, z6 = multiply_add(x, u, y6), multiply_add(x, v, z6)
        x = spread(a, a7 + k)
        y7, z7 = multiply_add(x, u, y7), multiply_add(x, v, z7)
    store(out, o, y0)
    store(out, o + half, z0)
    store(out, o + columns, y1)
    store(out, o + columns + half, z1)
    store(out, o + 2 * columns, y2)
    store(out, o + 2 * columns + half, z2)
    store(out, o + 3 * columns, y3)
    store(out, o + 3 * columns + half, z3)
    store(out, o + 4 * columns, y4)
    store(out, o + 4 * columns + half, z4)
    store(out, o + 5 * columns, y5)
    store(out, o + 5 * columns + half, z5)
    store(out, o + 6 * columns, y6)
    store(out, o + 6 * columns + half, z6)
    store(out, o + 7 * columns, y7)
    store(out, o + 7 * columns + half, z7)


@njit(nogil=True, cache=True)
def _multiply(a, panels, out, zero):
    """out[n] = a[n] @ w for all rows; every element is summed up in the order of k."""
    rows, inner = a.shape
    width, columns = panels.shape[2], out.shape[1]
    half = width // 2
    flat, flat_out, weights = a.reshape(-1), out.reshape(-1), panels.reshape(-1)
    for p in range(len(panels)):
        start = p * inner * width
        first = 0
        if EIGHT_ROWS:
            first = rows - rows % 8
            for n in range(0, first, 8):
                o = n * columns + p * width
                _eight_rows(
                    flat_out, o, columns, flat, n * inner, inner, weights, start, width, zero
                )
        for n in range(first, rows - rows % 4, 4):
            a0 = n * inner
            a1, a2, a3 = a0 + inner, a0 + 2 * inner, a0 + 3 * inner
            y0 = y1 = y2 = y3 = z0 = z1 = z2 = z3 = spread(zero, 0)
            for k in range(inner):
                v = load(weights, start + k * width)
                w = load(weights, start + k * width + half)
                x = spread(flat, a0 + k)
                y0, z0 = multiply_add(x, v, y0), multiply_add(x, w, z0)
                x = spread(flat, a1 + k)
                y1, z1 = multiply_add(x, v, y1), multiply_add(x, w, z1)
                x = spread(flat, a2 + k)
                y2, z2 = multiply_add(x, v, y2), multiply_add(x, w, z2)
                x = spread(flat, a3 + k)
                y3, z3 = multiply_add(x, v, y3), multiply_add(x, w, z3)
            o = n * columns + p * width
            store(flat_out, o, y0)
            store(flat_out, o + half, z0)
            store(flat_out, o + columns, y1)
            store(flat_out, o + columns + half, z1)
            store(flat_out, o + 2 * columns, y2)
            store(flat_out, o + 2 * columns + half, z2)
            store(flat_out, o + 3 * columns, y3)
            store(flat_out, o + 3 * columns + half, z3)
        for n in range(rows - rows % 4, rows):
            y0 = z0 = spread(zero, 0)
            for k in range(inner):
                x = spread(flat, n * inner + k)
                y0 = multiply_add(x, load(weights, start + k * width), y0)
                z0 = multiply_add(x, load(weights, start + k * width + half), z0)
            store(flat_out, n * columns + p * width, y0)
            store(flat_out, n * columns + p * width + half, z0)


@njit(nogil=True, cache=True, error_model="numpy")
def tanh(x):
    """Write the hyperbolic tangent of a vector over it, by arithmetic that has vector instructions.

    Lambert's continued fraction for a = x / 32, to its eighth term, is right to 5e-18 there;
    then tanh 2a = 2 tanh a / (1 + tanh² a), five times, on numerator and denominator: nothing
    cancels, so that errors stay at a few units in the last place.
    """
    real = x.dtype.type
    one, most, small = real(1), real(20), real(1 / 32)  # beyond 20 it is 1 to the last digit
    p1, p2, p3 = real(270270 / 2027025), real(6930 / 2027025), real(36 / 2027025)
    q1, q2 = real(945945 / 2027025), real(51975 / 2027025)
    q3, q4 = real(630 / 2027025), real(1 / 2027025)
    for i in range(len(x)):
        a = most if x[i] > most else x[i]
        a = (-most if a < -most else a) * small
        z = a * a
        p = a * (((p3 * z + p2) * z + p1) * z + one)
        q = (((q4 * z + q3) * z + q2) * z + q1) * z + one
        for _ in range(5):
            both = p * q
            p, q = both + both, p * p + q * q
        y = p / q
        y = one if y > one else y  # not even by a rounding
        x[i] = -one if y < -one else y


@njit(nogil=True, cache=True)
def forward(first, last, gates, b, panels, h_state, c_state, h, c, lengths, reverse):
    """Take sequences `first` to before `last` through all steps; arrays are time-major.

    `gates` holds the inputs' part; it gets the activated gates, h_state and c_state what the last
    step leaves. `panels` are those of W_hh transposed, `H 4H`.
    """
    steps, hidden = len(h), h.shape[2]
    half, zero = b.dtype.type(0.5), np.zeros(1, b.dtype)
    a = np.empty((last - first, len(panels) * panels.shape[2]), b.dtype)
    state = h_state[first:last].copy()
    tanh_c = np.empty(hidden, b.dtype)
    for k in range(steps):
        t = steps - 1 - k if reverse else k
        _multiply(state, panels, a, zero)
        for n in range(first, last):
            gate, cell, state_n = gates[t, n], c_state[n], state[n - first]
            if t >= lengths[n]:
                gate[:] = 0
                h[t, n] = 0
                c[t, n] = 0
                continue
            # sigmoid(a) = (1 + tanh(a / 2)) / 2
            for quarter in range(4):
                scale = half + half if quarter == 2 else half
                begin, end = quarter * hidden, (quarter + 1) * hidden
                part, of_b, of_a = gate[begin:end], b[begin:end], a[n - first, begin:end]
                for j in range(hidden):
                    part[j] = (part[j] + of_b[j] + of_a[j]) * scale
            tanh(gate)
            for j in range(hidden):
                gate[j] = half + half * gate[j]
                gate[hidden + j] = half + half * gate[hidden + j]
                gate[3 * hidden + j] = half + half * gate[3 * hidden + j]
                cell[j] = gate[hidden + j] * cell[j] + gate[j] * gate[2 * hidden + j]
                tanh_c[j] = cell[j]
            tanh(tanh_c)
            for j in range(hidden):
                state_n[j] = gate[3 * hidden + j] * tanh_c[j]
            h[t, n] = state_n
            c[t, n] = cell
    h_state[first:last] = state


@njit(nogil=True, cache=True)
def backward(first, last, ga, panels, s_h, s_c, gh, gc, c, c_before, gates, lengths, reverse):
    """Take sequences `first` to before `last` back through all steps; equations: `reference.py`.

    `ga` gets the gradient of the gates before their activation, s_h and s_c that of the first
    state; they hold zeros. `panels` are those of W_hh, `4H H`.
    """
    steps, hidden = len(c), c.shape[2]
    one, zero = ga.dtype.type(1), np.zeros(1, ga.dtype)
    received = np.empty((last - first, len(panels) * panels.shape[2]), ga.dtype)
    tanh_c = np.empty(hidden, ga.dtype)
    for k in range(steps):
        t = k if reverse else steps - 1 - k
        for n in range(first, last):
            if t >= lengths[n]:
                ga[t, n] = 0
                continue
            gate, out, cell = gates[t, n], ga[t, n], c_before[t, n]
            tanh_c[:] = c[t, n]
            tanh(tanh_c)
            for j in range(hidden):
                i, f, g = gate[j], gate[hidden + j], gate[2 * hidden + j]
                o = gate[3 * hidden + j]
                g_h = s_h[n, j] + gh[t, n, j]
                g_c = s_c[n, j] + gc[t, n, j] + g_h * o * (one - tanh_c[j] * tanh_c[j])
                out[j] = g_c * g * i * (one - i)
                out[hidden + j] = g_c * cell[j] * f * (one - f)
                out[2 * hidden + j] = g_c * i * (one - g * g)
                out[3 * hidden + j] = g_h * tanh_c[j] * o * (one - o)
                s_c[n, j] = g_c * f
        _multiply(ga[t, first:last], panels, received, zero)
        for n in range(first, last):
            if t < lengths[n]:
                s_h[n] = received[n - first, :hidden]
