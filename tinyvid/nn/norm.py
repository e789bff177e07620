"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyvid.errors import UserError
from tinyvid.nn.layers import positive
from tinyvid.nn.module import Buffer, Module, Parameter
from tinyvid.ops.norm import batch_norm, layer_norm, local_response_norm
from tinyvid.recompute import is_recomputing
from tinyvid.tensor import Tensor, no_grad


class _BatchNorm(Module):
    """Normalise each channel to mean 0 and variance 1, then scale and shift it.

    In training the mean and the (biased) variance are the batch's, over all axes but the
    channels, and the running ones follow them; in evaluation the running ones are used.
    Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: the weight of the new batch in the running statistics (of which the
            variance is the unbiased one); None averages all batches alike.
        affine: whether there is a learnt scale and shift.
        track_running_stats: if False, the batch's statistics are used in evaluation too.

    Attributes:
        weight, bias: C, starting at 1 and 0, or None.
        running_mean, running_var: C, starting at 0 and 1, or None.
        num_batches_tracked: how many batches the running statistics have seen.
    """

    ndims: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        positive(num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        ones, zeros = np.ones(num_features, np.float32), np.zeros(num_features, np.float32)
        self.weight = Parameter(ones) if affine else None
        self.bias = Parameter(zeros) if affine else None
        self.running_mean = Buffer(zeros) if track_running_stats else None
        self.running_var = Buffer(ones) if track_running_stats else None
        self.num_batches_tracked = Buffer(np.int64(0)) if track_running_stats else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in self.ndims or x.shape[1] != self.num_features:
            raise UserError(
                f"input of shape {x.shape}: {type(self).__name__} takes {self.num_features} "
                f"channels on axis 1 of {' or '.join(map(str, self.ndims))} axes"
            )
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            if not is_recomputing():
                with no_grad():
                    self.num_batches_tracked.copy_(self.num_batches_tracked.data + 1)
            if momentum is None:
                momentum = 1 / self.num_batches_tracked.item()
        return batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training or self.running_mean is None,
            momentum=0.0 if momentum is None else momentum,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of `N C` or `N C L`.; see `_BatchNorm`."""

    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of `N C H W`.; see `_BatchNorm`."""

    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of `N C D H W`.; see `_BatchNorm`."""

    ndims = (5,)


class LayerNorm(Module):
    """Normalise the last axes of each sample to mean 0 and variance 1, then scale and shift.

    Ba, Kiros and Hinton, "Layer normalization", 2016.

    Args:
        normalized_shape: the sizes of the last axes, which are normalised together.
        eps: added to the (biased) variance.
        elementwise_affine: whether there is a learnt scale; bias: and a learnt shift.

    Attributes:
        weight, bias: of `normalized_shape`, starting at 1 and 0, or None.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ):
        shape = (
            (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        )
        self.normalized_shape, self.eps = shape, eps
        self.elementwise_affine = elementwise_affine
        self.weight = Parameter(np.ones(shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise UserError(
                f"input of shape {x.shape}: LayerNorm takes last axes of {self.normalized_shape}"
            )
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class LocalResponseNorm(Module):
    """Divide each element by a power of the mean square of its neighbours in channel.

    y = x / (k + alpha · mean of x² over `size` channels around it)^beta. Krizhevsky, Sutskever
    and Hinton, "ImageNet classification with deep convolutional neural networks", NeurIPS 2012,
    section 3.3 (there alpha multiplies the sum, not the mean; this is PyTorch's convention).
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        positive(size=size)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
