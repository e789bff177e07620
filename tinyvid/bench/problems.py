"""The tests' cases as work to be timed: arguments, operations and bytes, and what must come out.

Results are compared in float64. Of small cases every element is compared with the reference. Of a
large convolution, sums of its results with random signs over batch and channels are: since a
convolution is linear in both of its arguments, their values follow from the same sums of the
arguments, at the cost of one filter on one clip, and yet every element takes part (Freivalds,
Probabilistic machines can use less running time, IFIP Congress 1977). Large poolings and first
layers are compared with `taps`, element for element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyvid.bench import taps
from tinyvid.checking.suite import PROBLEMS
from tinyvid.errors import UserError, nearest
from tinyvid.geometry import ConvGeometry
from tinyvid.kernels import Kernel, kernels
from tinyvid.kernels.flow.programs import work_of as flow_work
from tinyvid.kernels.inspection.roofline import Work

Arrays = tuple[np.ndarray, ...]
FLOAT = np.dtype(np.float32)

# How far results may be from float64, as a share of the largest element. Of float32, Winograd's
# transforms lose most; the others are what rounding operands to 10 and 7 bits of fraction leaves.
TOLERANCE = {"float32": 2e-4, "tf32": 5e-3, "bf16": 4e-2}

# The axes over which the two arguments of a pass are summed; of its result, the first two.
_SUMMED = {"fprop": (0, 0), "dgrad": (0, 1), "wgrad": (1, 1)}


@dataclass(frozen=True)
class Expectation:
    """What a result must be.

    Attributes:
        how: what it is compared with, in words.
        kinds: shape and dtype of each result. want: in float64.
        seen: makes of results what `want` is compared with.
    """

    how: str
    kinds: tuple[tuple[tuple[int, ...], np.dtype], ...]
    want: Arrays
    seen: Callable[[Arrays], Arrays] = lambda results: results

    def fault(self, results: Arrays, arithmetic: str = "float32") -> str | None:
        """Return what is wrong with results, or None. NaN is wrong; a peer may give fewer."""
        for place, (y, (shape, dtype)) in enumerate(zip(results, self.kinds, strict=False)):
            if y.shape != shape or y.dtype != dtype:
                return f"result {place} is {y.dtype} of shape {y.shape}, not {dtype} of {shape}"
        for place, (y, want) in enumerate(zip(self.seen(results), self.want, strict=False)):
            largest = float(np.abs(want).max(initial=0)) or 1.0
            with np.errstate(invalid="ignore"):
                error = np.abs(y - want) / largest
            error[np.isnan(error)] = np.inf
            allowed = TOLERANCE[arithmetic] if want.dtype.kind == "f" else 0
            if not float(error.max(initial=0)) <= allowed:
                return (
                    f"result {place} is wrong: off by {error.max():.1e} of the largest element "
                    f"(allowed {allowed:.0e}), compared with {self.how}"
                )
        return None


@dataclass(frozen=True)
class Task:
    """A pass of a case: what every contestant has to do.

    Attributes:
        kernel: the kernel. case: from its `cases.py`. args: of the kernel, in float32.
        work: operations and bytes.
    """

    kernel: Kernel
    case: Any
    args: tuple[Any, ...]
    work: Work

    @property
    def name(self) -> str:
        """The operation, the pass and the case."""
        return f"{self.kernel.op} {self.kernel.pass_} {self.case.name}"

    @property
    def geometry(self) -> Any:
        """The sizes of a convolution or a pooling."""
        return self.case.geometry

    def expectation(self, rounds: Callable[[np.ndarray], np.ndarray] | None = None) -> Expectation:
        """Return what the results must be; `rounds` as of a variant that rounds its operands."""
        args = tuple(_exact(a, rounds) for a in self.args)
        linear = self.kernel.op in ("conv3d", "conv2d") and self.case.groups == 1
        if self.case.large and linear:
            return _by_random_sums(self.kernel.pass_, args, self.geometry)
        if self.case.large and self.kernel.name == "conv3d_relu_max_pool_fprop":
            return _by_value(args)
        function = BY_TAPS.get(self.kernel.name) if self.case.large else None
        how = "every element by filter taps in float64"
        if function is None:
            function = self.kernel.variants["reference"].function
            how = "every element of the reference in float64"
        want = function(*args)
        want = want if isinstance(want, tuple) else (want,)
        kinds = tuple((y.shape, FLOAT if y.dtype.kind == "f" else y.dtype) for y in want)
        return Expectation(how, kinds, want)


def tasks(
    op: str,
    cases: Iterable[str] = (),
    passes: Iterable[str] = (),
    batch: int | None = None,
    quick: bool = False,
    seed: int | None = None,
    variants: Iterable[str] = (),
) -> Iterable[Task]:
    """Yield the passes of the cases of an operation, with new random arguments.

    Args:
        op: an operation with kernels. cases: their names; by default the large ones, layers of
            the lecture's networks. passes: their names; all by default.
        batch: N, in place of the case's own. quick: the two smallest of the large cases.
        seed: of the random numbers; others in each run by default.
        variants: leave out passes that have none of these; by default none is left out.

    Raises:
        UserError: no such operation, case, pass or variant; the message names the nearest.
    """
    ops = {k.op: [p for p in kernels() if p.op == k.op] for k in kernels()}
    if op not in ops:
        raise UserError(f"no operation is called {op!r}.{nearest(op, ops)}")
    known, make = PROBLEMS[op]
    chosen = [_named(name, known, f"case of {op}") for name in cases]
    chosen = chosen or [case for case in known if case.large]
    if quick and not cases:
        chosen = sorted(chosen, key=lambda case: sum(map(np.prod, make(case).inputs)))[:2]
    by_pass = {k.pass_: k for k in ops[op]}
    wanted = [_named(name, by_pass.values(), f"pass of {op}", "pass_") for name in passes]
    wanted = wanted or ops[op]
    for name in variants:
        _named(name, [v for k in wanted for v in k.variants.values()], f"variant of {op}")
    having = [k for k in wanted if not variants or set(variants) & set(k.variants)]
    return _made(chosen, having, make, batch, seed)


def _made(chosen: Any, wanted: Any, make: Any, batch: int | None, seed: int | None):
    rng = np.random.default_rng(seed)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    for case in chosen:
        case = of_batch(case, batch)
        for kernel in wanted:
            args = make(case).call(kernel.pass_, array)
            if kernel.op == "lstm":
                args = _as_in_a_network(kernel.pass_, args)
            yield Task(kernel, case, args, work_of(kernel, case, args))


def _as_in_a_network(pass_: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return an LSTM's arguments with weights so small that its states do not run into chaos.

    Those of bprop are of a layer without bias, at which the pass does not look; a peer that runs
    its own fprop first has to know it. Of c, only the last step leaves a layer.
    """
    first = 3 if pass_ == "bprop" else 1
    for w in args[first : first + 2]:
        w /= np.sqrt(w.shape[1])
    if pass_ == "fprop":
        return args
    gh, gc, x, w_ih, w_hh, h0, c0, lengths, reverse, *_ = args
    gc[:, :-1] = 0
    (fprop,) = (k for k in kernels() if k.name == "lstm_fprop")
    b = np.zeros(len(w_ih), w_ih.dtype)
    saved = fprop(x, w_ih, w_hh, b, h0, c0, lengths, reverse)
    return gh, gc, x, w_ih, w_hh, h0, c0, lengths, reverse, *saved


