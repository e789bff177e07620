"""The definition of the LSTM: a plain loop over time, forwards and backwards.

    a_t = W_ih x_t + W_hh h_(t-1) + b
    i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)
    c_t = f * c_(t-1) + i * g
    h_t = o * tanh(c_t)

Hochreiter & Schmidhuber (1997), with the forget gate f of Gers, Schmidhuber & Cummins (2000).
Every other variant must agree with it.
"""

from __future__ import annotations

import numpy as np


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
    """The equations above, step by step; sequences that have ended take no part in a step."""
    n, length, _ = x.shape
    hidden = w_hh.shape[1]
    h, c = (np.zeros((n, length, hidden), x.dtype) for _ in range(2))
    gates = np.zeros((n, length, 4 * hidden), x.dtype)
    h_state, c_state = h0.copy(), c0.copy()
    for t in _steps(length, reverse):
        on = _running(t, lengths, n)  # the sequences that have a step t
        a = x[on, t] @ w_ih.T + h_state[on] @ w_hh.T + b  # (on, 4H)
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        i, f, g, o = _sigmoid(a_i), _sigmoid(a_f), np.tanh(a_g), _sigmoid(a_o)
        c_state[on] = f * c_state[on] + i * g
        h_state[on] = o * np.tanh(c_state[on])
        h[on, t], c[on, t] = h_state[on], c_state[on]
        gates[on, t] = np.concatenate([i, f, g, o], axis=1)
    return h, c, gates


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
    """The chain rule through the equations above, from the last step read to the first.

    With s_h and s_c the gradients that reach the state after a step, from its outputs and
    from later steps:

        g_o = s_h * tanh(c_t);  s_c += s_h * o * (1 - tanh(c_t)^2)
        g_i = s_c * g;  g_f = s_c * c_(t-1);  g_g = s_c * i
        ga  = g_i * i (1 - i),  g_f * f (1 - f),  g_g * (1 - g^2),  g_o * o (1 - o)
        gx_t = ga W_ih;  gW_ih += ga^T x_t;  gW_hh += ga^T h_(t-1);  gb += ga
        s_h = ga W_hh;  s_c = s_c * f
    """
    n, length, _ = x.shape
    gx, gw_ih, gw_hh = np.zeros_like(x), np.zeros_like(w_ih), np.zeros_like(w_hh)
    gb = np.zeros(len(w_ih), x.dtype)
    s_h, s_c = np.zeros_like(h0), np.zeros_like(c0)
    order = list(_steps(length, reverse))
    for t in reversed(order):
        on = _running(t, lengths, n)
        h_before, c_before = h0.copy(), c0.copy()
        if t != order[0]:
            earlier = order[order.index(t) - 1]
            began = on & _running(earlier, lengths, n)  # the others begin with this step
            h_before[began], c_before[began] = h[began, earlier], c[began, earlier]
        i, f, g, o = np.split(gates[on, t], 4, axis=1)
        tanh_c = np.tanh(c[on, t])
        g_h = s_h[on] + gh[on, t]
        g_c = s_c[on] + gc[on, t] + g_h * o * (1 - tanh_c**2)
        ga = np.concatenate(
            [
                g_c * g * i * (1 - i),
                g_c * c_before[on] * f * (1 - f),
                g_c * i * (1 - g**2),
                g_h * tanh_c * o * (1 - o),
            ],
            axis=1,
        )  # (on, 4H)
        gx[on, t] = ga @ w_ih
        gw_ih += ga.T @ x[on, t]
        gw_hh += ga.T @ h_before[on]
        gb += ga.sum(axis=0)
        s_h[on] = ga @ w_hh
        s_c[on] = g_c * f
    return gx, gw_ih, gw_hh, gb, s_h, s_c


def _steps(length: int, reverse: bool) -> range:
    """The steps in the order in which they are read."""
    return range(length - 1, -1, -1) if reverse else range(length)


def _running(t: int, lengths: np.ndarray | None, n: int) -> np.ndarray:
    """Which of the n sequences have a step t."""
    return np.ones(n, bool) if lengths is None else t < lengths


def _sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-a)), written so that nothing overflows."""
    small = np.exp(-np.abs(a))
    return np.where(a >= 0, 1, small) / (1 + small)
