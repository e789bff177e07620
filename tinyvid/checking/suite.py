"""The suite of gradient checks: every operation, and every pass and variant of every kernel.

A variant of a kernel is checked twice: against the reference in float64, array for array, and, in
the differentiable operation that uses it, by first and second derivatives, with this
one pass run by the variant and the other passes by their references; on `cuda`, where no
reference runs, by the variants that are preferred there. The operations
that no kernel computes are checked by derivatives alone; their variant is called `numpy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from tinyvid import kernels, ops
from tinyvid.checking.examples import NOT_DIFFERENTIABLE, Example, examples
from tinyvid.device import check_device, to_device
from tinyvid.errors import UserError, nearest
from tinyvid.gradcheck import gradcheck, gradgradcheck
from tinyvid.kernels import Kernel, Variant
from tinyvid.kernels.conv2d.cases import CASES as CONV2D
from tinyvid.kernels.conv2d.cases import UINT8_CASES as CONV2D_UINT8
from tinyvid.kernels.conv3d.cases import CASES as CONV3D
from tinyvid.kernels.conv3d.cases import UINT8_CASES as CONV3D_UINT8
from tinyvid.kernels.conv3d_relu_max_pool.cases import CASES as CONV_POOL
from tinyvid.kernels.lstm.cases import CASES as LSTM
from tinyvid.kernels.pool3d.cases import CASES as POOL3D
from tinyvid.kernels.registry import TARGETS, why_not_there
from tinyvid.tensor import Tensor

DTYPES = ("float32", "float64")
# How far a variant may be from the reference in float64, relative to the largest element; and if it
# rounds its operands, such as to TF32, from what the reference makes of the rounded ones.
AGREEMENT = {"float32": 3e-5, "float64": 1e-12}
ROUNDED_AGREEMENT = 1e-6
# How far a sum of n products of unit variance may be off on CUDA in float32, in units of sqrt(n).
PER_ROOT = 2e-6
MOST_ELEMENTS = 400  # cases with larger inputs are compared with the reference only
# Of those with small inputs, so many, spread over the list, are checked by derivatives.
MOST_CASES = 5
QUICK = 2  # cases of a kernel, and examples of an operation, in a quick run


@dataclass
class Row:
    """A line of the table.

    Attributes:
        op, pass_, variant, dtype: what was checked; pass_ is empty for what is no kernel.
        cases: how many cases were checked.
        agreement: largest difference from the reference, relative to the largest element of
            each array; None for what is the reference, and for what has none.
        per_root: largest difference in sums of n products of unit variance, divided by sqrt(n);
            None for what is no such sum, for float64, and for rounded operands.
        gradient: largest relative error of a first or second derivative; None where not checked.
        failures: what is wrong, a message each.
    """

    op: str
    pass_: str
    variant: str
    dtype: str
    cases: int = 0
    agreement: float | None = None
    per_root: float | None = None
    gradient: float | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(frozen=True)
class Job:
    """A row that can be run."""

    op: str
    pass_: str
    variant: str
    dtype: str
    fill: Callable[[Row], None]

    def run(self) -> Row:
        row = Row(self.op, self.pass_, self.variant, self.dtype)
        try:
            self.fill(row)
        except Exception as error:  # a fault of one row shall not hide the others
            row.failures.append(f"{type(error).__name__}: {error}")
        if not row.cases and not row.failures:
            row.failures.append("no case fits, so nothing was checked")
        return row


def jobs(
    op: str | None = None,
    variant: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    quick: bool = False,
) -> list[Job]:
    """Return the rows of the suite, to be run one after the other.

    Args:
        op: an operation or a kernel (`conv3d`, `conv3d_dgrad`, `softmax`); all by default.
        variant: `cpu/im2col`, `reference`, `numpy`, or a target such as `cpu`; all by default.
        device: where the kernels run.
        dtype: float32 or float64; both by default.
        quick: take the first few cases only.

    Raises:
        UserError: no such operation, variant, device or dtype; the message names the nearest.
    """
    check_device(device)
    if dtype is not None and dtype not in DTYPES:
        hint = nearest(dtype, DTYPES)
        raise UserError(f"dtype {dtype!r} must be one of {', '.join(DTYPES)}.{hint}")
    every = list(_jobs(DTYPES if dtype is None else (dtype,), quick, device))
    named = [j for j in every if op in (None, j.op, f"{j.op}_{j.pass_}")]
    if not named:
        known = {j.op for j in every} | {f"{j.op}_{j.pass_}" for j in every if j.pass_}
        raise UserError(f"no operation is called {op!r}.{nearest(str(op), sorted(known))}")
    wanted = [j for j in named if variant in (None, j.variant, j.variant.partition("/")[0])]
    if not wanted:
        target = str(variant).partition("/")[0]
        why = why_not_there(target, device) if target == "numba" else None
        if why is not None:
            raise UserError(f"variant {variant!r} {why}")
        variants = list(dict.fromkeys(j.variant for j in named))
        raise UserError(
            f"there is no variant {variant!r} of {op or 'any operation'}; there is "
            f"{', '.join(variants)}.{nearest(str(variant), variants)}"
        )
    return wanted


def _jobs(dtypes: tuple[str, ...], quick: bool, device: str) -> Iterator[Job]:
    done: dict[tuple, Row] = {}
    for kernel in kernels.kernels():
        there = [v for v in kernel.variants.values() if why_not_there(v.target, device) is None]
        if not there:
            lacking = partial(_lacks, device=device)
            yield from (Job(kernel.op, kernel.pass_, device, dtype, lacking) for dtype in dtypes)
        for variant in there:
            check = partial(
                _check_variant,
                kernel=kernel,
                variant=variant,
                quick=quick,
                device=device,
                done=done,
            )
            for dtype in dtypes:
                if variant.dtypes is None or dtype in variant.dtypes:
                    yield Job(kernel.op, kernel.pass_, variant.name, dtype, check)
    for name, calls in examples().items():
        for dtype in dtypes:
            chosen = [_on(device, e) for e in calls[: QUICK if quick else None]]
            yield Job(name, "", "numpy", dtype, partial(_check_examples, calls=chosen))


def _lacks(row: Row, device: str) -> None:
    row.failures.append(f"{row.op}_{row.pass_} has no kernel for device {device!r}")


def _on(device: str, example: Example) -> Example:
    return replace(example, fn=_moved(device, example.fn))


def _moved(device: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function run on a device: its arguments are moved there, its results back."""

    def there(*inputs: Tensor) -> Any:
        return back(fn(*(x.to(device) for x in inputs)))

    def back(result: Any) -> Any:
        if isinstance(result, Tensor):
            return result.to("cpu")
        return type(result)(back(r) for r in result)

    return fn if device == "cpu" else there


