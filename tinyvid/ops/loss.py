"""Softmax and the losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvid.device import device_of, on_device_of, one_device
from tinyvid.errors import UserError
from tinyvid.ops.elementwise import exp, where
from tinyvid.ops.reduce import mean, sum
from tinyvid.ops.shape import axes, getitem
from tinyvid.tensor import Tensor, _wrap, as_tensor, record, takes_arrays


@takes_arrays
def softmax(input: Tensor, dim: int | Sequence[int] = -1) -> Tensor:
    """Return e^input normalised to a sum of 1 along `dim`."""
    dims = axes(dim, input.ndim)
    e = np.exp(input.data - input.data.max(dims, keepdims=True))  # so that nothing overflows
    return record(
        e / e.sum(dims, keepdims=True),
        (input, lambda g, y: y * (g - sum(g * y, dims, keepdim=True))),
    )


@takes_arrays
def log_softmax(input: Tensor, dim: int | Sequence[int] = -1) -> Tensor:
    """Return the logarithm of the softmax along `dim`, without computing the softmax."""
    dims = axes(dim, input.ndim)
    shifted = input.data - input.data.max(dims, keepdims=True)
    return record(
        shifted - np.log(np.exp(shifted).sum(dims, keepdims=True)),
        (input, lambda g, y: g - exp(y) * sum(g, dims, keepdim=True)),
    )


@takes_arrays
def logsumexp(input: Tensor, dim: int | Sequence[int] = -1, keepdim: bool = False) -> Tensor:
    """Return log Σ e^input along `dim`."""
    dims = axes(dim, input.ndim)
    top = input.data.max(dims, keepdims=True)
    top = np.where(np.isfinite(top), top, top.dtype.type(0))  # infinities: not ∞ − ∞
    with np.errstate(divide="ignore"):  # log 0 = −∞ is right where every input is −∞
        array = top + np.log(np.exp(input.data - top).sum(dims, keepdims=True))
    y = record(array, (input, lambda g, y: g * softmax(input, dims)), saved=(input,))
    return y if keepdim else y.squeeze(dims)


def _reduce(losses: Tensor, reduction: str, count: Tensor | float | None = None) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return sum(losses)
    if reduction == "mean":
        return mean(losses) if count is None else sum(losses) / count
    raise UserError(f"reduction={reduction!r}: give 'mean', 'sum' or 'none'")


def _check_weight(input: Tensor, weight: Tensor | None) -> None:
    if input.ndim < 2:
        raise UserError(f"a loss over classes takes (N, K, ...), not input of shape {input.shape}")
    if weight is not None and np.shape(weight) != (input.shape[1],):
        raise UserError(f"weight of shape {np.shape(weight)} for {input.shape[1]} classes")


class _Targets(NamedTuple):
    """What target classes come down to.

    Attributes:
        classes: those to look up; 0 where the target does not count or is no class.
        counted: which targets count; None where all are known to.
        wrong: which are no class, and so make the loss NaN; None where all are known to be one.
    """

    classes: np.ndarray
    counted: np.ndarray | None
    wrong: np.ndarray | None


def _targets(input: Tensor, target: Tensor, ignored: int) -> _Targets:
    classes = target.data
    if classes.shape != (input.shape[0], *input.shape[2:]):
        raise UserError(f"target of shape {classes.shape} for input of shape {input.shape}")
    if classes.dtype.kind not in "iu":
        raise UserError(f"target classes must be integers, not {classes.dtype}")
    one_device("a loss of input and target", input.data, classes)
    counted = classes != ignored
    if device_of(classes) == "cuda":  # to look at the values would be to wait for the GPU
        wrong = counted & ((classes < 0) | (classes >= input.shape[1]))
        return _Targets(np.where(counted & ~wrong, classes, 0), counted, wrong)
    classes = np.where(counted, classes, 0)
    if classes.size and not 0 <= classes.min() <= classes.max() < input.shape[1]:
        raise UserError(
            f"target classes must lie in 0 … {input.shape[1] - 1}, or be ignore_index={ignored}, "
            f"got {classes.min()} … {classes.max()}"
        )
    return _Targets(classes, None if counted.all() else counted, None)


def _target_weights(weight: Tensor | None, targets: _Targets, dtype: np.dtype) -> Tensor | None:
    """Return the weight of each target, 0 where it is ignored; None where all weigh 1."""
    if weight is None:
        return None if targets.counted is None else _wrap(targets.counted.astype(dtype))
    return _where_counted(targets, getitem(as_tensor(weight), targets.classes))


def _where_counted(targets: _Targets, values: Tensor) -> Tensor:
    # not a product, which keeps infinities
    return values if targets.counted is None else where(_wrap(targets.counted), values, 0.0)


def _as_target(target: Any, input: Tensor) -> Tensor:
    if isinstance(target, Tensor):
        return target
    return _wrap(on_device_of(input.data, as_tensor(target).data))


@takes_arrays
def nll_loss(
    input: Tensor,
    target: Tensor | np.ndarray,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Return the negative log-likelihood of the target classes.

    Args:
        input: log-probabilities, (N, K) or (N, K, ...).
        target: classes 0 … K−1, (N,) or (N, ...).
        weight: a weight for each class, (K,); the mean is then a weighted one.
        ignore_index: a target that does not count: its loss is 0, and the mean is that of the
            others (NaN if there are none).
        reduction: "mean", "sum" or "none".

    Raises:
        UserError: shapes or devices do not fit, or a target is not a class; on device `cuda`
            the loss is NaN then, as looking at the targets would make the CPU wait for the GPU.
    """
    _check_weight(input, weight)
    targets = _targets(input, _as_target(target, input), ignore_index)
    cells: tuple[np.ndarray, ...] = np.indices(targets.classes.shape, sparse=True)
    losses = -getitem(input, (cells[0], targets.classes, *cells[1:]))
    if targets.wrong is not None:
        losses = where(_wrap(targets.wrong), math.nan, losses)
    losses = _where_counted(targets, losses)
    weights = _target_weights(weight, targets, input.dtype)
    if weights is None:
        return _reduce(losses, reduction)
    return _reduce(losses * weights, reduction, sum(weights))


