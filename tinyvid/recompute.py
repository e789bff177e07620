"""Less memory for more time: activations that are computed again when a gradient needs them.

Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", 2016, section 4.1.
Of a part of a network only its inputs and its result are kept. The reverse pass runs the part a
second time just before it goes back through it. A network of n such parts holds what lies between
them and the activations of one part, for the price of a second forward pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from tinyvid.backward import grad
from tinyvid.errors import UserError
from tinyvid.ops.fused import record_jointly
from tinyvid.random import drawing_from, generator
from tinyvid.tensor import Tensor, _creation_order, _wrap, enable_grad, is_grad_enabled


class _Run(threading.local):
    again = False


_run = _Run()


def is_recomputing() -> bool:
    """Return whether what runs now has run before.

    What a layer remembers of a pass, as batch normalisation does the running statistics, it
    remembers of the first.
    """
    return _run.again


def recompute(fn: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Return `fn(*inputs)`, and keep nothing in between: the reverse pass runs `fn` again.

    In PyTorch it is `torch.utils.checkpoint.checkpoint`. Gradients, of any order, flow to the
    inputs and to the parameters that `fn` uses. The second run has the random numbers of the
    first, so that dropout drops the same units, and its variants of kernels; batch normalisation
    counts the batch once. Calls may be nested.

    Args:
        fn: a module or a function that returns one tensor, and does the same when it runs again.
        inputs: its arguments. A result of other operations must be one of them, rather than be
            something that the function knows of.

    Raises:
        UserError: `fn` returns anything but a tensor, or uses the result of an operation outside
            of it that it is not given. In the reverse pass: a tensor that it used has new values,
            or its result has changed its shape or no longer depends on the same tensors.
    """
    if not is_grad_enabled():
        return fn(*inputs)
    draws, context = generator().bit_generator.state, copy_context()
    tensors, y = _used(fn, inputs)
    if not tensors:
        return y

    def gradients(g: Tensor) -> dict[int, Tensor]:
        with enable_grad(), drawing_from(draws):
            names, again = context.copy().run(_run_again, fn, inputs)
        if (again.shape, again.dtype) != (g.shape, g.dtype):
            raise UserError(
                f"recompute: {_called(fn)} returned {g.shape}, {g.dtype} when it first ran, and "
                f"{again.shape}, {again.dtype} when it ran again"
            )
        recorded = is_grad_enabled()
        through = [t if place is None else names[place] for t, place in tensors]
        found = grad(again, through, g, create_graph=recorded)
        if recorded:
            # Only now do the names stand for the inputs. A parameter that an input depends on too
            # would have got that share of its gradient here, and again from the input.
            for name, x in zip(names, inputs, strict=True):
                if name is not x:
                    name._edges = ((x, lambda g, y: g),)
        return dict(enumerate(found))

    read = [x for x in inputs if isinstance(x, Tensor)]
    read += [t for t, place in tensors if place is None]
    return record_jointly(y._array, [t for t, _ in tensors], gradients, saved=read)


def _run_again(fn: Callable[..., Tensor], inputs: Sequence[Any]) -> tuple[list[Any], Tensor]:
    before, _run.again = _run.again, True
    try:
        return _run_on_names(fn, inputs)
    finally:
        _run.again = before


def _run_on_names(fn: Callable[..., Tensor], inputs: Sequence[Any]) -> tuple[list[Any], Tensor]:
    """Run `fn` on its inputs under other names, at which its graph ends; return both."""
    names = [_name(x) if isinstance(x, Tensor) and x.requires_grad else x for x in inputs]
    y = fn(*names)
    if not isinstance(y, Tensor):
        raise UserError(
            f"recompute: {_called(fn)} must return one tensor, not a {type(y).__name__}"
        )
    return names, y


def _name(x: Tensor) -> Tensor:
    name = _wrap(x._array)
    name.requires_grad = True
    name._order = _creation_order()  # later than what it stands for, should it get edges
    return name


def _used(
    fn: Callable[..., Tensor], inputs: Sequence[Any]
) -> tuple[list[tuple[Tensor, int | None]], Tensor]:
    """Run `fn`; return the tensors that its result depends on, and the result without its graph.

    Each tensor comes with its place among the inputs, or None if it is not one of them.
    """
    began = _creation_order()
    names, y = _run_on_names(fn, inputs)
    places = {id(name): i for i, name in enumerate(names) if name is not inputs[i]}
    tensors: list[tuple[Tensor, int | None]] = []
    found = {y} if y.requires_grad else set()
    stack = list(found)
    for t in stack:
        if id(t) in places:
            tensors.append((inputs[places[id(t)]], places[id(t)]))
        elif not t._edges:
            tensors.append((t, None))
        elif t._order < began:
            raise UserError(
                f"recompute: {_called(fn)} uses the result of an operation, of shape {t.shape}, "
                "that is not among its inputs: pass it as one"
            )
        for x, _ in t._edges or ():
            if x.requires_grad and x not in found:
                found.add(x)
                stack.append(x)
    return tensors, y.detach() if tensors else y


def _called(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