def _check_examples(row: Row, calls: list) -> None:
    for number, example in enumerate(calls):
        mode = "auto" if len(example.arrays) < 6 else "random"  # a full LSTM takes long
        _check_gradients(row, example.fn, example.inputs(row.dtype), f"example {number}", mode)
        row.cases += 1


def _check_gradients(row: Row, fn: Callable[..., Any], inputs: list, name: str, mode: str) -> None:
    """Check first and second derivatives, and note the result in the row."""
    for order, check in (("gradient", gradcheck), ("second derivative", gradgradcheck)):
        first = check is gradcheck
        result = check(
            fn,
            inputs,
            mode=mode,
            raise_exception=False,
            kinks="error",
            check_noncontiguous=first,
        )
        row.gradient = max(row.gradient or 0.0, result.error)
        if not result:
            row.failures.append(f"{name}, {order} {result}")


# Kernels


@dataclass(frozen=True)
class Problem:
    """How to call a kernel, and the operation that uses it, on one of its cases.

    Attributes:
        name: of the case.
        call: gives the arguments of a pass, from (pass, random array of a shape).
        fn, inputs: the differentiable operation, and the shapes of its arguments.
        terms: gives, from a pass, the most products that an element of its result sums up; None
            where results are no sums of products of unit variance.
    """

    name: str
    call: Callable[[str, Callable[..., np.ndarray]], tuple]
    fn: Callable[..., Any]
    inputs: tuple[tuple[int, ...], ...]
    terms: Callable[[str], int] | None = None

    @property
    def elements(self) -> int:
        """The elements of its inputs."""
        return sum(int(np.prod(shape)) for shape in self.inputs)

    @property
    def small(self) -> bool:
        """Whether its gradients can be checked in a moment."""
        return self.elements <= MOST_ELEMENTS


