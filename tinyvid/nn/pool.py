"""Pooling layers. None of them has parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tinyvid.nn.module import Module
from tinyvid.ops.pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool2d,
    avg_pool3d,
    max_pool2d,
    max_pool3d,
)
from tinyvid.tensor import Tensor

Size: TypeAlias = "int | Sequence[int]"


class _MaxPool(Module):
    """The maximum of each window; padding counts as -∞.

    Args:
        kernel_size, stride, padding, dilation: an int, or one an axis; the stride defaults to
            the window.
        return_indices: also return where each maximum was.
        ceil_mode: let a last window overhang the end.
    """

    pool: Callable[..., Any]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x: Tensor) -> Any:
        return self.pool(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool2d(_MaxPool):
    """Max pooling `N C H W` -> `N C P Q`; arguments as `torch.nn.MaxPool2d`."""

    pool = staticmethod(max_pool2d)


class MaxPool3d(_MaxPool):
    """Max pooling `N C D H W` -> `N C Z P Q`; arguments as `torch.nn.MaxPool3d`."""

    pool = staticmethod(max_pool3d)


class _AvgPool(Module):
    """The mean of each window; padding counts as 0.

    Args:
        kernel_size, stride, padding: an int, or one an axis; the stride defaults to the window.
        ceil_mode: let a last window overhang the end.
        count_include_pad: whether padding counts in the divisor.
        divisor_override: the divisor to use instead of the count.
    """

    pool: Callable[..., Any]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """Average pooling `N C H W` -> `N C P Q`; arguments as `torch.nn.AvgPool2d`."""

    pool = staticmethod(avg_pool2d)


class AvgPool3d(_AvgPool):
    """Average pooling `N C D H W` -> `N C Z P Q`; arguments as `torch.nn.AvgPool3d`."""

    pool = staticmethod(avg_pool3d)


class _AdaptivePool(Module):
    """Pooling over windows chosen so that the output has a given size.

    Args:
        output_size: an int, or one an axis.
    """

    pool: Callable[..., Any]

    def __init__(self, output_size: Size):
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool2d(_AdaptivePool):
    """Means `N C H W` -> `N C P Q`, where (P, Q) is `output_size`."""

    pool = staticmethod(adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptivePool):
    """Means `N C D H W` -> `N C Z P Q`, where (Z, P, Q) is `output_size`."""

    pool = staticmethod(adaptive_avg_pool3d)


class AdaptiveMaxPool2d(_AdaptivePool):
    """Maxima `N C H W` -> `N C P Q`, where (P, Q) is `output_size`."""

    pool = staticmethod(adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptivePool):
    """Maxima `N C D H W` -> `N C Z P Q`, where (Z, P, Q) is `output_size`."""

    pool = staticmethod(adaptive_max_pool3d)
