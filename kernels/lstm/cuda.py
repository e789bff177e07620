"""The LSTM in CUDA C++: the launchers of `cuda/*`, one for all steps of the ladder.

What does not depend on the state is worked out for all steps at once. Forward, the inputs' part
of the gates is one matrix product, biases added on its way out, and the kernels replace it by the
activated gates in place. Backward, the kernels make the gradients `ga` of the gates' inputs, and

    gx = ga W_ih;  gW_ih = ga^T x;  gW_hh = ga^T h_before;  gb = the sum of ga

are products and a sum over all steps. A matrix product is a convolution with a filter of one
cell: these are the three passes of `conv3d`'s implicit GEMM.

In between, a step of the ladder is a `.cu` file with a kernel for each pass, `lstm_<pass>_<step>`,
launched for each step of time, or once (`persistent`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinyvid.device import device_of, to_device
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import cuda as conv3d
from tinyvid.kernels.lstm import plan as plans
from tinyvid.kernels.lstm.plan import GATES, MULTIPROCESSORS, Plan, tiles
from tinyvid.kernels.operands import check_device_of, dense, pointer, sizes_told

ROW_THREADS = 256  # of a block that copies rows
_PRODUCT = "implicit_gemm"
_REAL = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class Step:
    """A step of the ladder.

    Attributes:
        file: the kernels. plan: for (pass, N, H, dtype, multiprocessors); UserError where it
            cannot take them.
        once: one launch for all steps of time; else one for each.
        transposed: back through time it takes W_hh transposed.
    """

    file: str
    plan: Callable[..., Plan]
    once: bool = False
    transposed: bool = False


STEPS = {
    "naive": Step("naive.cu", plans.naive),
    "fused_step": Step("fused_step.cu", plans.fused_step, transposed=True),
    "persistent": Step("persistent.cu", plans.persistent, once=True),
}


def fprop(
    x: Any,
    w_ih: Any,
    w_hh: Any,
    b: Any,
    h0: Any,
    c0: Any,
    lengths: Any,
    reverse: bool,
    *,
    step: str = "persistent",
    device: str = "cuda",
    specialised: bool | None = None,
) -> tuple[Any, Any, Any]:
    """Return h and c, `N L H`, and the activated gates, `N L 4H`; 0 past the ends of sequences.

    Args:
        x: `N L I`. w_ih: `4H I`. w_hh: `4H H`. b: `4H`. h0, c0: `N H`. All of one dtype, float32
            or float64, NumPy arrays for the emulator and CuPy arrays for a GPU.
        lengths: int64 `N`, on the host or the device, or None.
        reverse: from the last step to the first.
        step: of the ladder, a key of `STEPS`. device: `cuda` or `emulator`.
        specialised: compile H and the products' sizes in; by default on a GPU only.

    Raises:
        UserError: shapes, dtypes or devices do not fit, the step cannot take the sizes, or there
            is not enough memory.
    """
    from tinyvid.kernels import lstm

    lstm.fprop.check(x, w_ih, w_hh, b, h0, c0, lengths, reverse)
    _check("fprop", (x, w_ih, w_hh, b, h0, c0), x, w_hh, step, device)
    N, L, inputs = x.shape
    H, dtype = w_hh.shape[1], x.dtype
    if not N:
        return tuple(launch.empty((0, L, size), dtype, device) for size in (H, H, GATES * H))
    sizes = {
        "operands": [(a.shape, dtype) for a in (x, w_ih, w_hh)],
        "results": [((N, L, size), dtype) for size in (H, H, GATES * H)],
    }
    with sizes_told("lstm_fprop", f"cuda/{step}", sizes):
        w_hh, h0, c0 = (dense(a, device) for a in (w_hh, h0, c0))
        lengths = _lengths(lengths, device)
        product = partial(_product, device=device, specialised=specialised)
        gates = product("fprop", x.reshape(N * L, inputs), w_ih, bias=b)
        gates = dense(gates.reshape(N, L, GATES * H), device)
        h, c = (launch.empty((N, L, H), dtype, device) for _ in range(2))
    run = _Run("fprop", step, N, L, H, dtype, device, specialised, lengths, reverse)
    run.through_time(range(L), (w_hh, h0, c0), (gates, h, c))
    return h, c, gates


def bprop(
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
    step: str = "persistent",
    device: str = "cuda",
    specialised: bool | None = None,
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Return gx, gw_ih, gw_hh, gb, gh0 and gc0 from gh and gc, `N L H`; otherwise as `fprop`."""
    from tinyvid.kernels import lstm

    lstm.bprop.check(gh, gc, x, w_ih, w_hh, h0, c0, lengths, reverse, h, c, gates)
    arrays = (gh, gc, x, w_ih, w_hh, h0, c0, h, c, gates)
    _check("bprop", arrays, x, w_hh, step, device)
    N, L, inputs = x.shape
    H, dtype = w_hh.shape[1], x.dtype
    if not N:
        return _nothing(x, w_ih, w_hh, h0, device)
    sizes = {
        "operands": [(a.shape, dtype) for a in (gh, gc, x, w_ih, w_hh, h, c, gates)],
        "results": [(a.shape, dtype) for a in (x, w_ih, w_hh)],
        "a workspace": [((N, L, size), dtype) for size in (GATES * H, inputs, H)],
    }
    with sizes_told("lstm_bprop", f"cuda/{step}", sizes):
        gh, gc, x, h0, c0, h, c, gates = (
            dense(a, device) for a in (gh, gc, x, h0, c0, h, c, gates)
        )
        weights = dense(w_hh.T if STEPS[step].transposed else w_hh, device)
        lengths = _lengths(lengths, device)
        ga = launch.empty((N, L, GATES * H), dtype, device)
        gh0, gc0 = (launch.empty((N, H), dtype, device) for _ in range(2))
        run = _Run("bprop", step, N, L, H, dtype, device, specialised, lengths, reverse)
        run.through_time(range(L - 1, -2, -1), (weights, gh, gc, c0), (c, gates, ga, gh0, gc0))
        h_before = run.rows(h, h0)
        # What stands past the end must not meet the zeros of `ga`: inf * 0.
        x_valid = x if lengths is None else run.rows(x, None)

        rows = ga.reshape(N * L, GATES * H)
        product = partial(_product, device=device, specialised=specialised)
        gx = product("dgrad", rows, w_ih).reshape(N, L, inputs)
        gw_ih = product("wgrad", rows, x_valid.reshape(N * L, inputs))
        gw_hh = product("wgrad", rows, h_before.reshape(N * L, H))
        gb = rows.sum(axis=0)
    return gx, gw_ih, gw_hh, gb, gh0, gc0


