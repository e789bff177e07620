"""Limits on gradients, for networks whose gradients now and then explode."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyvid.device import device_of, zeros_on_device_of
from tinyvid.errors import UserError
from tinyvid.optim.optimizer import LARGE, PIECE
from tinyvid.tensor import Tensor, _wrap

# Elements, where there is no cache to stay in but each piece is a launch: 128 MiB of float64.
LONG_PIECE = 1 << 24


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`.

    Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013.

    Args:
        parameters: those whose gradients are taken, as one long vector.
        max_norm: the norm to scale down to.
        norm_type: p of the p-norm; `math.inf` for the largest absolute value.
        error_if_nonfinite: raise if the norm is infinite or NaN; otherwise gradients of such
            a norm are left as they are. On a GPU this makes the CPU wait for it.

    Returns:
        The norm before scaling, a tensor of no axes, in float64.

    Raises:
        UserError: the norm is not finite, with `error_if_nonfinite`.
    """
    params = _with_gradient(parameters)
    if not params:
        return Tensor(np.zeros(()))
    total = _norm(np.stack([_norm(p.grad.data, norm_type) for p in params]), norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise UserError(f"the norm of the gradients is {float(total)}")
    scale = max_norm / (total + 1e-6)
    scale = np.where(np.isfinite(total), np.minimum(scale, 1.0), 1.0)
    # On a GPU gradients within the limit are multiplied by 1: to look would be to wait.
    if device_of(total) == "cuda" or scale < 1:
        for p in params:
            p.grad = _wrap(p.grad.data * scale.astype(p.grad.dtype))
    return _wrap(total)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit each element of each gradient to between -clip_value and clip_value."""
    for p in _with_gradient(parameters):
        p.grad = _wrap(np.clip(p.grad.data, -clip_value, clip_value))


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    every = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p for p in every if p.grad is not None]


def _norm(g: np.ndarray, p: float) -> np.ndarray:
    """Return the p-norm, an array of no axes, accumulated in float64 piece by piece."""
    if not g.size:
        return zeros_on_device_of(g, (), np.float64)
    if p == 2 and device_of(g) == "cpu" and g.size >= LARGE and g.flags.c_contiguous:
        from tinyvid.kernels.updates import sum_of_squares  # not for less: it loads Numba

        return np.sqrt(sum_of_squares(g))
    flat, size = g.reshape(-1), PIECE if device_of(g) == "cpu" else LONG_PIECE
    pieces = (np.abs(flat[i : i + size], dtype=np.float64) for i in range(0, g.size, size))
    if p == math.inf:
        return np.stack([piece.max() for piece in pieces]).max()
    return np.stack([(piece**p).sum() for piece in pieces]).sum() ** (1 / p)