def of_batch(case: Any, batch: int | None) -> Any:
    if batch is None:
        return case
    if batch < 1:
        raise UserError(f"--batch {batch}: at least 1")
    for sizes in ("x", "frames"):
        if hasattr(case, sizes):
            return replace(case, **{sizes: (batch, *getattr(case, sizes)[1:])})
    if case.lengths is not None:
        raise UserError(
            f"--batch {batch}: the sequences of {case.name!r} have lengths of their own"
        )
    return replace(case, batch=batch)


def _named(name: str, known: Iterable[Any], what: str, attribute: str = "name") -> Any:
    names = {getattr(item, attribute): item for item in known}
    if name not in names:
        raise UserError(f"no {what} is called {name!r}.{nearest(name, names)} ({', '.join(names)})")
    return names[name]


# ---- what it is to do ----------------------------------------------------------------------------


def work_of(kernel: Kernel, case: Any, args: tuple[Any, ...]) -> Work:
    """Return operations and bytes, each array once.

    Of an LSTM the operations are those of its products; a pooling has none that would matter.
    """
    read = sum(a.nbytes for a in args if isinstance(a, np.ndarray))
    if kernel.pass_ == "flow":
        return flow_work(kernel.op, case)
    shapes, flops = _outputs(kernel, case)
    return Work(flops, read, sum(size * count for size, count in shapes))