def _passes(step: str) -> tuple[Callable[..., Any], ...]:
    return tuple(partial(pass_, step=step) for pass_ in (fprop, bprop))


# What the registry names: a pass at a step.
naive_fprop, naive_bprop = _passes("naive")
fused_step_fprop, fused_step_bprop = _passes("fused_step")
persistent_fprop, persistent_bprop = _passes("persistent")


def unfit(step: str, pass_: str, x: Any, w_hh: Any) -> str | None:
    """Return why a step of the ladder cannot take the sizes of x and w_hh, or None if it can."""
    N, L, inputs = x.shape
    H = w_hh.shape[1]
    if not N:
        return None  # no sequences, no launch
    if not inputs or not H:
        return f"it has {inputs} inputs and {H} hidden units"
    for size in (inputs, H):
        geometry = _geometry(N * L, size, GATES * H)
        if (why := conv3d.unfit(_PRODUCT, "wgrad", geometry, x.dtype)) is not None:
            return why
    try:
        plan = STEPS[step].plan(pass_, N, H, x.dtype, _multiprocessors(device_of(x)))
    except UserError as error:
        return str(error)
    return f"it takes {plan.blocks} blocks" if plan.blocks >= 2**31 else None


def constants(
    step: str, pass_: str, N: int, H: int, dtype: np.dtype | type, specialised: bool = True
) -> dict[str, object]:
    """Return what a kernel is compiled with: `-Dname=value`."""
    return _constants(STEPS[step].plan(pass_, N, H, np.dtype(dtype)), H, dtype, specialised)


def _constants(plan: Plan, H: int, dtype: np.dtype | type, specialised: bool) -> dict[str, object]:
    found: dict[str, object] = {"REAL": _REAL[np.dtype(dtype).name], **plan.constants}
    if specialised:
        found["HIDDEN"] = H
    return found


