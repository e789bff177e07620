"""Receptive fields: which cells of the clip a unit can see, worked out and measured.

Along one axis the windows of a layer's units are described by three numbers: the `size` of a
unit's window in cells of the clip, the `jump` from one unit's window to the next one's, and
the `start` of the first unit's window (below 0 where it begins in padding). A layer of kernel
k, stride s, padding p and dilation d turns them into

    size + d (k - 1) jump,    jump s,    start - p jump.

Le and Borji, "What are the receptive, effective receptive, and projective fields of neurons in
convolutional neural networks?", 2017, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tinyvid import nn
from tinyvid.errors import UserError
from tinyvid.ops.shape import getitem
from tinyvid.tensor import Tensor, grad, no_grad
from tinyvid.trace import Step, axis_windows

Ints: TypeAlias = tuple[int, ...]
Box: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """The windows of a layer's units along one axis of the clip; see the module's docstring."""

    size: int = 1
    jump: int = 1
    start: int = 0

    def through(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Window:
        """Return the windows after a layer; `padding` is that at the low end."""
        return Window(
            self.size + dilation * (kernel - 1) * self.jump,
            self.jump * stride,
            self.start - padding * self.jump,
        )

    def cells(self, index: int, extent: int) -> tuple[int, int]:
        """Return the first cell that unit `index` sees and the one after its last, of `extent`."""
        first = self.start + index * self.jump
        return min(max(first, 0), extent), max(min(first + self.size, extent), 0)


@dataclass(frozen=True)
class ReceptiveField:
    """The windows of a layer's units along time, height and width."""

    windows: tuple[Window, Window, Window] = (Window(), Window(), Window())

    @property
    def size(self) -> Ints:
        """`T×H×W` of a unit's window, though it may be larger than the clip."""
        return tuple(w.size for w in self.windows)

    def clipped(self, clip: Sequence[int]) -> Ints:
        """`T×H×W` of a unit's window, at most that of a clip `C T H W`."""
        return tuple(min(w.size, n) for w, n in zip(self.windows, clip[1:], strict=True))

    def cells(self, unit: Sequence[int], clip: Sequence[int]) -> Box:
        """Return the (first, end) cells along T, H, W that the unit at (t, h, w) sees."""
        axes = zip(self.windows, unit, clip[1:], strict=True)
        return tuple(w.cells(i, n) for w, i, n in axes)


def receptive_fields(steps: Sequence[Step], clip: Sequence[int]) -> list[ReceptiveField | None]:
    """Return the receptive field of a unit after each step, by the analytic rule.

    The steps are taken as a chain, each seeing the one before. A layer whose windows are not
    known (see `axis_windows`) and those after it get None.

    Args:
        steps: from `tinyvid.trace.trace`.
        clip: `C T H W`.
    """
    fields: list[ReceptiveField | None] = []
    field: ReceptiveField | None = ReceptiveField()
    positions = tuple(clip[1:])  # how many units lie along T, H, W
    for step in steps:
        layer = axis_windows(step, positions)
        if layer is None or field is None:
            field = None
        else:
            windows = tuple(
                w.through(*axis) for w, axis in zip(field.windows, layer.axes, strict=True)
            )
            field, positions = ReceptiveField(windows), layer.positions  # type: ignore[arg-type]
        fields.append(field)
    return fields


def measured_receptive_field(
    model: nn.Module,
    clip: Sequence[int],
    layer: str,
    unit: Sequence[int] = (0, 0, 0),
    trials: int = 12,
    seed: int = 0,
) -> Box:
    """Return the box of cells that the unit at (t, h, w) of a layer sees, found by gradients.

    Weights, inputs and cotangents are random and positive, so that no ReLU is shut and no two
    paths cancel. A maximum shows one cell of its window only, so the cells of several trials
    are united. The model's own weights are put back afterwards.

    Args:
        model: takes a clip `1 C T H W`; it is run in evaluation mode.
        clip: `C T H W`.
        layer: the dotted name of a layer in the model; its first output is looked at.
        unit: which unit of that layer; axes that the layer's output lacks must be 0.

    Returns:
        (first, end) along T, H, W.

    Raises:
        UserError: the model has no such layer, or the layer no such unit.
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        raise UserError(
            f"the model has no layer {layer!r}; it has {', '.join(filter(None, modules))}"
        )
    rng = np.random.default_rng(seed)
    weights, training = model.state_dict(), [(m, m.training) for m in model.modules()]
    caught: list[Tensor] = []
    seen = np.zeros(tuple(clip[1:]), bool)
    model.eval()
    try:
        with modules[layer].register_forward_hook(lambda m, x, y: caught.append(y)):
            for _ in range(trials):
                _make_positive(model, rng)
                x = Tensor(rng.uniform(0.5, 1.5, (1, *clip)).astype(np.float32), requires_grad=True)
                model(x)
                y = caught[0][0] if isinstance(caught[0], tuple) else caught[0]
                caught.clear()
                y = _unit(y, unit)
                g = grad(y, x, Tensor(rng.uniform(0.5, 1.5, y.shape).astype(y.dtype)))
                seen |= (g.data != 0).any((0, 1))
    finally:
        model.load_state_dict(weights)
        for module, mode in training:
            module.training = mode
    cells = np.nonzero(seen)
    return tuple((int(axis.min()), int(axis.max()) + 1) for axis in cells)


def _make_positive(model: nn.Module, rng: np.random.Generator) -> None:
    """Draw positive weights that keep activations near 1 through any number of layers."""
    with no_grad():
        for p in model.parameters():
            if p.ndim >= 2:
                fan_in = p.size // p.shape[0]
                p.copy_(rng.uniform(0.5, 1.5, p.shape) / fan_in)


def _unit(y: Tensor, unit: Sequence[int]) -> Tensor:
    """Return all channels of one unit of `N C T H W`, `N·T C H W`, `N T F` or `N F`."""
    t, h, w = unit
    index = {
        5: (0, slice(None), t, h, w),
        4: (t, slice(None), h, w),
        3: (0, t),
        2: (t,),
    }[y.ndim]
    try:
        return getitem(y, index)
    except IndexError as error:
        raise UserError(f"unit {tuple(unit)}: the layer's output has shape {y.shape}") from error