def _outputs(kernel: Kernel, case: Any) -> tuple[list[tuple[int, int]], int]:
    """Return (bytes of an element, how many) of each result, and the operations."""
    if kernel.op == "lstm":
        n, length, i, h = case.batch, case.steps, case.inputs, case.hidden
        weights, states = 4 * h * (i + h + 1), 2 * n * h
        products = 2 * n * length * 4 * h * (i + h)
        if kernel.pass_ == "fprop":
            return [(4, n * length * 6 * h)], products
        return [(4, n * length * i + weights + states)], 2 * products
    g = case.geometry
    if isinstance(g, ConvGeometry):
        if hasattr(case, "pool") and kernel.pass_ == "wgrad":
            weights = int(np.prod(g.w))
            return [(4, weights)], 2 * weights * int(np.prod(case.pool.y)) // g.w[0]
        if hasattr(case, "pool"):
            outputs, offset = int(np.prod(case.pool.y)), taps.argmax_dtype(case.pool)
            return [(4, outputs), (offset.itemsize, outputs)], 2 * g.macs
        letter = {"fprop": "y", "dgrad": "x", "wgrad": "w"}[kernel.pass_]
        return [(4, int(np.prod(getattr(g, letter))))], 2 * g.macs
    outputs, inputs = int(np.prod(g.y)), int(np.prod(g.x))
    results = [(4, inputs if kernel.pass_ == "dgrad" else outputs)]
    if kernel.name == "max_pool3d_fprop":
        results.append((taps.argmax_dtype(g).itemsize, outputs))
    return results, 0


# ---- what must come out --------------------------------------------------------------------------


def _exact(a: Any, rounds: Callable[[np.ndarray], np.ndarray] | None) -> Any:
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        return a
    return (rounds(a) if rounds else a).astype(np.float64)


def _by_random_sums(pass_: str, args: tuple[Any, ...], geometry: ConvGeometry) -> Expectation:
    a, b, _ = args
    letters = {"fprop": "xwy", "dgrad": "ywx", "wgrad": "yxw"}[pass_]
    shape = getattr(geometry, letters[2])
    a, b = (
        taps.planes(v, geometry) if which == "x" else v
        for v, which in zip((a, b), letters, strict=False)
    )
    rng = np.random.default_rng()
    along = _SUMMED[pass_]
    signs = [rng.choice((-1.0, 1.0), v.shape[axis]) for v, axis in zip((a, b), along, strict=True)]
    a, b = (
        np.expand_dims(np.tensordot(s, v, ((0,), (axis,))), axis)
        for s, v, axis in zip(signs, (a, b), along, strict=True)
    )
    function = {"fprop": taps.conv_fprop, "dgrad": taps.conv_dgrad, "wgrad": taps.conv_wgrad}
    want = function[pass_](a, b, geometry)[0, 0]

    def seen(results: Arrays) -> Arrays:
        y = taps.planes(results[0], geometry) if letters[2] == "x" else results[0]
        total = np.zeros(want.shape)
        for sign, part in zip(signs[0], y, strict=True):  # one at a time: float64 is large
            total += sign * np.tensordot(signs[1], part.astype(np.float64), 1)
        return (total,)

    how = "sums of all elements with random signs, by filter taps in float64"
    return Expectation(how, ((shape, FLOAT),), (want,), seen)