class _Run:
    """The kernels of a pass, compiled for it, with the sizes that all of them take."""

    def __init__(
        self,
        pass_: str,
        step: str,
        N: int,
        L: int,
        H: int,
        dtype: np.dtype,
        device: str,
        specialised: bool | None,
        lengths: Any,
        reverse: bool,
    ):
        self.pass_, self.step, self.device = pass_, step, device
        self.N, self.L, self.H, self.dtype = N, L, H, dtype
        self.ends = (pointer(lengths, device), np.int32(reverse))
        self.plan = STEPS[step].plan(pass_, N, H, dtype, _multiprocessors(device))
        if specialised is None:
            specialised = device == "cuda"
        self.module = launch.load(
            launch.KERNELS / "lstm" / STEPS[step].file,
            _constants(self.plan, H, dtype, specialised),
            device,
            enable_cooperative_groups=self.plan.cooperative,
        )

    def through_time(self, reads: range, before: tuple, after: tuple) -> None:
        """Launch the kernel of the pass, for all steps or for each.

        Args:
            reads: the steps in order, counted as the sequence is read.
            before, after: the arrays that it takes before and after the sizes.
        """
        kernel = launch.with_shared(
            self.module.get_function(f"lstm_{self.pass_}_{self.step}"), self.plan.shared
        )
        sizes = (*self.ends, *map(np.int32, (self.N, self.L, self.H)))
        reverse = bool(self.ends[1])
        each: list[list[Any]]
        each = [[np.int32(self.L - 1 - read if reverse else read)] for read in reads]
        if STEPS[self.step].once:
            arrivals = launch.zeros((1,), np.uint32, self.device)  # at the barrier of the grid
            each = [[*map(np.int32, self.plan.args), arrivals]]
        for numbers in each:
            args = [*before, *sizes, *numbers, *after]
            kernel((self.plan.blocks,), (self.plan.threads,), args, shared_mem=self.plan.shared)

    def rows(self, source: Any, first: Any) -> Any:
        """Return rows `N L ...`, zeros past the ends; with `first`, those of the step before."""
        out = launch.empty(source.shape, self.dtype, self.device)
        columns = source.shape[2]
        sizes = map(np.int32, (first is not None, self.N, self.L, columns))
        self.module.get_function("lstm_rows")(
            (tiles(math.prod(source.shape), ROW_THREADS),),
            (ROW_THREADS,),
            [source, pointer(first, self.device), *self.ends, *sizes, out],
        )
        return out


def _geometry(rows: int, inputs: int, outputs: int) -> Any:
    """Return the matrix product rows x inputs by inputs x outputs as a convolution."""
    return conv_geometry((rows, inputs, 1, 1, 1), (outputs, inputs, 1, 1, 1))


def _product(
    pass_: str, a: Any, b: Any, bias: Any = None, *, device: str, specialised: bool | None
) -> Any:
    """Return a b^T + bias (`fprop`), a b (`dgrad`) or a^T b (`wgrad`) of two matrices.

    Raises:
        MemoryError: there is not enough; the caller knows what for.
    """
    if pass_ == "wgrad":
        geometry = _geometry(len(a), b.shape[1], a.shape[1])
    else:
        geometry = _geometry(len(a), b.shape[1], len(b))
    cells = [matrix.reshape(*matrix.shape, 1, 1, 1) for matrix in (a, b)]
    finish = [] if bias is None else [bias]
    run = getattr(conv3d, pass_)
    try:
        found = run(
            *cells, geometry, *finish, step=_PRODUCT, device=device, specialised=specialised
        )
    except UserError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        raise
    return found.reshape(found.shape[:2])


def _lengths(lengths: Any, device: str) -> Any:
    if lengths is None:
        return None
    return dense(to_device(lengths, "cpu" if device == "emulator" else device), device)


def _multiprocessors(device: str) -> int:
    return launch.multiprocessors() if device == "cuda" else MULTIPROCESSORS


def _nothing(x: Any, w_ih: Any, w_hh: Any, h0: Any, device: str) -> tuple[Any, ...]:
    """Return the gradients of a batch without sequences."""
    results = []
    for shape in (x.shape, w_ih.shape, w_hh.shape, w_ih.shape[:1], h0.shape, h0.shape):
        array = launch.empty(shape, x.dtype, device)
        array[...] = 0
        results.append(array)
    return tuple(results)


def _check(pass_: str, arrays: tuple[Any, ...], x: Any, w_hh: Any, step: str, device: str) -> None:
    if step not in STEPS:
        raise UserError(f"step={step!r}: the steps of the ladder are {', '.join(STEPS)}")
    check_device_of(f"lstm_{pass_}", arrays, device)
    if (why := unfit(step, pass_, x, w_hh)) is not None:
        raise UserError(f"lstm_{pass_}: 'cuda/{step}' cannot take this case: {why}")
