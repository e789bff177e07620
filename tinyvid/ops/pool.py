"""Pooling. The 2-D forms are 3-D poolings of clips of one frame.

Max pooling gathers the input at the argmax that it saved; the adjoint of a gather is a
scatter (dgrad), whose adjoint is the gather again. Average pooling is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tinyvid import kernels
from tinyvid.device import on_device_of, zeros_on_device_of
from tinyvid.errors import UserError
from tinyvid.geometry import PoolGeometry, per_axis, pool_geometry
from tinyvid.ops.reduce import amax
from tinyvid.ops.shape import getitem, reshape, transpose
from tinyvid.tensor import Tensor, _wrap, record, takes_arrays

Size: TypeAlias = "int | Sequence[int]"


@takes_arrays
def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maximum of each window; its first maximum gets the gradient.

    Args:
        input: x, `N C D H W`.
        kernel_size, stride, padding, dilation: an int, or one for each of D, H, W; the stride
            defaults to the window. Padding counts as −∞.
        ceil_mode: let a last window overhang the end.
        return_indices: also return where each maximum was, as an index into `D · H · W`.

    Returns:
        y, `N C Z P Q`, or (y, indices).
    """
    geometry = pool_geometry(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    array, argmax = kernels.max_pool3d_fprop(input.data, geometry, device=input.device)
    y = record(array, (input, lambda gy, y: _scatter(gy, argmax, geometry)))
    return (y, _wrap(_flat_indices(argmax, geometry))) if return_indices else y


def _scatter(gy: Tensor, argmax: np.ndarray, geometry: PoolGeometry) -> Tensor:
    return record(
        kernels.max_pool3d_dgrad(gy.data, argmax, geometry, device=gy.device),
        (gy, lambda ggx, gx: _gather(ggx, argmax, geometry)),
    )


def _gather(x: Tensor, argmax: np.ndarray, geometry: PoolGeometry) -> Tensor:
    return record(
        kernels.max_pool3d_gather(x.data, argmax, geometry, device=x.device),
        (x, lambda gy, y: _scatter(gy, argmax, geometry)),
    )


def _flat_indices(argmax: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    """Return the argmax of each window as an index into the flattened `D H W` of the input."""
    offsets = np.unravel_index(argmax.astype(np.int64), geometry.window)
    flat = zeros_on_device_of(argmax, argmax.shape, np.int64)
    for axis, offset in enumerate(offsets):
        shape = [1] * 5
        shape[axis + 2] = -1
        first = np.arange(geometry.y[axis + 2]) * geometry.stride[axis] - geometry.padding[axis][0]
        place = on_device_of(argmax, first.reshape(shape)) + offset * geometry.dilation[axis]
        flat = flat * geometry.x[axis + 2] + place
    return flat


@takes_arrays
def avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the mean of each window.

    Args:
        input: x, `N C D H W`.
        kernel_size, stride, padding, ceil_mode: as in `max_pool3d`, but padding counts as 0.
        count_include_pad: whether padding counts in the divisor.
        divisor_override: the divisor to use instead of the count.

    Returns:
        y, `N C Z P Q`.
    """
    if divisor_override is not None and divisor_override == 0:
        raise UserError("avg_pool3d: divisor_override must not be 0")
    geometry = pool_geometry(input.shape, kernel_size, stride, padding, 1, ceil_mode)
    return _average(input, geometry, (count_include_pad, divisor_override))


def _average(x: Tensor, geometry: PoolGeometry, divisor: tuple) -> Tensor:
    return record(
        kernels.avg_pool3d_fprop(x.data, geometry, *divisor, device=x.device),
        (x, lambda gy, y: _spread(gy, geometry, divisor)),
    )


def _spread(gy: Tensor, geometry: PoolGeometry, divisor: tuple) -> Tensor:
    return record(
        kernels.avg_pool3d_dgrad(gy.data, geometry, *divisor, device=gy.device),
        (gy, lambda ggx, gx: _average(ggx, geometry, divisor)),
    )


@takes_arrays
def adaptive_avg_pool3d(input: Tensor, output_size: Size) -> Tensor:
    """Return means over windows chosen so that the output has the size `output_size`.

    Window i along an axis reaches from ⌊i · n / m⌋ to ⌈(i + 1) · n / m⌉, where the axis has n
    cells and shall have m. The mean is taken axis by axis, as a product with a matrix.

    Args:
        input: x, `N C D H W`.
        output_size: an int, or one for each of D, H, W; None keeps the size of an axis.
    """
    y = input
    for axis, size in enumerate(_adaptive_sizes(input, output_size, 3), start=2):
        if size != y.shape[axis]:
            matrix = np.zeros((y.shape[axis], size), input.dtype)
            for i, (start, stop) in enumerate(_adaptive_windows(y.shape[axis], size)):
                matrix[start:stop, i] = 1 / (stop - start)
            means = _wrap(on_device_of(input.data, matrix))
            y = transpose(transpose(y, axis, -1) @ means, axis, -1)
    return y


@takes_arrays
def adaptive_max_pool3d(input: Tensor, output_size: Size) -> Tensor:
    """Return maxima over the windows of `adaptive_avg_pool3d`; equal maxima share the gradient."""
    y = input
    for axis, size in enumerate(_adaptive_sizes(input, output_size, 3), start=2):
        if size != y.shape[axis]:
            windows = _adaptive_windows(y.shape[axis], size)
            longest = max(stop - start for start, stop in windows)
            # shorter windows repeat their last cell, which changes no maximum
            cells = [[min(start + j, stop - 1) for j in range(longest)] for start, stop in windows]
            y = amax(getitem(y, (slice(None),) * axis + (np.array(cells),)), axis + 1)
    return y


def _adaptive_sizes(input: Tensor, output_size: Size, rank: int) -> tuple[int, ...]:
    if input.ndim != 5:
        raise UserError(f"an adaptive pooling takes N C and {rank} axes, not shape {input.shape}")
    if not isinstance(output_size, int):
        if len(output_size) != 3:
            raise UserError(f"output_size of {len(output_size) - 3 + rank} for {rank} axes")
        output_size = [
            n if s is None else s for s, n in zip(output_size, input.shape[2:], strict=True)
        ]
    return per_axis("output_size", output_size, 3, 1)


def _adaptive_windows(n: int, m: int) -> list[tuple[int, int]]:
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


# The 2-D forms


def _lift(input: Tensor) -> Tensor:
    if input.ndim != 4:
        raise UserError(f"a 2-D pooling takes (N, C, H, W), not an input of shape {input.shape}")
    n, c, h, w = input.shape
    return reshape(input, (n, c, 1, h, w))


def _flat(y: Tensor) -> Tensor:
    n, c, _, p, q = y.shape
    return reshape(y, (n, c, p, q))


def _with_depth(name: str, value: Size, depth: int) -> tuple[int, ...]:
    return (depth, *per_axis(name, value, 2, depth))


def _sizes_2d(kernel_size: Size, stride: Size | None, padding: Size) -> dict[str, Any]:
    return {
        "kernel_size": _with_depth("kernel_size", kernel_size, 1),
        "stride": None if stride is None else _with_depth("stride", stride, 1),
        "padding": _with_depth("padding", padding, 0),
    }


@takes_arrays
def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maximum of each window of an input `N C H W`; see `max_pool3d`."""
    y = max_pool3d(
        _lift(input),
        dilation=_with_depth("dilation", dilation, 1),
        ceil_mode=ceil_mode,
        return_indices=return_indices,
        **_sizes_2d(kernel_size, stride, padding),
    )
    return (_flat(y[0]), _flat(y[1])) if isinstance(y, tuple) else _flat(y)


@takes_arrays
def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the mean of each window of an input `N C H W`; see `avg_pool3d`."""
    y = avg_pool3d(
        _lift(input),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
        **_sizes_2d(kernel_size, stride, padding),
    )
    return _flat(y)


@takes_arrays
def adaptive_avg_pool2d(input: Tensor, output_size: Size) -> Tensor:
    """Return means over windows that give the output the size `output_size`."""
    return _flat(adaptive_avg_pool3d(_lift(input), _adaptive_2d(output_size)))


@takes_arrays
def adaptive_max_pool2d(input: Tensor, output_size: Size) -> Tensor:
    """Return maxima over windows that give the output the size `output_size`."""
    return _flat(adaptive_max_pool3d(_lift(input), _adaptive_2d(output_size)))


def _adaptive_2d(output_size: Size) -> tuple:
    return (1, output_size, output_size) if isinstance(output_size, int) else (1, *output_size)
