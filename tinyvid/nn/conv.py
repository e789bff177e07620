"""Convolutions with learnt filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from tinyvid.errors import UserError
from tinyvid.geometry import per_axis, resolve_padding
from tinyvid.nn.layers import init_like_torch, positive
from tinyvid.nn.module import Module, Parameter
from tinyvid.ops.conv import conv2d, conv3d
from tinyvid.tensor import Tensor

Size: TypeAlias = "int | Sequence[int]"


class _Conv(Module):
    """What convolutions of two and three axes share: the filter, and its repr."""

    rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ):
        positive(in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise UserError(
                f"groups={groups} must divide in_channels={in_channels} "
                f"and out_channels={out_channels}"
            )
        if padding_mode != "zeros":
            raise UserError(f"padding_mode={padding_mode!r}: only 'zeros' is supported")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = per_axis("kernel_size", kernel_size, self.rank, 1)
        self.stride = per_axis("stride", stride, self.rank, 1)
        self.dilation = per_axis("dilation", dilation, self.rank, 1)
        resolve_padding(padding, self.kernel_size, self.stride, self.dilation)  # checks it
        self.padding = (
            padding if isinstance(padding, str) else per_axis("padding", padding, self.rank, 0)
        )
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter.empty(*shape)
        self.bias = Parameter.empty(out_channels) if bias else None
        init_like_torch(self.weight, self.bias)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        for name, default in (
            ("padding", (0,) * self.rank),
            ("dilation", (1,) * self.rank),
            ("groups", 1),
        ):
            if (value := getattr(self, name)) != default:
                text += f", {name}={value!r}"
        return text if self.bias is not None else text + ", bias=False"


class Conv2d(_Conv):
    """A convolution along height and width; arguments as `torch.nn.Conv2d`.

    Takes `N C H W`, and the clip `N C T H W` as it lies: then `in_channels` is C * T, so that
    the filter sees all frames at once (early fusion). Gives `N K P Q`.

    Args:
        in_channels, out_channels: C (or C * T) and K.
        kernel_size, stride, dilation: an int, or one each for height and width.
        padding: an int, one an axis, "same" (stride 1 only) or "valid".
        groups: the channels fall into this many groups that do not see each other.
        bias: whether each output channel has a bias.

    Attributes:
        weight: `K C/groups R S`. bias: `K`, or None. Both start uniform in ±1/√fan_in.

    Raises:
        UserError: arguments that contradict each other, or an input that does not fit.
    """

    rank = 2

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class Conv3d(_Conv):
    """A convolution along time, height and width; arguments as `torch.nn.Conv3d`.

    Takes `N C D H W`, gives `N K Z P Q`.

    Args:
        in_channels, out_channels: C and K.
        kernel_size, stride, dilation: an int, or one each for time, height and width.
        padding: an int, one an axis, "same" (stride 1 only) or "valid".
        groups: the channels fall into this many groups that do not see each other.
        bias: whether each output channel has a bias.

    Attributes:
        weight: `K C/groups T R S`. bias: `K`, or None. Both start uniform in ±1/√fan_in.

    Raises:
        UserError: arguments that contradict each other, or an input that does not fit.
    """

    rank = 3

    def forward(self, x: Tensor) -> Tensor:
        return conv3d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
