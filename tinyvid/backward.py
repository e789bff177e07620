"""The reverse pass: from a result back to what it depends on, one rule after the other.

Every tensor is visited once, the latest first: by then all that depends on it has handed in its
share of the gradient. Its rules (see `tinyvid.tensor`) hand shares on to its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from tinyvid.device import on_device_of
from tinyvid.errors import UserError
from tinyvid.tensor import Tensor, _wrap, grad_mode


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> Any:
    """Return the gradients of `outputs` with respect to `inputs`, leaving every `.grad` alone.

    Args:
        outputs, inputs: tensors, one or several.
        grad_outputs: the gradient with respect to each output; None for outputs of one
            element, where it is 1.
        create_graph: record the reverse pass, so that it can be differentiated again.
        retain_graph: keep the graph for a further pass; by default only with `create_graph`.
        allow_unused: give None for an input that no output depends on, instead of an error.

    Returns:
        A gradient of the input's shape; a tuple of them where `inputs` is a sequence.
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not ins:
        return ()
    one = not isinstance(grad_outputs, (list, tuple))  # NumPy gives scalars for 0-d arrays
    cotangents = [grad_outputs] * len(outs) if one else list(grad_outputs)
    if len(cotangents) != len(outs) or (grad_outputs is not None and one and len(outs) > 1):
        raise UserError(f"grad_outputs: give one for each of the {len(outs)} outputs")
    for i, x in enumerate(ins):
        if not x.requires_grad:
            raise UserError(f"inputs[{i}] of shape {x.shape} does not require a gradient")
    found = dict(backpropagate(outs, cotangents, ins, retain_graph, create_graph))
    if not allow_unused and len(missing := [i for i, x in enumerate(ins) if x not in found]):
        raise UserError(f"no output depends on inputs {missing}; allow_unused=True gives None")
    grads = tuple(found.get(x) for x in ins)
    return grads[0] if isinstance(inputs, Tensor) else grads


def backpropagate(
    outputs: list[Tensor],
    cotangents: Iterable[Any],
    inputs: list[Tensor] | None,
    retain_graph: bool | None,
    create_graph: bool,
) -> list[tuple[Tensor, Tensor]]:
    """Return (input, gradient) for each input reached; `inputs=None` means every leaf."""
    retain = create_graph if retain_graph is None else retain_graph
    results = []
    with grad_mode(create_graph):
        # Gradients are tensors where they are recorded, and bare arrays where they are not.
        # Tensors as keys are compared by identity: their hashes differ.
        grads: dict[Tensor, Any] = {}
        summed: set[Tensor] = set()  # those whose gradient is a sum that was made here
        for y, cotangent in zip(outputs, cotangents, strict=True):
            start = _cotangent(y, cotangent)
            g: Any = start if create_graph else start._array
            grads[y] = grads[y] + g if y in grads else g
        wanted = set(inputs or ())
        nodes = _sorted_graph(outputs)
        relevant = None if inputs is None else _leading_to(inputs, nodes)
        while nodes:  # the latest first; popped, so that what has been used is freed at once
            y = nodes.pop()
            g = grads.pop(y, None)
            if g is None:
                continue
            edges = y._edges or ()
            if y in wanted if inputs else not edges:
                results.append((y, g if create_graph else _wrap(g)))
            for t, array in y._saved:
                if t._array is not array:
                    raise UserError(
                        f"a tensor of shape {array.shape} was given new values after an operation "
                        "had saved it for its gradient; call backward first, or copy the tensor"
                    )
            operands = y._operands
            if create_graph:
                arguments = (g, y, *(operands or ()))
            elif operands is None:
                arguments = (_wrap(g), y)
            else:
                arguments = (g, y._array, *[t._array for t in operands])
            for x, rule in edges:
                if x.requires_grad and (relevant is None or x in relevant):
                    gx = rule(*arguments)
                    if operands is None and not create_graph:
                        gx = gx._array
                    array = x._array
                    if gx.shape != array.shape or gx.dtype != array.dtype:
                        if operands is None or gx.dtype != array.dtype:
                            raise _wrong_gradient(gx, x)
                        gx = _unbroadcast(gx, array.shape)
                    before = grads.get(x)
                    if before is None:
                        grads[x] = gx
                    elif create_graph or x not in summed:
                        grads[x] = before + gx
                        summed.add(x)
                    else:  # nobody else has seen that array
                        before += gx
                        grads[x] = before
            gx = None  # what it was is in `grads`, or added to what is there
            # The rules of an inner tensor that is an input itself may not have run: they stay.
            if not retain and edges and (relevant is None or any(x in relevant for x, _ in edges)):
                y._edges, y._saved, y._operands = None, (), None
    return results


def _sorted_graph(outputs: list[Tensor]) -> list[Tensor]:
    """Return all tensors that lead to the outputs, in the order in which they were created.

    An operation's inputs exist before its result, so this order is topological.
    """
    found = set(outputs)
    stack = list(found)
    for y in stack:
        if y._edges is None:
            raise UserError(
                "this part of the graph was freed by an earlier backward; "
                "call that one with retain_graph=True to keep it"
            )
        for x, _ in y._edges:
            if x.requires_grad and x not in found:
                found.add(x)
                stack.append(x)
    stack.sort(key=attrgetter("_order"))
    return stack


def _leading_to(inputs: list[Tensor], nodes: list[Tensor]) -> set[Tensor]:
    """Return those of the nodes, in creation order, that depend on an input."""
    relevant = set(inputs)
    for y in nodes:
        if any(x in relevant for x, _ in y._edges or ()):
            relevant.add(y)
    return relevant


def _unbroadcast(gx: Any, shape: tuple[int, ...]) -> Any:
    """Undo the broadcasting of an operand."""
    from tinyvid.ops.reduce import unbroadcast, unbroadcast_array  # which need tensors

    return (unbroadcast if isinstance(gx, Tensor) else unbroadcast_array)(gx, shape)


def _wrong_gradient(gx: Any, x: Tensor) -> UserError:
    return UserError(
        f"a rule returned a gradient of shape {gx.shape}, {gx.dtype} "
        f"for an input of shape {x.shape}, {x.dtype}"
    )


def _cotangent(y: Tensor, g: Any) -> Tensor:
    if not y.requires_grad:
        raise UserError(
            f"an output of shape {y.shape} does not depend on anything that requires a gradient"
        )
    if g is None:
        if y._array.size != 1:
            raise UserError(
                f"an output of shape {y.shape} needs its gradient: pass one of that shape"
            )
        return _wrap(np.ones_like(y._array))
    g = g if isinstance(g, Tensor) else Tensor(on_device_of(y._array, np.asarray(g)))
    if g.device != y.device:
        raise UserError(f"the gradient given is on {g.device!r}, the output on {y.device!r}")
    if g._array.shape != y._array.shape or g._array.dtype != y._array.dtype:
        raise UserError(
            f"the gradient given has shape {g.shape}, {g.dtype}; the output {y.shape}, {y.dtype}"
        )
    return g
