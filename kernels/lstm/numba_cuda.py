"""The LSTM in Python, for Numba: the launchers of `numba/*`, steps of the ladder to read.

Kernels are those of `naive.cu` in `numba_naive.py`, a launch for each step of time. What does not
depend on the state is worked out for all steps at once, by the matrix product of the arrays'
own library: the inputs' part of the gates, and from the gradients ga of the gates' inputs

    gx = ga W_ih;  gW_ih = ga^T x;  gW_hh = ga^T h_before;  gb = the sum of ga
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvid.device import to_device
from tinyvid.errors import UserError
from tinyvid.kernels import launch, numba_launch
from tinyvid.kernels.lstm import numba_naive
from tinyvid.kernels.lstm.cuda import unfit
from tinyvid.kernels.lstm.plan import GATES, TEAM, tiles
from tinyvid.kernels.operands import check_device_of, dense, sizes_told


def naive_fprop(
    x: Any,
    w_ih: Any,
    w_hh: Any,
    b: Any,
    h0: Any,
    c0: Any,
    lengths: Any,
    reverse: bool,
    *,
    device: str = "cuda",
) -> tuple[Any, Any, Any]:
    """Return h and c, `N L H`, and the activated gates, `N L 4H`; 0 past the ends of sequences.

    Args:
        x: `N L I`. w_ih: `4H I`. w_hh: `4H H`. b: `4H`. h0, c0: `N H`. All of one dtype, float32
            or float64, CuPy arrays for a GPU and NumPy arrays for the simulator.
        lengths: int64 `N`, on the host or the device, or None.
        reverse: from the last step to the first.
        device: `cuda`, or `emulator` where Numba's simulator is on.

    Raises:
        UserError: shapes, dtypes or devices do not fit, or there is not enough memory.
    """
    from tinyvid.kernels import lstm

    lstm.fprop.check(x, w_ih, w_hh, b, h0, c0, lengths, reverse)
    _check("fprop", (x, w_ih, w_hh, b, h0, c0), x, w_hh, device)
    N, L, inputs = x.shape
    H, dtype = w_hh.shape[1], x.dtype
    sizes = {
        "operands": [(a.shape, dtype) for a in (x, w_ih, w_hh)],
        "results": [((N, L, size), dtype) for size in (H, H, GATES * H)],
    }
    with sizes_told("lstm_fprop", "numba/naive", sizes):
        w_hh, h0, c0 = (dense(a, device) for a in (w_hh, h0, c0))
        lengths = _lengths(lengths, N, L, device)
        gates = x.reshape(N * L, inputs) @ w_ih.T + b
        gates = dense(gates.reshape(N, L, GATES * H), device)
        h, c = (launch.empty((N, L, H), dtype, device) for _ in range(2))
    for t in range(L - 1, -1, -1) if reverse else range(L):
        _launch("fprop_naive", N * H, (w_hh, h0, c0, lengths), (gates, h, c), reverse, t, on=device)
    return h, c, gates


def naive_bprop(
    gh: Any,
    gc: Any,
    x: Any,
    w_ih: Any,
    w_hh: Any,
    h0: Any,
    c0: Any,
    lengths: Any,
    reverse: bool,
    h: Any,
    c: Any,
    gates: Any,
    *,
    device: str = "cuda",
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Return gx, gw_ih, gw_hh, gb, gh0 and gc0 from gh and gc, `N L H`; otherwise as `fprop`."""
    from tinyvid.kernels import lstm

    lstm.bprop.check(gh, gc, x, w_ih, w_hh, h0, c0, lengths, reverse, h, c, gates)
    arrays = (gh, gc, x, w_ih, w_hh, h0, c0, h, c, gates)
    _check("bprop", arrays, x, w_hh, device)
    N, L, inputs = x.shape
    H, dtype = w_hh.shape[1], x.dtype
    sizes = {
        "operands": [(a.shape, dtype) for a in (gh, gc, x, w_ih, w_hh, h, c, gates)],
        "results": [(a.shape, dtype) for a in (x, w_ih, w_hh)],
        "a workspace": [((N, L, size), dtype) for size in (GATES * H, inputs, H)],
    }
    with sizes_told("lstm_bprop", "numba/naive", sizes):
        gh, gc, x, w_hh, h0, c0, h, c, gates = (
            dense(a, device) for a in (gh, gc, x, w_hh, h0, c0, h, c, gates)
        )
        lengths = _lengths(lengths, N, L, device)
        ga = launch.empty((N, L, GATES * H), dtype, device)
        gh0, gc0 = (launch.empty((N, H), dtype, device) for _ in range(2))
        x_valid, h_before = (launch.empty(a.shape, dtype, device) for a in (x, h))
        before = (w_hh, gh, gc, c0, lengths, c, gates)
        for t in range(L + 1) if reverse else range(L - 1, -2, -1):
            _launch("bprop_naive", N * H, before, (ga, gh0, gc0), reverse, t, on=device)
        _launch("starts", h.size, (h, h0, lengths), (h_before,), reverse, on=device)
        # What stands past the end must not meet the zeros of `ga`: inf * 0.
        _launch("rows", x.size, (x, lengths), (x_valid,), on=device)

        rows = ga.reshape(N * L, GATES * H)
        gx = (rows @ w_ih).reshape(x.shape)
        gw_ih = rows.T @ x_valid.reshape(N * L, inputs)
        gw_hh = rows.T @ h_before.reshape(N * L, H)
        gb = rows.sum(axis=0)
    return gx, gw_ih, gw_hh, gb, gh0, gc0


def _launch(
    kernel: str, threads: int, inputs: tuple, outputs: tuple, *numbers: int, on: str
) -> None:
    if threads:
        function = getattr(numba_naive, f"lstm_{kernel}")
        blocks = tiles(threads, TEAM)
        numbers = tuple(map(int, numbers))
        numba_launch.run(function, blocks, TEAM, inputs, outputs, *numbers, device=on)


def _lengths(lengths: Any, N: int, L: int, device: str) -> Any:
    if lengths is None:
        lengths = np.full(N, L)
    return dense(to_device(lengths, "cpu" if device == "emulator" else device), device)


def _check(pass_: str, arrays: tuple[Any, ...], x: Any, w_hh: Any, device: str) -> None:
    check_device_of(f"lstm_{pass_}", arrays, device)
    why = unfit("naive", pass_, x, w_hh)
    if why is not None:
        raise UserError(f"lstm_{pass_}: 'numba/naive' cannot take this case: {why}")
