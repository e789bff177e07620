"""The gradient checker: what the rules say against what the function does.

For y = f(x) with Jacobian J = dy/dx, a backward pass gives J'v for a cotangent v, and
differences of f give J u for a direction u. Two modes compare them:

- *full*: every element of J; u and v run through the elements one at a time.
- *random*: the number <v, J u> = <J'v, u> for random u and v, however many elements there are.
  A fault in one element changes the number; halving u, then v, again and again finds it.
  Only what averages out, such as roundings, is seen better in full mode.
  (HIPS autograd, Chainer and PyTorch's fast mode check so too.)

`tinyvid.checking.differences` tells how derivatives are taken from values, and what a kink is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvid.backward import grad
from tinyvid.checking.compare import Check
from tinyvid.checking.pullback import ArrayFunction, RuleError, float_tensors
from tinyvid.checking.result import Failure, GradcheckResult, Kink
from tinyvid.errors import UserError, nearest
from tinyvid.tensor import Tensor, record

__all__ = [
    "Failure",
    "GradcheckError",
    "GradcheckResult",
    "Kink",
    "KinkWarning",
    "gradcheck",
    "gradgradcheck",
]

MODES = ("auto", "full", "random")
KINKS = ("report", "error", "ignore")
FULL_LIMIT = 256  # `auto` takes full mode up to so many elements of inputs and outputs together


class GradcheckError(AssertionError):
    """A gradient is wrong; the message says which element, and the two values."""


class KinkWarning(UserWarning):
    """Some derivatives were not checked, because the function has none there."""


def gradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    *,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    mode: str = "auto",
    seed: int = 0,
    nondet_tol: float = 0.0,
    raise_exception: bool = True,
    return_jacobians: bool = False,
    check_noncontiguous: bool = True,
    kinks: str = "report",
) -> GradcheckResult:
    """Check the gradients of `fn` against differences of it.

    Also checked: the backward pass is linear in the cotangent; inputs and cotangents of any
    strides give the same; two runs are equal; no gradient is NaN. Float32 gradients are
    compared with differences taken in float64, if `fn` gives float64 for float64.

    Args:
        fn: called as `fn(*inputs)`; returns a tensor or nested tuples and lists of them.
            Outputs that are not floating-point are ignored.
        inputs: a tensor or a sequence of anything. Checked are the tensors that require a
            gradient; they are given other values meanwhile, so `fn` may also reach
            them by another way than its arguments, as a module reaches its parameters.
        eps: the step of the differences, times max(1, |x|) of the element.
        rtol, atol: |a - n| <= rtol max(|a|, |n|) + atol, and the rounding of the differences,
            passes. By default as the coarsest dtype involved allows; the default of atol is a
            share of the largest derivative.
        mode: "full", "random", or "auto": full up to 256 elements of inputs and outputs.
        seed: of the random directions and cotangents.
        nondet_tol: how far two runs may differ.
        raise_exception: raise on failure, rather than return a result that is false.
        return_jacobians: keep both Jacobians in the result; this takes full mode.
        check_noncontiguous: also take transposed, strided, reversed and broadcast arrays.
        kinks: "report" them with a warning, make them an "error", or "ignore": note them in the
            result only. A check that meets nothing but kinks always fails.

    Raises:
        GradcheckError: a gradient is wrong.
        UserError: nothing requires a gradient, a dtype is complex, an output is not finite.
    """
    if mode not in MODES:
        raise UserError(f"mode={mode!r} must be one of {', '.join(MODES)}.{nearest(mode, MODES)}")
    if kinks not in KINKS:
        raise UserError(f"kinks={kinks!r} must be one of {', '.join(KINKS)}.")
    if return_jacobians and mode == "random":
        raise UserError("return_jacobians=True needs mode='full'")
    function = ArrayFunction(fn, inputs)
    small = sum(a.size for a in [*function.arrays, *function.results]) <= FULL_LIMIT
    full = mode == "full" or (mode == "auto" and (small or return_jacobians))
    check = Check(function, "full" if full else "random", eps, rtol, atol, seed)
    try:
        with np.errstate(all="ignore"):  # NaN and infinity are looked for, not warned of
            check.determinism(nondet_tol)
            (check.full if full else check.random)()
            if check_noncontiguous:
                check.layouts()
    except RuleError as error:
        check.fail("rule", f"the backward pass failed: {error}")
    result = check.result
    if return_jacobians:
        result.analytical, result.numerical = check.analytical, check.numerical
    if kinks == "error":
        result.failures += [
            Failure("kink", str(k), k.input, k.element, k.output, k.output_element)
            for k in result.kinks
        ]
    if not result.checked and not result.failures:
        check.fail("nothing", "nothing was checked: there are no elements, or nothing but kinks")
    if not result and raise_exception:
        raise GradcheckError(f"gradients of {getattr(fn, '__name__', fn)} {result}")
    if result and result.kinks and kinks == "report":
        count = len(result.kinks)
        message = f"{count} derivatives do not exist and were not checked. {result.kinks[0]}"
        warnings.warn(message, KinkWarning, stacklevel=2)
    return result


def gradgradcheck(
    fn: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *, seed: int = 0, **options: Any
) -> GradcheckResult:
    """Check the second derivatives of `fn`: `gradcheck` of its gradients.

    The function under check maps the inputs and `grad_outputs` to the gradients that
    `tinyvid.grad(..., create_graph=True)` gives.

    Args:
        fn, inputs: as in `gradcheck`.
        grad_outputs: a cotangent for each floating-point output; random ones by default.
        seed, options: as in `gradcheck`. In the result, the cotangents are the inputs that follow
            the last of `inputs`.
    """
    function = ArrayFunction(fn, inputs)
    if grad_outputs is None:
        rng = np.random.default_rng(seed)
        grad_outputs = [rng.standard_normal(y.shape).astype(y.dtype) for y in function.results]
    elif isinstance(grad_outputs, (Tensor, np.ndarray)):
        grad_outputs = [grad_outputs]
    cotangents = [Tensor(g, requires_grad=True) for g in grad_outputs]
    count = len(function.inputs)

    def gradients(*args: Any) -> list[Tensor]:
        outs = zip(float_tensors(fn(*args[:count])), args[count:], strict=True)
        pairs = [(y, g) for y, g in outs if y.requires_grad]
        ys, gs = [y for y, _ in pairs], [g for _, g in pairs]
        grads = grad(ys, function.tensors, gs, create_graph=True, allow_unused=True)
        zeros = (record(np.zeros(x.shape, x.dtype)) for x in function.tensors)
        return [zero if g is None else g for g, zero in zip(grads, zeros, strict=True)]

    gradients.__name__ = f"the gradient of {getattr(fn, '__name__', fn)}"
    return gradcheck(gradients, [*function.inputs, *cotangents], seed=seed, **options)