@takes_arrays
def cross_entropy(
    input: Tensor,
    target: Tensor | np.ndarray,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy between softmax(input) and the target.

    Args:
        input: logits, (N, K) or (N, K, ...).
        target: classes (N, ...), or probabilities of the input's shape.
        weight: a weight for each class, (K,).
        ignore_index: a target class that does not count; see `nll_loss`.
        reduction: "mean", "sum" or "none".
        label_smoothing: share of the target spread evenly over all classes
            (Szegedy et al., CVPR 2016, section 7).

    Raises:
        UserError: shapes or devices do not fit, a target is not a class (see `nll_loss`),
            `label_smoothing` is not a share, or a class is to be ignored among targets that are
            probabilities.
    """
    if not 0 <= label_smoothing <= 1:
        raise UserError(f"label_smoothing={label_smoothing} must lie in 0 … 1")
    target = _as_target(target, input)
    _check_weight(input, weight)
    logp = log_softmax(input, 1)
    k = input.shape[1]
    column = (1, k) + (1,) * (input.ndim - 2)
    weighted = logp if weight is None else logp * as_tensor(weight).reshape(column)
    if target.shape == input.shape and target.dtype.kind == "f":
        if ignore_index >= 0:
            raise UserError(f"ignore_index={ignore_index} needs classes, not probabilities")
        soft = target * (1 - label_smoothing) + label_smoothing / k
        return _reduce(-sum(weighted * soft, 1), reduction)
    hard = nll_loss(logp, target, weight, ignore_index, reduction)
    if not label_smoothing:
        return hard
    targets = _targets(input, target, ignore_index)
    weights = _target_weights(weight, targets, input.dtype)
    spread = _where_counted(targets, -sum(weighted, 1) / k)
    smooth = _reduce(spread, reduction, None if weights is None else sum(weights))
    return hard * (1 - label_smoothing) + smooth * label_smoothing


@takes_arrays
def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Return the squared difference; `target` has the shape of `input`."""
    if np.shape(target) != input.shape:
        raise UserError(f"target of shape {np.shape(target)} for input of shape {input.shape}")
    difference = input - target
    return _reduce(difference * difference, reduction)
