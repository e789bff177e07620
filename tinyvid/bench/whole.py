"""Whole operations as a network runs them: forward, or forward and backward, through the engine.

Where `run` times a kernel by itself, this times what the user of an operation waits for: every
kernel of its passes, the bias, what is kept for backward, the engine; and PyTorch runs the same.
In a backward run both sides write the weights anew first, as an optimiser does, so that nothing
made of the old ones can be used again. In a forward run they stay, as in a network that is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

import tinyvid
from tinyvid.bench import taps
from tinyvid.bench.peers import Contestant
from tinyvid.bench.problems import FLOAT, Arrays, Expectation, Task, of_batch, work_of
from tinyvid.bench.results import OURS, PEER, Measured
from tinyvid.bench.run import Settings, channels_last, race, shapes
from tinyvid.checking.problems import PROBLEMS
from tinyvid.device import to_device
from tinyvid.errors import UserError, nearest
from tinyvid.kernels import kernels

PASSES = ("forward", "forward+backward")
FORWARD_ONLY = ("conv3d_relu_max_pool",)  # of near ties either may win, and get the gradient


@dataclass(frozen=True)
class Whole:
    """An operation on one of its cases, with its arguments.

    Attributes:
        op: the operation. case: from its `cases.py`. backward: whether gradients are taken too.
        inputs: of the operation, float32, x first. gy: the gradient of its result.
        learned: the places of the inputs that get a gradient; all but an LSTM's first state.
    """

    op: str
    case: Any
    backward: bool
    inputs: Arrays
    gy: np.ndarray
    learned: tuple[int, ...]

    @cached_property
    def tasks(self) -> list[Task]:
        """The kernels' tasks that the operation consists of."""
        passes = {k.pass_: k for k in kernels() if k.op == self.op}
        return [
            Task(passes[pass_], self.case, args, work_of(passes[pass_], self.case, args))
            for pass_, args in _ARGS[self.op](self)
        ]

    def expectation(self) -> Expectation:
        """Return what the result, and in a backward run each gradient of `learned`, must be."""
        parts = _EXPECTED[self.op](self)
        return Expectation(
            parts[0].how,
            tuple(part.kinds[0] for part in parts),
            tuple(part.want[0] for part in parts),
            lambda results: tuple(
                part.seen((y,))[0] for part, y in zip(parts, results, strict=True)
            ),
        )


def whole(op: str, case: str, backward: bool, batch: int | None = None) -> Whole:
    """Return an operation on a case, with new random arguments.

    Args:
        op: an operation. case: the name of one of its cases. backward: whether gradients are
            taken too. batch: N, in place of the case's own.

    Raises:
        UserError: no such operation or case, or it cannot be timed so.
    """
    if op not in _EXPECTED:
        raise UserError(f"{op} cannot be timed as a whole.{nearest(op, _EXPECTED)}")
    if backward and op in FORWARD_ONLY:
        raise UserError(f"{op} is timed as a whole forward only")
    known, make = PROBLEMS[op]
    named = {one.name: one for one in known}
    if case not in named:
        raise UserError(f"no case of {op} is called {case!r}.{nearest(case, named)}")
    chosen = of_batch(named[case], batch)
    rng = np.random.default_rng()
    inputs = [rng.standard_normal(shape, np.float32) for shape in make(chosen).inputs]
    places = tuple(range(len(inputs)))
    if op == "lstm":
        if chosen.reverse or chosen.lengths is not None:
            raise UserError(f"{case}: only one direction, of sequences of equal lengths")
        for w in inputs[3:5]:  # so small that the states do not run into chaos
            w /= np.sqrt(w.shape[1], dtype=w.dtype)
        places = (0, 3, 4, 5, 6)
    gy = rng.standard_normal(_result(op, chosen), np.float32)
    return Whole(op, chosen, backward, tuple(inputs), gy, places)


def wholes(
    op: str, cases: Sequence[str], passes: Sequence[str], batch: int | None, quick: bool = False
) -> Iterator[Whole]:
    """Yield an operation on cases, by default the large ones; arguments as of `problems.tasks`.

    Raises:
        UserError: see `whole`, or there is no such pass.
    """
    for name in passes:
        if name not in PASSES:
            raise UserError(f"--pass {name}: a whole operation has {' and '.join(PASSES)}")
    known = [case.name for case in PROBLEMS[op][0] if case.large]
    for case in cases or (known[:1] if quick else known):
        for name in passes or PASSES[: 1 if op in FORWARD_ONLY else None]:
            yield whole(op, case, name == PASSES[1], batch)


def measure_whole(what: Whole, settings: Settings) -> Measured:
    """Check and time an operation, ours and the peers that have it; see `run.race`."""
    expected = what.expectation()
    works = [task.work for task in what.tasks]
    measured = Measured(
        what.op,
        PASSES[what.backward],
        what.case.name,
        shapes(what.case),
        sum(work.flops for work in works),
        sum(work.bytes for work in works),
        expected.how,
    )
    runs: list[tuple[str, str, Callable[[], Any]]] = [
        ("tinyvid", OURS, lambda: (_ours(what, settings.device), expected))
    ]
    for peer in settings.peers:
        if peer.whole is not None:
            prepare = partial(_theirs, peer.whole, what, settings.device, expected)
            runs.append((peer.name, PEER, prepare))
    return race(measured, runs, settings)


