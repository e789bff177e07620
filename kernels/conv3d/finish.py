"""What fprop does with its sums on their way out, on the processor: a bias, and the ReLU.

Each block is finished as soon as it is summed up, while it still lies in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tinyvid.kernels.jit import for_dtypes


class Finish:
    """Adds a bias `K` and takes the ReLU, where they are asked for, of columns of a matrix.

    The ReLU of NaN is NaN.
    """

    def __init__(self, bias: np.ndarray | None, relu: bool, dtype: Any):
        self.bias = None if bias is None else np.array(bias, dtype)
        self.relu = bool(relu)

    def __call__(self, out: np.ndarray, rows: slice, columns: slice) -> None:
        """Finish these rows and columns of `out` (rows, K), without gaps in memory."""
        if self.bias is None and not self.relu:
            return
        bias = self.bias
        if bias is None:
            bias = np.zeros(out.shape[1], out.dtype)
        _finish(out.dtype.name)(out[rows], columns.start, bias[columns], self.relu)


UNFINISHED = Finish(None, False, np.float64)  # the dtype is that of the bias: here there is none


def _signature(scalar: types.Type) -> Any:
    bias = types.Array(scalar, 1, "C", readonly=True)
    return types.void(types.Array(scalar, 2, "C"), types.int64, bias, types.boolean)


@for_dtypes(_signature)
def _finish(out, first, bias, relu):
    for row in range(out.shape[0]):
        y = out[row, first : first + bias.size]
        for k in range(bias.size):
            value = y[k] + bias[k]
            y[k] = bias.dtype.type(0) if relu and value < 0 else value
