"""Sizes: the one output-size function of the project, and what is derived from it.

Every convolution and every pooling, in NumPy, Numba or CUDA, asks this module for its sizes,
so that no two of them can disagree. A geometry is made once, where the forward pass is
called, checked there, and handed to all passes of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import TypeAlias

from tinyvid.errors import UserError

Ints: TypeAlias = tuple[int, ...]
Pairs: TypeAlias = tuple[tuple[int, int], ...]


def output_size(
    size: int,
    kernel: int,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    ceil_mode: bool = False,
) -> int:
    """Return how many windows fit along one axis; 0 or less means that none does.

    A window covers `dilation * (kernel - 1) + 1` cells; `padding` is (low end, high end).
    With `ceil_mode` a last window may overhang the high end, as long as it starts inside
    the input or its low padding (a window wholly in padding would pool nothing).
    """
    room = size + padding[0] + padding[1] - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding[0] else count


def per_axis(name: str, value: int | Sequence[int], rank: int, least: int) -> Ints:
    """Return `value` as `rank` ints of at least `least`; one int stands for every axis."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(values) != rank or not all(isinstance(v, Integral) and v >= least for v in values):
        raise UserError(
            f"{name}={value!r}: give one int of at least {least}, or {rank} of them, one an axis"
        )
    return tuple(map(int, values))


def resolve_padding(
    padding: int | str | Sequence[int], kernel: Ints, stride: Ints, dilation: Ints
) -> Pairs:
    """Return the padding as a (low, high) pair for each axis.

    `padding` is an int, an int an axis, "valid" (none) or "same" (output as large as the
    input, stride 1 only; an odd total puts the extra cell at the high end, as PyTorch does).
    """
    rank = len(kernel)
    if padding == "valid":
        padding = 0
    if padding == "same":
        if any(s != 1 for s in stride):
            raise UserError(f"padding='same' needs stride 1, not stride={stride}")
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(padding, str):
        raise UserError(f"padding={padding!r}: give an int, an int an axis, 'same' or 'valid'")
    return tuple((p, p) for p in per_axis("padding", padding, rank, 0))