def _theirs(
    prepare: Callable[[Whole, str], Contestant], what: Whole, device: str, expected: Expectation
) -> tuple[Contestant, Expectation]:
    return prepare(what, device), expected


def _ours(what: Whole, device: str) -> Contestant:
    """Return ours; activations are channels-last in memory, as they come in a network."""
    fn = PROBLEMS[what.op][1](what.case).fn
    assert fn is not None  # as of all that can be timed as a whole

    def placed(a: np.ndarray) -> tinyvid.Tensor:
        array = channels_last(a, device) if a.ndim > 3 else to_device(a, device)
        return tinyvid.from_numpy(array)

    filters = {1} if what.op.startswith("conv") else set()
    inputs = [
        tinyvid.from_numpy(to_device(a, device)) if place in filters else placed(a)
        for place, a in enumerate(what.inputs)
    ]
    gy, values = placed(what.gy), [t.detach() for t in inputs]

    def result() -> Any:
        y = fn(*inputs)
        return y[0] if isinstance(y, tuple) else y

    def forward() -> tuple[Any, ...]:
        with tinyvid.no_grad():
            return (result(),)

    def step() -> tuple[Any, ...]:
        with tinyvid.no_grad():
            for place in what.learned[1:]:
                inputs[place].copy_(values[place])
        for t in inputs:
            t.grad = None
        y = result()
        y.backward(gy)
        return (y, *(inputs[place].grad for place in what.learned))

    if what.backward:
        for place in what.learned:
            inputs[place].requires_grad_()
    return Contestant(step if what.backward else forward, _host)


def _host(tensors: tuple[Any, ...]) -> Arrays:
    return tuple(np.asarray(to_device(t.data, "cpu")) for t in tensors)


# ---- the passes of each operation, and what must come out ----------------------------------------

Args = Iterator[tuple[str, tuple[Any, ...]]]


def _result(op: str, case: Any) -> tuple[int, ...]:
    if op == "lstm":
        return (case.batch, case.steps, case.hidden)
    return case.pool.y if hasattr(case, "pool") else case.geometry.y


def _conv_args(what: Whole) -> Args:
    (x, w, _), gy, g = what.inputs, what.gy, what.case.geometry
    yield "fprop", (x, w, g)
    if what.backward:
        yield "dgrad", (gy, w, g)
        yield "wgrad", (gy, x, g)


def _conv_expected(what: Whole) -> list[Expectation]:
    first, *others = (task.expectation() for task in what.tasks)
    b = what.inputs[2].reshape(-1, *[1] * (what.gy.ndim - 2))
    without_bias = Expectation(
        first.how, first.kinds, first.want, lambda results: first.seen((results[0] - b,))
    )
    if not what.backward:
        return [without_bias]
    along = (0, *range(2, what.gy.ndim))
    gb = what.gy.sum(along, dtype=np.float64)
    return [without_bias, *others, Expectation(first.how, ((gb.shape, FLOAT),), (gb,))]


def _conv_pool_args(what: Whole) -> Args:
    yield "fprop", (*what.inputs, what.case.geometry, what.case.pool)


def _max_pool_args(what: Whole) -> Args:
    (x,), g = what.inputs, what.case.geometry
    yield "fprop", (x, g)
    if what.backward:
        yield "dgrad", (what.gy, taps.max_fprop(x, g)[1], g)


def _avg_pool_args(what: Whole) -> Args:
    (x,), case = what.inputs, what.case
    yield "fprop", (x, case.geometry, case.count_include_pad, case.divisor_override)
    if what.backward:
        yield "dgrad", (what.gy, case.geometry, case.count_include_pad, case.divisor_override)


def _each(what: Whole) -> list[Expectation]:
    return [task.expectation() for task in what.tasks]


def _lstm_args(what: Whole) -> Args:
    x, h0, c0, w_ih, w_hh, b_ih, b_hh = what.inputs
    ends = (h0[0], c0[0], None, False)
    yield "fprop", (x, w_ih, w_hh, b_ih + b_hh, *ends)
    if what.backward:
        (reference,) = (k.variants["reference"] for k in kernels() if k.name == "lstm_fprop")
        saved = reference.function(x, w_ih, w_hh, b_ih + b_hh, *ends)
        yield "bprop", (what.gy, np.zeros_like(what.gy), x, w_ih, w_hh, *ends, *saved)


def _lstm_expected(what: Whole) -> list[Expectation]:
    parts = _each(what)
    if not what.backward:
        return parts
    forward, backward = parts
    gradients = [
        Expectation(backward.how, (kind,), (want,))
        for kind, want in list(zip(backward.kinds, backward.want, strict=True))[:4]
    ]
    return [forward, *gradients, gradients[3]]  # both biases have the same


_ARGS: dict[str, Callable[[Whole], Args]] = {
    "conv3d": _conv_args,
    "conv2d": _conv_args,
    "conv3d_relu_max_pool": _conv_pool_args,
    "max_pool3d": _max_pool_args,
    "avg_pool3d": _avg_pool_args,
    "lstm": _lstm_args,
}
_EXPECTED: dict[str, Callable[[Whole], list[Expectation]]] = {
    "conv3d": _conv_expected,
    "conv2d": _conv_expected,
    "conv3d_relu_max_pool": _each,
    "max_pool3d": _each,
    "avg_pool3d": _each,
    "lstm": _lstm_expected,
}
