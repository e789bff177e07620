"""Layers that act on features: linear, activations, dropout, and changes of shape."""

from __future__ import annotations

from typing import Any

from tinyvid.errors import UserError
from tinyvid.nn import init
from tinyvid.nn.module import Buffer, Module, Parameter
from tinyvid.ops.elementwise import relu, sigmoid, tanh
from tinyvid.ops.loss import cross_entropy, softmax
from tinyvid.ops.matmul import linear
from tinyvid.ops.norm import dropout
from tinyvid.ops.reduce import mean
from tinyvid.ops.shape import flatten
from tinyvid.tensor import Tensor


class Linear(Module):
    """y = x Wᵀ + b on the last axis.

    Args:
        in_features, out_features: sizes of the last axis of x and y.
        bias: whether b is there.

    Attributes:
        weight: `out_features in_features`. bias: `out_features`, or None. Both start uniform in
            ±1/√in_features, as PyTorch's do.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        positive(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter.empty(out_features, in_features)
        self.bias = Parameter.empty(out_features) if bias else None
        init_like_torch(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


def init_like_torch(weight: Tensor, bias: Tensor | None) -> None:
    """Fill a weight and its bias from U(-1/√fan_in, 1/√fan_in), PyTorch's default."""
    bound = init.fans(weight)[0] ** -0.5
    init.uniform_(weight, -bound, bound)
    if bias is not None:
        init.uniform_(bias, -bound, bound)


def positive(**sizes: Any) -> None:
    """Check that each named size is an int of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise UserError(f"{name}={size!r}: give an int of at least 1")


class ReLU(Module):
    """max(x, 0), element by element."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), element by element."""

    def forward(self, x: Tensor) -> Tensor:
        return sigmoid(x)


class Tanh(Module):
    """tanh(x), element by element."""

    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


class Softmax(Module):
    """exp(x) normalised to sum 1 along the axis `dim`."""

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Dropout(Module):
    """In training, set each element to 0 with probability p and divide the rest by 1 - p.

    The draws come from the generator that `tinyvid.manual_seed` seeds. Srivastava et al.,
    "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.
    """

    def __init__(self, p: float = 0.5):
        check_probability("p", p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def check_probability(name: str, p: float) -> None:
    """Check that p is within 0 and 1."""
    if not 0 <= p <= 1:
        raise UserError(f"{name}={p!r}: a probability lies between 0 and 1")


class Flatten(Module):
    """Join the axes from `start_dim` to `end_dim` into one: by default all but the batch."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class GlobalAvgPool(Module):
    """The mean over all axes after the channels: `N C ...` -> `N C`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3:
            raise UserError(f"input of shape {x.shape}: GlobalAvgPool takes (N, C, ...)")
        return mean(x, dim=tuple(range(2, x.ndim)))


class CrossEntropyLoss(Module):
    """Negative log-likelihood of the true classes, under the softmax of the scores.

    Args:
        weight: a factor for each class, or None.
        reduction: "mean" (over the samples, by weight), "sum" or "none".
        label_smoothing: the share of the target that is spread evenly over all classes.
    """

    def __init__(
        self,
        weight: Any = None,
        *,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        if reduction not in ("mean", "sum", "none"):
            raise UserError(f"reduction={reduction!r}: 'mean', 'sum' or 'none' is meant")
        check_probability("label_smoothing", label_smoothing)
        self.weight = None if weight is None else Buffer(weight)
        self.reduction, self.label_smoothing = reduction, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of scores `N classes` (or `N classes ...`) for classes `N (...)`."""
        return cross_entropy(
            input,
            target,
            weight=self.weight,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        text = f"reduction={self.reduction!r}"
        if self.label_smoothing:
            text += f", label_smoothing={self.label_smoothing}"
        return text