def _by_value(args: tuple[Any, ...]) -> Expectation:
    """Expect of a fused max pooling y, and an argmax at which y stands.

    Of two values that are nearly the same, rounding may make either the larger one.
    """
    x, w, bias, geometry, pool = args
    before = np.maximum(taps.conv_fprop(x, w, geometry) + bias.reshape(-1, 1, 1, 1), 0)
    y, argmax = taps.max_fprop(before, pool)
    return Expectation(
        "every element by filter taps in float64",
        ((y.shape, FLOAT), (y.shape, argmax.dtype)),
        (y, y),
        lambda results: (
            results[0],
            *(taps.max_gather(before, argmax, pool) for argmax in results[1:]),
        ),
    )


def _conv_pool(x, w, bias, geometry, pool):
    y = taps.conv_fprop(x, w, geometry) + bias.reshape(-1, 1, 1, 1)
    return taps.max_fprop(np.maximum(y, y.dtype.type(0)), pool)


def _conv_pool_wgrad(gy, argmax, x, geometry, pool):
    return taps.conv_wgrad(taps.max_dgrad(gy, argmax, pool), x, geometry)


def _normalised(x, mean, std, dtype):
    """Return (x / 255 - mean) / std of bytes `N C ...`."""
    offset, scale = (_beside(np.asarray(v, dtype), x) for v in (mean, std))
    return (x.astype(dtype) / 255 - offset) / scale


def _beside(of_channel, y):
    """Return numbers of the channels so that they stand beside `N C ...`."""
    return of_channel.reshape(-1, *[1] * (y.ndim - 2))


def _uint8_fprop(x, w, mean, std, geometry, bias, relu):
    y = taps.conv_fprop(_normalised(x, mean, std, w.dtype), w, geometry)
    y += _beside(bias, y)
    return np.maximum(y, y.dtype.type(0)) if relu else y


def _uint8_wgrad(gy, x, mean, std, geometry):
    return taps.conv_wgrad(gy, _normalised(x, mean, std, gy.dtype), geometry)


def _conv2d_dgrad(gy, w, geometry):
    return taps.conv_dgrad(gy, w, geometry).reshape(geometry.x)


BY_TAPS: dict[str, Callable[..., Any]] = {
    "conv3d_relu_max_pool_fprop": _conv_pool,
    "conv3d_relu_max_pool_wgrad": _conv_pool_wgrad,
    "conv3d_fprop": taps.conv_fprop,
    "conv3d_dgrad": taps.conv_dgrad,
    "conv3d_wgrad": taps.conv_wgrad,
    "conv2d_fprop": taps.conv_fprop,
    "conv2d_dgrad": _conv2d_dgrad,
    "conv2d_wgrad": taps.conv_wgrad,
    "conv3d_uint8_fprop": _uint8_fprop,
    "conv3d_uint8_wgrad": _uint8_wgrad,
    "conv2d_uint8_fprop": _uint8_fprop,
    "conv2d_uint8_wgrad": _uint8_wgrad,
    "max_pool3d_fprop": taps.max_fprop,
    "max_pool3d_dgrad": taps.max_dgrad,
    "max_pool3d_gather": taps.max_gather,
    "avg_pool3d_fprop": taps.avg_fprop,
    "avg_pool3d_dgrad": taps.avg_dgrad,
}
