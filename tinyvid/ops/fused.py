"""Operations whose gradients are computed by hand-written code, all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinyvid.backward import grad
from tinyvid.tensor import Tensor, _wrap, is_grad_enabled, record


def fused(
    array: np.ndarray,
    inputs: Sequence[Tensor],
    backward: Callable[[np.ndarray], Sequence[np.ndarray]],
    composed: Callable[..., Tensor],
) -> Tensor:
    """Record a result that was computed in one go.

    Args:
        array: the result.
        inputs: what it was computed from.
        backward: given the gradient of the result, returns that of each input. It has no rule
            of its own, so it is not used where the reverse pass is recorded.
        composed: given the inputs, computes the same result by differentiable operations; its
            gradients are used there instead.
    """
    return record_jointly(array, inputs, lambda g: _gradients(g, inputs, backward, composed))


def record_jointly(
    array: np.ndarray,
    inputs: Sequence[Tensor],
    gradients: Callable[[Tensor], dict[int, Tensor]],
    saved: Sequence[Tensor] | None = None,
) -> Tensor:
    """Record a result whose rules for all inputs are one.

    Args:
        array: the result.
        inputs: what it was computed from.
        gradients: given the gradient of the result, returns that of each input that needs one,
            by its place.
        saved: the tensors whose values `gradients` reads; by default the inputs.
    """
    # (g, its values, recorded?), and the gradients found for it
    key: tuple = (None, None, None)
    found: dict[int, Tensor] = {}

    def rule(i: int) -> Callable[[Tensor, Tensor], Tensor]:
        def gradient(g: Tensor, y: Tensor) -> Tensor:
            nonlocal key, found
            now = (g, g.data, is_grad_enabled())
            if i not in found or any(a is not b for a, b in zip(key, now, strict=True)):
                key, found = now, gradients(g)
            gx = found.pop(i)
            if not found:
                key = (None, None, None)  # g may refer to y: leave no cycle behind
            return gx

        return gradient

    edges = [(t, rule(i)) for i, t in enumerate(inputs)]
    return record(array, *edges, saved=inputs if saved is None else saved)


def _gradients(
    g: Tensor,
    inputs: Sequence[Tensor],
    backward: Callable[[np.ndarray], Sequence[np.ndarray]],
    composed: Callable[..., Tensor],
) -> dict[int, Tensor]:
    needed = [i for i, t in enumerate(inputs) if t.requires_grad]
    if not is_grad_enabled():
        arrays = backward(g.data)
        return {i: _wrap(arrays[i]) for i in needed}
    # Under another name each, so that what one input owes to another is not counted here.
    aliases = [record(t.data, (t, lambda g, y: g)) for t in inputs]
    grads = grad(composed(*aliases), [aliases[i] for i in needed], g, create_graph=True)
    return dict(zip(needed, grads, strict=True))
