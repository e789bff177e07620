"""The LSTM by its formula, a launch for each step: a thread for each hidden unit of each sequence.

`naive.cu` for Numba. Nothing is shared: a thread reads the four rows of W_hh that make its unit's
gates, and its sequence's whole state, from global memory. What the inputs give to the gates of
all steps was one matrix product before. What differs: arrays are indexed along their axes, and
where all sequences have L steps, `lengths` says so for each of them.

N sequences of L steps, H hidden units. h, c and their gradients are N L H, gates and ga N L 4H,
h0 and c0 N H. Gates go in the order i, f, g, o. The equations stand in reference.py.
"""

import math

from tinyvid.kernels.numba_launch import add, cuda, device_function


# Whether sequence n has a step t.
@device_function
def has(lengths, n, t):
    return t >= 0 and t < lengths[n]


# The step that is read before this one, and the one that is read after it.
@device_function
def before(t, reverse):
    return t + 1 if reverse else t - 1


@device_function
def after(t, reverse):
    return t - 1 if reverse else t + 1


# The states that step t of sequence n starts from: a row of H.
@device_function
def start(states, first, lengths, reverse, n, t):
    earlier = before(t, reverse)
    if has(lengths, n, earlier):
        return states[n, earlier]
    return first[n]


@device_function
def sigmoid(a, one):
    return one / (one + math.exp(-a))


# What a row of W_hh and a state give.
@device_function
def product(weights, state, zero):
    value = lost = zero
    for k in range(weights.size):
        value, lost = add(value, lost, weights[k] * state[k])
    return value


# Step t, from the one before it. `gates` holds the input's part, biases included: it is activated
# in place.
@cuda.jit
def lstm_fprop_naive(w_hh, h0, c0, lengths, gates, h, c, reverse, t):
    N, _, H = h.shape
    n, unit = divmod(cuda.grid(1), H)
    if n >= N:
        return
    real = h.dtype
    zero, one = real.type(0), real.type(1)
    gate = gates[n, t]
    if not has(lengths, n, t):  # past the end
        gate[unit] = gate[H + unit] = gate[2 * H + unit] = gate[3 * H + unit] = zero
        h[n, t, unit] = c[n, t, unit] = zero
        return
    state = start(h, h0, lengths, reverse, n, t)
    i = sigmoid(gate[unit] + product(w_hh[unit], state, zero), one)
    f = sigmoid(gate[H + unit] + product(w_hh[H + unit], state, zero), one)
    g = math.tanh(gate[2 * H + unit] + product(w_hh[2 * H + unit], state, zero))
    o = sigmoid(gate[3 * H + unit] + product(w_hh[3 * H + unit], state, zero), one)
    cell = f * start(c, c0, lengths, reverse, n, t)[unit] + i * g
    gate[unit], gate[H + unit], gate[2 * H + unit], gate[3 * H + unit] = i, f, g, o
    c[n, t, unit] = cell
    h[n, t, unit] = o * math.tanh(cell)


# Step t, from the one read after it: the gradients ga of the gates' inputs, and gc0, which carries
# s_c from step to step. One more launch, with the t before the first, ends in gh0.
@cuda.jit
def lstm_bprop_naive(w_hh, gh, gc, c0, lengths, c, gates, ga, gh0, gc0, reverse, t):
    N, L, H = c.shape
    n, unit = divmod(cuda.grid(1), H)
    if n >= N:
        return
    real = c.dtype
    one = real.type(1)
    later = after(t, reverse)
    received = has(lengths, n, later)
    s_h = lost = s_c = real.type(0)
    if received:
        for k in range(4 * H):
            s_h, lost = add(s_h, lost, ga[n, later, k] * w_hh[k, unit])
        s_c = gc0[n, unit]
    if not has(lengths, n, t):
        if received:
            gh0[n, unit] = s_h
        if t >= 0 and t < L:
            for gate in range(4):
                ga[n, t, gate * H + unit] = 0
        return
    i, f = gates[n, t, unit], gates[n, t, H + unit]
    g, o = gates[n, t, 2 * H + unit], gates[n, t, 3 * H + unit]
    tanh_c = real.type(math.tanh(c[n, t, unit]))
    g_h = s_h + gh[n, t, unit]
    g_c = s_c + gc[n, t, unit] + g_h * o * (one - tanh_c * tanh_c)
    c_before = start(c, c0, lengths, reverse, n, t)[unit]
    ga[n, t, unit] = g_c * g * i * (one - i)
    ga[n, t, H + unit] = g_c * c_before * f * (one - f)
    ga[n, t, 2 * H + unit] = g_c * i * (one - g * g)
    ga[n, t, 3 * H + unit] = g_h * tanh_c * o * (one - o)
    gc0[n, unit] = g_c * f


# Rows for the products that make the weights' gradients, which run over all steps at once:
# to[n, t] = states of the step before, or first[n]. Zeros past the end.
@cuda.jit
def lstm_starts(states, first, lengths, to, reverse):
    N, L, H = to.shape
    row, unit = divmod(cuda.grid(1), H)
    n, t = divmod(row, L)
    if n >= N:
        return
    given = start(states, first, lengths, reverse, n, t)
    to[n, t, unit] = given[unit] if has(lengths, n, t) else to.dtype.type(0)


# to[n, t] = rows[n, t]. Zeros past the end, where rows may hold anything.
@cuda.jit
def lstm_rows(rows, lengths, to):
    N, L, columns = to.shape
    row, column = divmod(cuda.grid(1), columns)
    n, t = divmod(row, L)
    if n < N:
        to[n, t, column] = rows[n, t, column] if has(lengths, n, t) else to.dtype.type(0)