@dataclass(frozen=True)
class ConvGeometry:
    """The sizes of a convolution, shared by its three passes fprop, dgrad and wgrad.

    Attributes:
        x: input shape, `N C D H W`. In two dimensions `N C H W`, or the clip `N C T H W`
            as it lies, of which early fusion takes all `C * T` planes as channels.
        w: filter shape, `K C/groups T R S`, or `K C/groups R S` in two dimensions.
        y: output shape, `N K Z P Q` or `N K P Q`.
        stride, dilation: an int an axis. padding: a (low, high) pair an axis.
        groups: the channels fall into this many groups that do not see each other.
    """

    x: Ints
    w: Ints
    y: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int

    @property
    def rank(self) -> int:
        """How many axes the filter slides along: 3, or 2 for early fusion."""
        return len(self.w) - 2

    @property
    def channels(self) -> int:
        """Input channels of all groups together (`C * T` for early fusion)."""
        return self.w[1] * self.groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass; padding counts, as is the custom."""
        return math.prod(self.y) * math.prod(self.w[1:])


def conv_geometry(
    x: Sequence[int],
    w: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> ConvGeometry:
    """Check the shapes of a convolution and return its geometry.

    Args:
        x: shape of the input, `N C D H W`; for a filter of two axes `N C H W` or `N C T H W`.
        w: shape of the filter, `K C/groups T R S` or `K C/groups R S`.
        stride, padding, dilation, groups: as in `torch.nn.functional.conv3d`.

    Raises:
        UserError: the shapes do not fit each other, or the filter does not fit the input.
    """
    freeze = _freeze
    return _conv_geometry(
        tuple(x), tuple(w), freeze(stride), freeze(padding), freeze(dilation), groups
    )


def _freeze(value):
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=4096)
def _conv_geometry(x, w, stride, padding, dilation, groups) -> ConvGeometry:
    rank = len(w) - 2
    if rank not in (2, 3) or len(x) - rank not in ((2,) if rank == 3 else (2, 3)):
        wanted = "(N, C, D, H, W)" if rank == 3 else "(N, C, H, W) or (N, C, T, H, W)"
        raise UserError(f"input of shape {x} and weight of shape {w}: the input must be {wanted}")
    stride = per_axis("stride", stride, rank, 1)
    dilation = per_axis("dilation", dilation, rank, 1)
    padding = resolve_padding(padding, w[2:], stride, dilation)
    channels = math.prod(x[1:-rank])
    if groups < 1 or channels % groups or w[0] % groups:
        raise UserError(f"groups={groups} must divide {channels} input and {w[0]} output channels")
    if w[1] * groups != channels:
        raise UserError(
            f"input of shape {x} has {channels} channels, but weight of shape {w} with "
            f"groups={groups} takes {w[1] * groups}"
        )
    sizes = _output_sizes(x[-rank:], w[2:], stride, padding, dilation, False, x)
    return ConvGeometry(x, w, (x[0], w[0], *sizes), stride, padding, dilation, groups)


@dataclass(frozen=True)
class PoolGeometry:
    """The sizes of a 3-D pooling, shared by its passes.

    Attributes:
        x: input shape `N C D H W`; y: output shape `N C Z P Q`.
        window: `T R S`. stride, dilation: an int an axis. padding: a (low, high) pair an axis.
    """

    x: Ints
    y: Ints
    window: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints


def pool_geometry(
    x: Sequence[int],
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> PoolGeometry:
    """Check the shapes of a 3-D pooling and return its geometry.

    Args:
        x: shape of the input, `N C D H W`.
        window, stride, padding, dilation, ceil_mode: as in `torch.nn.functional.max_pool3d`;
            the stride defaults to the window.

    Raises:
        UserError: a window is larger than the padded input, or lies wholly in padding.
    """
    freeze = _freeze
    stride = window if stride is None or stride == () or stride == [] else stride
    return _pool_geometry(
        tuple(x), freeze(window), freeze(stride), freeze(padding), freeze(dilation), ceil_mode
    )


@lru_cache(maxsize=4096)
def _pool_geometry(x, window, stride, padding, dilation, ceil_mode) -> PoolGeometry:
    if len(x) != 5:
        raise UserError(f"input of shape {x}: a 3-D pooling takes (N, C, D, H, W)")
    window = per_axis("kernel_size", window, 3, 1)
    stride = per_axis("stride", stride, 3, 1)
    dilation = per_axis("dilation", dilation, 3, 1)
    pairs = tuple((p, p) for p in per_axis("padding", padding, 3, 0))
    if any(2 * lo > k for (lo, _), k in zip(pairs, window, strict=True)):
        raise UserError(f"padding={padding} must be at most half of kernel_size={window}")
    sizes = _output_sizes(x[2:], window, stride, pairs, dilation, ceil_mode, x)
    for size, out, k, s, (lo, _), d in zip(
        x[2:], sizes, window, stride, pairs, dilation, strict=True
    ):
        # The taps of a dilated window can straddle a small input without touching it.
        for start in range(-lo, min(out * s - lo, 0), s):
            if not any(0 <= start + tap * d < size for tap in range(k)):
                raise UserError(
                    f"input of shape {x}: a window of {window} with dilation={dilation} and "
                    f"padding={padding} lies wholly in padding"
                )
    return PoolGeometry(x, (*x[:2], *sizes), window, stride, pairs, dilation)


def _output_sizes(
    sizes: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    ceil_mode: bool,
    x: Ints,
) -> Ints:
    out = tuple(
        output_size(*axis, ceil_mode)
        for axis in zip(sizes, kernel, stride, padding, dilation, strict=True)
    )
    if any(o < 1 for o in out):
        raise UserError(
            f"input of shape {x}: a kernel of {kernel} with dilation={dilation} does not fit "
            f"into {sizes} padded by {padding}"
        )
    return out
