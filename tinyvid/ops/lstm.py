"""The LSTM: layers and directions around the fused kernel, and its independent check.

Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000). For each step,
with the gates i, f, g, o stacked in the rows of the weights:

    i, f, g, o = W_ih x_t + b_ih + W_hh h_{t−1} + b_hh,  split in four
    c_t = σ(f) · c_{t−1} + σ(i) · tanh(g)
    h_t = σ(o) · tanh(c_t)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from tinyvid import kernels
from tinyvid.device import one_device, to_device, zeros_on_device_of
from tinyvid.errors import UserError
from tinyvid.ops.elementwise import sigmoid, tanh, where
from tinyvid.ops.fused import fused
from tinyvid.ops.matmul import linear
from tinyvid.ops.norm import dropout as drop
from tinyvid.ops.shape import cat, chunk, getitem, select, stack, transpose
from tinyvid.tensor import Tensor, _wrap, as_tensor, takes_arrays

State: TypeAlias = "tuple[Tensor, Tensor]"


@takes_arrays
def lstm(
    input: Tensor,
    weights: Sequence[Tensor],
    hx: State | None = None,
    lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    bidirectional: bool = False,
    batch_first: bool = True,
    dropout: float = 0.0,
    training: bool = False,
) -> tuple[Tensor, State]:
    """Run an LSTM of one or more layers over a batch of sequences.

    Args:
        input: x, `N L I`; `L N I` with `batch_first=False`.
        weights: for each layer, and in it for each direction, the four tensors w_ih (4H, I),
            w_hh (4H, H), b_ih (4H,), b_hh (4H,); with I = directions · H from the second layer on.
        hx: initial h and c, each (layers · directions, N, H); zeros by default.
        lengths: how many steps of each sequence are valid, 1 … L; all by default. Outputs
            past a sequence's end are 0, and the backward direction starts at its last step.
        bidirectional: whether there are two directions.
        dropout: probability of dropping an input of a layer after the first, in training.

    Returns:
        The outputs, (N, L, directions · H), and the final (h, c), each of the shape of hx.

    Raises:
        UserError: shapes, lengths or devices do not fit.
    """
    return _layers(
        _fused, input, weights, hx, lengths, bidirectional, batch_first, dropout, training
    )


@takes_arrays
def lstm_composed(
    input: Tensor,
    weights: Sequence[Tensor],
    hx: State | None = None,
    lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    bidirectional: bool = False,
    batch_first: bool = True,
    dropout: float = 0.0,
    training: bool = False,
) -> tuple[Tensor, State]:
    """Run the same LSTM made of small operations: slower, and a check of `lstm`."""
    return _layers(
        _composed, input, weights, hx, lengths, bidirectional, batch_first, dropout, training
    )


def _layers(
    direction: Callable[..., State],
    input: Tensor,
    weights: Sequence[Tensor],
    hx: State | None,
    lengths: Sequence[int] | np.ndarray | Tensor | None,
    bidirectional: bool,
    batch_first: bool,
    dropout: float,
    training: bool,
) -> tuple[Tensor, State]:
    directions = 2 if bidirectional else 1
    if len(weights) % (4 * directions) or not weights:
        raise UserError(
            f"lstm: {len(weights)} weights are not w_ih, w_hh, b_ih, b_hh "
            f"for each layer and each of {directions} direction(s)"
        )
    weights = [as_tensor(w) for w in weights]
    if input.ndim != 3 or 0 in input.shape[:2]:
        raise UserError(f"lstm: input must be (N, L, I), not empty, not of shape {input.shape}")
    x = input if batch_first else transpose(input, 0, 1)
    n, length, _ = x.shape
    count, hidden = len(weights) // 4, weights[1].shape[1]
    if hx is None:
        zeros = _wrap(zeros_on_device_of(x.data, (count, n, hidden), x.dtype))
        hx = (zeros, zeros)
    for name, state in zip("hc", hx, strict=True):
        if state.shape != (count, n, hidden):
            raise UserError(f"lstm: {name} of shape {state.shape}, expected {(count, n, hidden)}")
    one_device("lstm", x.data, *(t.data for t in (*weights, *hx)))
    valid = _lengths(lengths, n, length)
    last = np.full(n, length - 1) if valid is None else valid - 1
    finals: list[State] = []
    for layer in range(count // directions):
        if layer and dropout:
            x = drop(x, dropout, training)
        outputs = []
        for reverse in (False, True)[:directions]:
            i = layer * directions + reverse
            w_ih, w_hh, b_ih, b_hh = weights[4 * i : 4 * i + 4]
            h0, c0 = select(hx[0], 0, i), select(hx[1], 0, i)
            h, c = direction(x, w_ih, w_hh, b_ih + b_hh, h0, c0, valid, reverse)
            end = (np.arange(n), np.zeros(n, np.int64) if reverse else last)
            finals.append((getitem(h, end), getitem(c, end)))
            outputs.append(h)
        x = cat(outputs, 2) if bidirectional else outputs[0]
    h_n, c_n = (stack(states) for states in zip(*finals, strict=True))
    return x if batch_first else transpose(x, 0, 1), (h_n, c_n)


def _lengths(lengths, n: int, length: int) -> np.ndarray | None:
    if lengths is None:
        return None
    host = lengths.numpy() if isinstance(lengths, Tensor) else to_device(lengths, "cpu")
    valid = np.asarray(host)
    if (
        valid.shape != (n,)
        or valid.dtype.kind not in "iu"
        or not ((valid >= 1) & (valid <= length)).all()
    ):
        raise UserError(f"lstm: lengths={valid.tolist()} must be {n} integers from 1 to {length}")
    return valid.astype(np.int64)


def _fused(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b: Tensor,
    h0: Tensor,
    c0: Tensor,
    lengths: np.ndarray | None,
    reverse: bool,
) -> State:
    """Return the outputs h and cell states c, each `N L H`, of one layer in one direction."""
    inputs = (x, w_ih, w_hh, b, h0, c0)
    h, c, gates = kernels.lstm_fprop(*(t.data for t in inputs), lengths, reverse, device=x.device)

    arrays = (x.data, w_ih.data, w_hh.data, h0.data, c0.data)

    def backward(g: np.ndarray) -> Sequence[np.ndarray]:
        gh, gc = g
        return kernels.lstm_bprop(gh, gc, *arrays, lengths, reverse, h, c, gates, device=x.device)

    def composed(
        x: Tensor, w_ih: Tensor, w_hh: Tensor, b: Tensor, h0: Tensor, c0: Tensor
    ) -> Tensor:
        return stack(_composed(x, w_ih, w_hh, b, h0, c0, lengths, reverse))

    both = fused(np.stack([h, c]), inputs, backward, composed)
    return select(both, 0, 0), select(both, 0, 1)


def _composed(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b: Tensor,
    h0: Tensor,
    c0: Tensor,
    lengths: np.ndarray | None,
    reverse: bool,
) -> State:
    n, length, _ = x.shape
    valid = np.full(n, length) if lengths is None else lengths
    h, c = h0, c0
    steps: dict[int, State] = {}
    for t in reversed(range(length)) if reverse else range(length):
        i, f, g, o = chunk(linear(select(x, 1, t), w_ih, b) + linear(h, w_hh), 4, 1)
        c_next = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h_next = sigmoid(o) * tanh(c_next)
        inside = (t < valid)[:, None]
        steps[t] = where(inside, h_next, 0.0), where(inside, c_next, 0.0)
        h, c = where(inside, h_next, h), where(inside, c_next, c)
    hs, cs = zip(*(steps[t] for t in range(length)), strict=True)
    return stack(hs, 1), stack(cs, 1)
