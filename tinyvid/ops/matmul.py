"""Matrix products."""

from __future__ import annotations

from tinyvid.device import one_device
from tinyvid.errors import UserError
from tinyvid.ops.elementwise import _fit, add, pair
from tinyvid.ops.shape import reshape, transpose, unsqueeze
from tinyvid.tensor import Tensor, record, takes_arrays


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Return the matrix product over the last two axes; the axes before them broadcast.

    A vector on the left is a row, on the right a column, and its axis is dropped afterwards.

    Raises:
        UserError: the inner sizes differ, or the devices.
    """
    a, b = pair(input, other)
    one_device("matmul", a.data, b.data)
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise UserError(f"matmul: shapes {a.shape} and {b.shape} do not fit: inner sizes differ")
    if a.ndim == 1:
        y = matmul(unsqueeze(a, 0), b)
        return reshape(y, (*y.shape[:-2], y.shape[-1])) if b.ndim > 1 else reshape(y, ())
    if b.ndim == 1:
        y = matmul(a, unsqueeze(b, 1))
        return reshape(y, y.shape[:-1])
    try:
        array = a.data @ b.data
    except ValueError as error:
        raise UserError(f"matmul: shapes {a.shape} and {b.shape} do not broadcast") from error
    return record(
        array,
        (a, lambda g, y: _fit(matmul(g, transpose(b, -1, -2)), a)),
        (b, lambda g, y: _fit(matmul(transpose(a, -1, -2), g), b)),
        saved=(a, b),
    )


@takes_arrays
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return input · weightᵀ + bias.

    Args:
        input: (..., I). weight: (O, I). bias: (O,).

    Returns:
        (..., O).

    Raises:
        UserError: the sizes do not fit, or the devices differ.
    """
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise UserError(f"linear: input of shape {input.shape} and weight of shape {weight.shape}")
    rows = reshape(input, (-1, weight.shape[1])) if input.ndim != 2 else input  # one GEMM
    a, w = pair(rows, weight)
    one_device("linear", a.data, w.data)
    y = record(
        a.data @ w.data.T,
        (a, lambda g, y: matmul(g, w)),
        # gᵀ · a lies in memory as the weight does, which the optimiser reads beside it
        (w, lambda g, y: matmul(transpose(g, 0, 1), a)),
        saved=(a, w),
    )
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise UserError(f"linear: bias of shape {bias.shape} for weight {weight.shape}")
        y = add(y, bias)
    return reshape(y, (*input.shape[:-1], weight.shape[0])) if input.ndim != 2 else y
