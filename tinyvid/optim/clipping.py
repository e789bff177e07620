"""Limits on gradients, for networks whose gradients now and then explode."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.optim.optimizer import PIECE
from tinyvid.tensor import Tensor, _wrap


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients together so that their norm is at most `max_norm`.

    Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013.

    Args:
        parameters: those whose gradients are taken, as one long vector.
        max_norm: the norm to scale down to.
        norm_type: p of the p-norm; `math.inf` for the largest absolute value.
        error_if_nonfinite: raise if the norm is infinite or NaN; otherwise gradients of such
            a norm are left as they are.

    Returns:
        The norm before scaling, summed in float64.

    Raises:
        UserError: the norm is not finite, with `error_if_nonfinite`.
    """
    params = _with_gradient(parameters)
    norms = [_norm(p.grad.data, norm_type) for p in params]
    total = _norm(np.array(norms, np.float64), norm_type)
    if not math.isfinite(total):
        if error_if_nonfinite:
            raise UserError(f"the norm of the gradients is {total}")
        return total
    scale = max_norm / (total + 1e-6)
    if scale < 1:
        for p in params:
            p.grad = _wrap(p.grad.data * scale)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit each element of each gradient to between -clip_value and clip_value."""
    for p in _with_gradient(parameters):
        p.grad = _wrap(np.clip(p.grad.data, -clip_value, clip_value))


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    every = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p for p in every if p.grad is not None]


def _norm(g: np.ndarray, p: float) -> float:
    """Return the p-norm, accumulated in float64 piece by piece."""
    flat = g.reshape(-1)
    pieces = (np.abs(flat[i : i + PIECE], dtype=np.float64) for i in range(0, g.size, PIECE))
    if p == math.inf:
        return float(max((piece.max() for piece in pieces), default=0.0))
    return float(sum(np.sum(piece**p) for piece in pieces) ** (1 / p))
