"""The LSTM as a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tinyvid.device import zeros_on_device_of
from tinyvid.errors import UserError
from tinyvid.nn import init
from tinyvid.nn.layers import check_probability, positive
from tinyvid.nn.module import Module, Parameter
from tinyvid.ops.lstm import lstm
from tinyvid.tensor import Tensor


class LSTM(Module):
    """Layers of long short-term memory over a batch of sequences; see `tinyvid.lstm`.

    Args:
        input_size, hidden_size: I and H.
        num_layers: how many layers; each reads the outputs of the one before.
        bias: whether the gates have biases.
        batch_first: whether sequences are `N L I`, or `L N I`, PyTorch's default.
        dropout: in training, the probability of dropping an input of a layer after the first.
        bidirectional: whether each layer also reads the sequences from their ends.

    Attributes:
        weight_ih_l0, weight_hh_l0: `4H I` and `4H H`, gates in the order i, f, g, o.
        bias_ih_l0, bias_hh_l0: `4H` each. Further layers end in `_l1`, ..., the backward
            direction in `_reverse`. All start uniform in ±1/√H, as PyTorch's do.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        positive(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_probability("dropout", dropout)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first = bias, batch_first
        self.dropout, self.bidirectional = dropout, bidirectional
        bound = hidden_size**-0.5
        for suffix, inputs in self._directions():
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (4 * hidden_size, inputs)}
            shapes["weight_hh"] = (4 * hidden_size, hidden_size)
            if bias:
                shapes["bias_ih"] = shapes["bias_hh"] = (4 * hidden_size,)
            for name, shape in shapes.items():
                weight = Parameter.empty(*shape)
                setattr(self, name + suffix, init.uniform_(weight, -bound, bound))

    def _directions(self) -> Iterator[tuple[str, int]]:
        """Yield, for each layer and each direction in it, the names' suffix and the input size."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        for layer in range(self.num_layers):
            inputs = self.hidden_size * len(ends) if layer else self.input_size
            for end in ends:
                yield f"_l{layer}{end}", inputs

    def forward(
        self,
        x: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
        lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the outputs, and h and c after the last step of each sequence.

        Args:
            x: `N L I` with `batch_first`, else `L N I`.
            hx: h and c to start from, each `layers·directions N H`; zeros by default.
            lengths: how many steps of each sequence are valid; all by default. Outputs past a
                sequence's end are 0.

        Returns:
            The outputs, `N L directions·H` (or `L N ...`), and (h, c), each as in hx.
        """
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            order = "(N, L, I)" if self.batch_first else "(L, N, I)"
            raise UserError(f"input of shape {x.shape}: {self} takes {order}, I={self.input_size}")
        return lstm(
            x,
            self._weights(),
            hx,
            lengths,
            bidirectional=self.bidirectional,
            batch_first=self.batch_first,
            dropout=self.dropout,
            training=self.training,
        )

    def _weights(self) -> list[Tensor]:
        weights: list[Tensor] = []
        for suffix, _ in self._directions():
            weights += [getattr(self, name + suffix) for name in ("weight_ih", "weight_hh")]
            if self.bias:
                weights += [getattr(self, name + suffix) for name in ("bias_ih", "bias_hh")]
            else:
                zeros = Tensor(
                    zeros_on_device_of(weights[-1].data, 4 * self.hidden_size, weights[-1].dtype)
                )
                weights += [zeros, zeros]
        return weights

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0.0),
            ("bidirectional", False),
        ):
            if (value := getattr(self, name)) != default:
                text += f", {name}={value}"
        return text
