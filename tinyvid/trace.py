"""Following a clip's shape through a network, layer by layer, without computing anything.

For the length of one call each layer's `forward` is replaced by one that knows only shapes,
from the same `tinyvid.geometry` that the kernels use. A network of 40 GMAC is followed in
milliseconds, and a clip that does not fit is found by the layer at which it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tinyvid import nn
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry, per_axis, pool_geometry, resolve_padding
from tinyvid.tensor import Tensor, no_grad, record

Ints: TypeAlias = tuple[int, ...]
# kernel, stride, padding at the low end, dilation
Axis: TypeAlias = tuple[int, int, int, int]

CONVS = (nn.Conv2d, nn.Conv3d)
MAX_POOLS = (nn.MaxPool2d, nn.MaxPool3d)
POOLS = (*MAX_POOLS, nn.AvgPool2d, nn.AvgPool3d)
FLAT = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # slide along height and width only
ELEMENTWISE = (
    nn.ReLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Dropout,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


@dataclass(frozen=True)
class Step:
    """One layer as it ran, with batch 1.

    Attributes:
        name: its dotted name in the network.
        module: the layer.
        x, y: the shapes of its input and of its (first) output, batch included.
        per_frame: whether the layer runs on each frame, so that its batch is the frames.
        after: the number of the step whose output it takes, -1 for the clip. Where an array goes
            into several layers, each of them comes after the same step; else after the last one.
    """

    name: str
    module: nn.Module
    x: Ints
    y: Ints
    per_frame: bool
    after: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one clip, of convolutions, linear layers and LSTMs."""
        if isinstance(self.module, CONVS):
            return _conv(self.module, self.x).macs
        positions = int(np.prod(self.x[:-1]))
        if isinstance(self.module, nn.Linear):
            return positions * self.module.weight.size
        if isinstance(self.module, nn.LSTM):
            return positions * sum(p.size for p in self.module.parameters() if p.ndim == 2)
        return 0


def trace(model: nn.Module, clip: Sequence[int]) -> list[Step]:
    """Return the layers of `model` in the order in which a clip `C T H W` passes through them.

    The model is followed in evaluation mode. Layers that are not known here are run for real,
    on zeros.

    Raises:
        UserError: the clip does not fit; the message names the layer and the size it was given.
    """
    steps: list[Step] = []
    with _shapes_only(model, steps), no_grad():
        model(record(np.zeros((1, *clip), np.float32)))
    return steps


@contextmanager
def _shapes_only(model: nn.Module, steps: list[Step]) -> Iterator[None]:
    containers = (m for m in model.modules() if getattr(m, "per_frame", False))
    framed = {id(inner) for m in containers for inner in m.modules()}
    named = list(model.named_modules())
    leaves = [(name, m) for name, m in named if not any(True for _ in m.children())]
    training = [(m, m.training) for _, m in named]
    taken: list[tuple[Tensor, int]] = []  # arrays that layers took, and after which step
    model.eval()
    try:
        for name, m in leaves:
            vars(m)["forward"] = _stepped(name, m, id(m) in framed, steps, taken)
        yield
    finally:
        for _, m in leaves:
            vars(m).pop("forward", None)
        for m, mode in training:
            m.training = mode


def _stepped(
    name: str,
    module: nn.Module,
    per_frame: bool,
    steps: list[Step],
    taken: list[tuple[Tensor, int]],
) -> Callable:
    run = module.forward

    def forward(x: Tensor, *rest: Any, **named: Any) -> Any:
        try:
            y = _shape(module, x.shape)
        except UserError as error:
            raise UserError(
                f"{name} gets {size_text(size(x.shape, per_frame))}: {error}"
            ) from error
        output: Any = run(x, *rest, **named) if y is None else record(np.zeros(y, x.dtype))
        first = output[0] if isinstance(output, tuple) else output
        after = next((step for array, step in taken if array is x), len(steps) - 1)
        taken.append((x, after))
        steps.append(Step(name, module, x.shape, first.shape, per_frame, after))
        if isinstance(module, nn.LSTM):
            output = (output, _final_state(module, x))
        return output

    return forward


def _shape(module: nn.Module, x: Ints) -> Ints | None:
    """Return the shape of a layer's output, or None where only running it can tell."""
    if isinstance(module, ELEMENTWISE):
        return x
    if isinstance(module, CONVS):
        return _conv(module, x).y
    if isinstance(module, POOLS):
        return _pool(module, x)[0]
    if isinstance(module, nn.Linear):
        if x[-1] != module.in_features:
            raise UserError(f"it takes {module.in_features} features")
        return (*x[:-1], module.out_features)
    if isinstance(module, nn.LSTM):
        if len(x) != 3 or x[-1] != module.input_size:
            raise UserError(f"it takes sequences of {module.input_size} features")
        return (*x[:2], module.hidden_size * (2 if module.bidirectional else 1))
    return None


