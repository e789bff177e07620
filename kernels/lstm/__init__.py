"""One layer of LSTM in one direction, through all steps of a batch of sequences.

    a_t           = W_ih x_t + W_hh h_(t-1) + b        the four gates' inputs, stacked, 4H
    i, f, o       = sigmoid of their parts of a_t;  g = tanh of its part
    c_t           = f * c_(t-1) + i * g
    h_t           = o * tanh(c_t)

Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 9(8), 1997; the forget
gate f is of Gers, Schmidhuber & Cummins, Learning to Forget, Neural Computation 12(10), 2000.
There are no peepholes. Rows of weights, and `gates`, go in the order i, f, g, o; `gates` holds
the activated values. b is the sum of PyTorch's two biases.

Sequences of a batch may end early: a step at or past `lengths[n]` leaves the state of sequence
n untouched, and its rows of h, c and gates, and later of gx, are 0. With `reverse` a sequence
is read from its own last valid step to its first; outputs stay at the step that they belong to.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.kernels.registry import Kernel

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _check(
    name: str, arrays: dict[str, Any], bias: Any, lengths: Any, reverse: Any, steps: dict[str, Any]
) -> None:
    """Check the arguments of a pass; `steps` are arrays of which each step has a row."""
    every = {**arrays, **({} if bias is None else {"b": bias}), **steps}
    for letter, array in every.items():
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise UserError(f"{name}: {letter} must be an array, not a {type(array).__name__}")
    for letter, array, wanted in (("x", arrays["x"], "N L I"), ("h0", arrays["h0"], "N H")):
        if len(array.shape) != len(wanted.split()):
            raise UserError(f"{name}: {letter} has shape {array.shape}; it must be ({wanted})")
    n, length, inputs = arrays["x"].shape
    hidden = arrays["h0"].shape[1]
    if length < 1:
        raise UserError(f"{name}: x has shape {arrays['x'].shape}: there must be at least one step")
    shapes = {
        "h0": (n, hidden),
        "c0": (n, hidden),
        "w_ih": (4 * hidden, inputs),
        "w_hh": (4 * hidden, hidden),
        "b": (4 * hidden,),
        "gates": (n, length, 4 * hidden),
    }
    for letter, array in every.items():
        wanted_shape = shapes.get(letter, (n, length, inputs if letter == "x" else hidden))
        if array.shape != wanted_shape:
            raise UserError(
                f"{name}: {letter} has shape {array.shape}, not {wanted_shape}, which {n} "
                f"sequences of {length} steps with {inputs} inputs and {hidden} hidden units need"
            )
        if array.dtype not in _FLOATS or array.dtype != arrays["x"].dtype:
            raise UserError(
                f"{name}: {letter} is {array.dtype} and x is {arrays['x'].dtype}; "
                "all arrays must be float32, or all float64"
            )
    if not isinstance(reverse, (bool, np.bool_)):
        raise UserError(f"{name}: reverse={reverse!r} must be True or False")
    if lengths is not None:
        _check_lengths(name, lengths, n, length)


def _check_lengths(name: str, lengths: Any, n: int, length: int) -> None:
    if getattr(lengths, "shape", None) != (n,) or lengths.dtype != np.int64:
        got = f"{lengths.dtype} of shape {lengths.shape}" if hasattr(lengths, "dtype") else lengths
        raise UserError(
            f"{name}: lengths must be None or an int64 array with one length for each of the "
            f"{n} sequences, not {got}"
        )
    if n and not (lengths.min() >= 1 and lengths.max() <= length):
        raise UserError(f"{name}: lengths={lengths.tolist()} must lie between 1 and {length}")


def _check_fprop(
    x: Any, w_ih: Any, w_hh: Any, b: Any, h0: Any, c0: Any, lengths: Any, reverse: Any
) -> None:
    arrays = {"x": x, "w_ih": w_ih, "w_hh": w_hh, "h0": h0, "c0": c0}
    _check("lstm_fprop", arrays, b, lengths, reverse, {})


def _check_bprop(
    gh: Any,
    gc: Any,
    x: Any,
    w_ih: Any,
    w_hh: Any,
    h0: Any,
    c0: Any,
    lengths: Any,
    reverse: Any,
    h: Any,
    c: Any,
    gates: Any,
) -> None:
    arrays = {"x": x, "w_ih": w_ih, "w_hh": w_hh, "h0": h0, "c0": c0}
    steps = {"gh": gh, "gc": gc, "h": h, "c": c, "gates": gates}
    _check("lstm_bprop", arrays, None, lengths, reverse, steps)


fprop = Kernel(
    "lstm",
    "fprop",
    """`lstm_fprop(x, w_ih, w_hh, b, h0, c0, lengths, reverse) -> (h, c, gates)`.

    Args: x `N L I`, w_ih `4H I`, w_hh `4H H`, b `4H`, h0 and c0 `N H`; lengths int64 `N`, each
        1 to L, or None where all sequences are L long; reverse: from the last step to the first.
    Returns: h and c `N L H`, gates `N L 4H`; 0 at steps past the end of a sequence.
    Raises UserError where shapes, dtypes or lengths do not fit.
    """,
    _check_fprop,
)
bprop = Kernel(
    "lstm",
    "bprop",
    """`lstm_bprop(gh, gc, x, w_ih, w_hh, h0, c0, lengths, reverse, h, c, gates)`.

    The gradient of <gh, h> + <gc, c> with respect to each floating-point argument of fprop.
    Args: gh and gc `N L H`, of which steps past the end of a sequence are not looked at; h, c and
        gates are what fprop returned, the others its arguments.
    Returns: gx, gw_ih, gw_hh, gb, gh0, gc0, each of the shape of its argument; gx is 0 past the
        end of a sequence. Raises UserError where shapes, dtypes or lengths do not fit.
    """,
    _check_bprop,
)


def _unfit(step: str, pass_: str) -> Callable[..., str | None]:
    def unfit(*args: Any) -> str | None:
        from tinyvid.kernels.lstm import cuda  # only where a GPU or the emulator is asked for

        x, _, w_hh = args[:3] if pass_ == "fprop" else args[2:5]
        return cuda.unfit(step, pass_, x, w_hh)

    return unfit


# Steps of the ladder in CUDA C++, the one to prefer first.
_STEPS = ("persistent", "fused_step", "naive")

for _kernel in (fprop, bprop):
    _kernel.add("cpu/fused_step", f"tinyvid.kernels.lstm.cpu:{_kernel.pass_}")
    for _step in _STEPS:
        _kernel.add(
            f"cuda/{_step}",
            f"tinyvid.kernels.lstm.cuda:{_step}_{_kernel.pass_}",
            unfit=_unfit(_step, _kernel.pass_),
        )
    _kernel.add(
        "numba/naive",
        f"tinyvid.kernels.lstm.numba_cuda:naive_{_kernel.pass_}",
        unfit=_unfit("naive", _kernel.pass_),
    )
    _kernel.add("reference", f"tinyvid.kernels.lstm.reference:{_kernel.pass_}")