def _convolution(case: Any, op: Callable[..., Tensor]) -> Problem:
    geometry = case.geometry

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        letters = {"fprop": "xw", "dgrad": "yw", "wgrad": "yx"}[pass_]
        return (*(array(*getattr(geometry, letter)) for letter in letters), geometry)

    def fn(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return op(x, w, b, case.stride, case.padding, case.dilation, case.groups)

    return Problem(case.name, call, fn, (case.x, case.w, case.w[:1]), partial(_terms, geometry))


def _terms(geometry: Any, pass_: str) -> int:
    """Return the most products that an element of a convolution's result sums up."""
    K, *of_k = geometry.w
    of_cell = K // geometry.groups * math.prod(of_k[1:])
    cells = geometry.y[0] * math.prod(geometry.y[2:])
    return {"fprop": math.prod(of_k), "dgrad": of_cell, "wgrad": cells}[pass_]


def _first_layer(case: Any, op: Callable[..., Tensor]) -> Problem:
    geometry, C = case.geometry, case.x[1]
    clip = np.random.default_rng(1).integers(0, 256, case.x, dtype=np.uint8)
    # Bytes are uniform: with these they are normalised to a variance of about 1.
    mean, std = (0.45, 0.5, 0.55, 0.5)[:C], (0.28, 0.29, 0.3, 0.31)[:C]

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        if pass_ == "wgrad":
            return array(*geometry.y), clip, mean, std, geometry
        return clip, array(*geometry.w), mean, std, geometry, array(case.w[0]), True

    def fn(w: Tensor, b: Tensor) -> Tensor:
        x = to_device(clip, w.device)
        sizes = case.stride, case.padding, case.dilation, case.groups
        return op(x, w, b, mean, std, *sizes)

    return Problem(case.name, call, fn, (case.w, case.w[:1]), partial(_terms, geometry))


def _conv_pool(case: Any) -> Problem:
    sizes = case.window, case.stride, case.padding, case.dilation, case.groups

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        return array(*case.x), array(*case.w), array(*case.w[:1]), case.geometry, case.pool

    def fn(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return ops.conv3d_relu_max_pool(x, w, b, *sizes)

    return Problem(case.name, call, fn, (case.x, case.w, case.w[:1]))


def _max_pool(case: Any) -> Problem:
    geometry = case.geometry

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        x = array(*geometry.x)
        if pass_ == "fprop":
            return x, geometry
        _, argmax = _reference("max_pool3d_fprop")(x, geometry)
        return (array(*geometry.y) if pass_ == "dgrad" else x), argmax, geometry

    def fn(x: Tensor) -> Any:
        sizes = case.window, case.stride, case.padding, case.dilation, case.ceil_mode
        return ops.max_pool3d(x, *sizes)

    return Problem(case.name, call, fn, (case.x,))


def _avg_pool(case: Any) -> Problem:
    geometry, divisor = case.geometry, (case.count_include_pad, case.divisor_override)

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        return array(*(geometry.x if pass_ == "fprop" else geometry.y)), geometry, *divisor

    def fn(x: Tensor) -> Tensor:
        return ops.avg_pool3d(x, case.window, case.stride, case.padding, case.ceil_mode, *divisor)

    return Problem(case.name, call, fn, (case.x,))


def _lstm(case: Any) -> Problem:
    n, length, i, h = case.batch, case.steps, case.inputs, case.hidden
    lengths = None if case.lengths is None else np.array(case.lengths, np.int64)
    ends = lengths, case.reverse

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        x, w_ih, w_hh, b = array(n, length, i), array(4 * h, i), array(4 * h, h), array(4 * h)
        h0, c0 = array(n, h), array(n, h)
        if pass_ == "fprop":
            return x, w_ih, w_hh, b, h0, c0, *ends
        gh, gc = array(n, length, h), array(n, length, h)
        saved = _reference("lstm_fprop")(x, w_ih, w_hh, b, h0, c0, *ends)
        return gh, gc, x, w_ih, w_hh, h0, c0, *ends, *saved

    # A backward direction comes with a forward one, here of the same weights.
    directions = 2 if case.reverse else 1

    def fn(x: Tensor, h0: Tensor, c0: Tensor, *weights: Tensor) -> Any:
        return ops.lstm(x, weights * directions, (h0, c0), lengths, bidirectional=case.reverse)

    state = (directions, n, h)
    weights = ((4 * h, i), (4 * h, h), (4 * h,), (4 * h,))
    return Problem(case.name, call, fn, ((n, length, i), state, state, *weights))


# Each operation with kernels: its cases, and how to make a problem of one.
PROBLEMS: dict[str, tuple[list, Callable[[Any], Problem]]] = {
    "conv3d": (CONV3D, lambda case: _convolution(case, ops.conv3d)),
    "conv3d_uint8": (CONV3D_UINT8, lambda case: _first_layer(case, ops.conv3d_uint8)),
    "conv2d": (CONV2D, lambda case: _convolution(case, ops.conv2d)),
    "conv2d_uint8": (CONV2D_UINT8, lambda case: _first_layer(case, ops.conv2d_uint8)),
    "conv3d_relu_max_pool": (CONV_POOL, _conv_pool),
    "max_pool3d": (POOL3D, _max_pool),
    "avg_pool3d": ([c for c in POOL3D if c.dilation == (1, 1, 1)], _avg_pool),
    "lstm": (LSTM, _lstm),
}


def _reference(kernel: str) -> Callable[..., Any]:
    return next(k for k in kernels.kernels() if k.name == kernel).variants["reference"].function


def problems(op: str, quick: bool = False) -> list[Problem]:
    """Return the problems of an operation with kernels, but for the large ones."""
    if op not in PROBLEMS:
        raise UserError(
            f"{op} has kernels but no entry in tinyvid.checking.suite.PROBLEMS: add one"
        )
    cases, make = PROBLEMS[op]
    found = [make(case) for case in cases if not case.large]
    return [p for p in found if p.small][:QUICK] if quick else found


def problems_of(kernel: Kernel, variant: Variant, device: str) -> list[Problem]:
    """Return the problems that a variant is checked on, where it takes them.

    Numba's simulator gets a few small ones: it takes a second for a thousand threads.
    """
    found = problems(kernel.op)
    if _is_simulated(variant, device):
        return _spread(sorted((p for p in found if p.small), key=lambda p: p.elements))
    return found


def _is_simulated(variant: Variant, device: str) -> bool:
    return variant.target == "numba" and device == "emulator"


def _spread(found: list[Problem]) -> list[Problem]:
    return found[:: -(-len(found) // MOST_CASES) or 1]


def _check_variant(
    row: Row, kernel: Kernel, variant: Variant, quick: bool, device: str, done: dict
) -> None:
    fitting: list[Problem] = []
    for problem in problems_of(kernel, variant, device):
        if quick and (len(fitting) == QUICK or not problem.small):
            continue
        args = {d: problem.call(kernel.pass_, _random(d)) for d in (row.dtype, "float64")}
        if variant.unfit is None or variant.unfit(*args[row.dtype]) is None:
            fitting.append(problem)
            if (variant.name, row.dtype) != ("reference", "float64"):
                _compare(row, kernel, variant, problem, args, device)
    row.cases = len(fitting)
    # With every pass run by its reference, the check is the same for each of them.
    others = {kernel.op: "reference"} if "reference" in TARGETS[device] else {}
    if row.dtype != "float64":
        return
    key = (kernel.op, row.dtype, *(() if variant.name == "reference" else (kernel, variant)))
    if key not in done:
        done[key] = Row(row.op, row.pass_, row.variant, row.dtype)
        with kernels.use(**others), kernels.use(**{kernel.name: variant.name}):
            small = [p for p in fitting if p.small]
            if not small:
                done[key].failures.append("no case is small enough to check derivatives")
            for problem in small[:1] if _is_simulated(variant, device) else _spread(small):
                inputs = [
                    Tensor(_random(row.dtype)(*shape), requires_grad=True)
                    for shape in problem.inputs
                ]
                fn = _moved(device, problem.fn)
                _check_gradients(done[key], fn, inputs, problem.name, "random")
    row.gradient = done[key].gradient
    row.failures += done[key].failures


def _random(dtype: str) -> Callable[..., np.ndarray]:
    """Return a function from shapes to arrays: the same numbers, in float32 and float64."""
    rng = np.random.default_rng(0)
    return lambda *shape: rng.standard_normal(shape).astype(np.float32).astype(dtype)


def _compare(
    row: Row, kernel: Kernel, variant: Variant, problem: Problem, args: dict, device: str
) -> None:
    """Compare a variant with the reference in float64, of which integers must be equal.

    What a variant rounds on its way in, such as to TF32, is rounded for the reference too.
    """
    name, rounded = problem.name, variant.rounds or (lambda a: a)
    most = AGREEMENT[row.dtype] if variant.rounds is None else ROUNDED_AGREEMENT
    there, exact = (
        [f(a) if isinstance(a, np.ndarray) else a for a in args[d]]
        for d, f in ((row.dtype, lambda a: to_device(a, device)), ("float64", rounded))
    )
    got = variant.run(*there, device=device)
    want = kernel.variants["reference"].function(*exact)
    got, want = (r if isinstance(r, tuple) else (r,) for r in (got, want))
    got = tuple(to_device(a, "cpu") for a in got)
    for place, (a, b) in enumerate(zip(got, want, strict=True)):
        dtype = np.dtype(row.dtype) if b.dtype.kind == "f" else b.dtype
        if a.shape != b.shape or a.dtype != dtype:
            row.failures.append(
                f"{name}, result {place}: {a.dtype} of shape {a.shape}, expected {dtype} {b.shape}"
            )
            continue
        largest = float(np.abs(b).max(initial=0)) or 1.0
        difference = np.abs(a.astype(np.float64) - b)
        difference[np.isnan(difference)] = np.inf
        error = float(difference.max(initial=0)) / largest
        row.agreement = max(row.agreement or 0.0, error)
        within = error <= (most if b.dtype.kind == "f" else 0)
        if problem.terms and variant.rounds is None and row.dtype == "float32":
            per_root = error * largest / math.sqrt(problem.terms(kernel.pass_))
            row.per_root = max(row.per_root or 0.0, per_root)
            within &= per_root <= PER_ROOT or variant.target != "cuda"
        if not within:
            at = tuple(int(n) for n in np.unravel_index(int(difference.argmax()), b.shape))
            row.failures.append(
                f"{name}, result {place} at {list(at)}: {a[at]:.8g}, the reference has {b[at]:.8g}"
            )


def missing() -> list[str]:
    """Return the operations of `tinyvid.ops` that the suite does not check."""
    checked = {*examples(), *PROBLEMS, *NOT_DIFFERENTIABLE}
    return [name for name in ops.__all__ if name not in checked]