def _final_state(module: nn.LSTM, x: Tensor) -> tuple[Tensor, Tensor]:
    count = module.num_layers * (2 if module.bidirectional else 1)
    batch = x.shape[0 if module.batch_first else 1]
    h = record(np.zeros((count, batch, module.hidden_size), x.dtype))
    return h, h


def _conv(module: Any, x: Ints):
    return conv_geometry(
        x, module.weight.shape, module.stride, module.padding, module.dilation, module.groups
    )


def _pool(module: Any, x: Ints) -> tuple[Ints, list[Axis]]:
    """Return the output shape of a pooling, and its windows along its two or three axes."""
    flat = isinstance(module, FLAT)
    rank = 2 if flat else 3

    def three(name: str, fill: int, least: int) -> Ints:
        values = per_axis(name, getattr(module, name, 1), rank, least)
        return (fill, *values) if flat else values

    window, stride = three("kernel_size", 1, 1), three("stride", 1, 1)
    padding, dilation = three("padding", 0, 0), three("dilation", 1, 1)
    lifted = (*x[:2], 1, *x[2:]) if flat else x
    g = pool_geometry(lifted, window, stride, padding, dilation, module.ceil_mode)
    y = (*g.y[:2], *g.y[3:]) if flat else g.y
    return y, list(zip(window, stride, padding, dilation, strict=True))[-rank:]


@dataclass(frozen=True)
class LayerWindows:
    """How a layer's units see those before it: an `Axis` and a count of units for T, H, W."""

    axes: tuple[Axis, Axis, Axis]
    positions: Ints


def axis_windows(step: Step, positions: Sequence[int]) -> LayerWindows | None:
    """Return the windows of a step along T, H, W; None where they are not known.

    A module of another kind may say them itself, in a method `windows(positions)` that returns
    a `LayerWindows`.

    Args:
        step: the layer as it ran.
        positions: how many units there were along T, H, W before it.
    """
    module, t = step.module, positions[0]
    alone: Axis = (1, 1, 0, 1)

    def merged(*which: bool) -> LayerWindows:
        """All units along some axes become one."""
        axes = tuple((n, n, 0, 1) if m else alone for m, n in zip(which, positions, strict=True))
        left = tuple(1 if m else n for m, n in zip(which, positions, strict=True))
        return LayerWindows(axes, left)  # type: ignore[arg-type]

    if isinstance(module, (*CONVS, *POOLS)):
        if isinstance(module, CONVS):
            pads = resolve_padding(
                module.padding, module.kernel_size, module.stride, module.dilation
            )
            sizes = (module.kernel_size, module.stride, [lo for lo, _ in pads], module.dilation)
            axes = list(zip(*sizes, strict=True))
        else:
            axes = _pool(module, step.x)[1]
        if not isinstance(module, FLAT):
            return LayerWindows(tuple(axes), step.y[2:])  # type: ignore[arg-type]
        over_time = (t, t, 0, 1) if len(step.x) == 5 else alone  # early fusion takes all frames
        frames = 1 if len(step.x) == 5 else t
        return LayerWindows((over_time, axes[0], axes[1]), (frames, *step.y[2:]))
    if isinstance(module, nn.GlobalAvgPool):
        return merged(len(step.x) == 5, True, True)
    if isinstance(module, nn.Linear):
        return merged(not step.per_frame and len(step.x) == 2, True, True)
    if isinstance(module, nn.LSTM):
        return merged(True, True, True)
    if isinstance(module, (*ELEMENTWISE, nn.Flatten)):
        return merged(False, False, False)
    return module.windows(tuple(positions)) if hasattr(module, "windows") else None


def size(shape: Sequence[int], per_frame: bool = False) -> Ints:
    """Return a layer's size as the lecture writes it: `C T H W`, `C H W` where time is gone, `C T`.

    Args:
        shape: of a batch of one; `T C ...` where the layer runs `per_frame`.
    """
    if per_frame:
        return (shape[1], shape[0], *shape[2:])
    return (shape[2], shape[1]) if len(shape) == 3 else tuple(shape[1:])  # (1, T, F) of an LSTM


def size_text(sizes: Sequence[int]) -> str:
    """Return `12×20×64×64`."""
    return "×".join(map(str, sizes))
