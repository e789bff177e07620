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
from tinyvid.checking.problems import PROBLEMS, QUICK, Problem, problems
from tinyvid.device import check_device, to_device
from tinyvid.errors import UserError, nearest
from tinyvid.gradcheck import gradcheck, gradgradcheck
from tinyvid.kernels import Kernel, Variant
from tinyvid.kernels.registry import TARGETS, why_not_there
from tinyvid.tensor import Tensor

DTYPES = ("float32", "float64")
# How far a variant may be from the reference in float64, relative to the largest element; and if it
# rounds its operands, such as to TF32, from what the reference makes of the rounded ones.
AGREEMENT = {"float32": 3e-5, "float64": 1e-12}
ROUNDED_AGREEMENT = 1e-6
# How far a sum of n products of unit variance may be off on CUDA in float32, in units of sqrt(n).
PER_ROOT = 2e-6
# Of the cases with small inputs, so many, spread over the list, are checked by derivatives.
MOST_CASES = 5


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
        args = {d: problem.arguments(kernel.pass_, _random(d)) for d in (row.dtype, "float64")}
        if variant.unfit is None or variant.unfit(*args[row.dtype]) is None:
            fitting.append(problem)
            if (variant.name, row.dtype) != ("reference", "float64"):
                _compare(row, kernel, variant, problem, args, device)
    row.cases = len(fitting)
    # With every pass run by its reference, the check is the same for each of them.
    others = {kernel.op: "reference"} if "reference" in TARGETS[device] else {}
    if row.dtype != "float64" or not any(problem.fn for problem in fitting):
        return
    key = (kernel.op, row.dtype, *(() if variant.name == "reference" else (kernel, variant)))
    if key not in done:
        done[key] = Row(row.op, row.pass_, row.variant, row.dtype)
        with kernels.use(**others), kernels.use(**{kernel.name: variant.name}):
            small = [p for p in fitting if p.small and p.fn]
            if not small:
                done[key].failures.append("no case is small enough to check derivatives")
            for problem in small[:1] if _is_simulated(variant, device) else _spread(small):
                inputs = [
                    Tensor(_random(row.dtype)(*shape), requires_grad=True)
                    for shape in problem.inputs
                ]
                assert problem.fn is not None
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
