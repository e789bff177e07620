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
from typing import Any, TypeAlias

import numpy as np

from tinyvid import nn
from tinyvid.backward import grad
from tinyvid.errors import UserError
from tinyvid.kernels import use
from tinyvid.ops.shape import getitem
from tinyvid.tensor import Tensor, no_grad
from tinyvid.trace import Axis, Step, axis_windows

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


@dataclass(frozen=True)
class ReceptiveField:
    """What a layer's units see along time, height and width.

    Attributes:
        windows: by the formula, which knows no border.
        seen: along each axis, for each unit the first cell of the clip that it sees and the
            one after the last. Cells that a stride leaves out at the end are missing here.
    """

    windows: tuple[Window, Window, Window]
    seen: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def size(self) -> Ints:
        """`T×H×W` of a unit's window, though it may be larger than the clip."""
        return tuple(w.size for w in self.windows)

    def clipped(self, clip: Sequence[int]) -> Ints:
        """`T×H×W` of a unit's window, at most that of a clip `C T H W`."""
        return tuple(min(w.size, n) for w, n in zip(self.windows, clip[1:], strict=True))

    def cells(self, unit: Sequence[int]) -> Box:
        """Return the (first, end) cells along T, H, W that the unit at (t, h, w) sees."""
        return tuple(axis[i] for axis, i in zip(self.seen, unit, strict=True))


def receptive_fields(steps: Sequence[Step], clip: Sequence[int]) -> list[ReceptiveField | None]:
    """Return the receptive field of a unit after each step, worked out from the layers' sizes.

    Each step sees the one that it comes after; one that joins streams is said to see what the last
    of them sees. A layer whose windows are not known (see `axis_windows`) and those after it get
    None.

    Args:
        steps: from `tinyvid.trace.trace`.
        clip: `C T H W`.
    """
    cells = tuple(tuple((i, i + 1) for i in range(n)) for n in clip[1:])
    # The clip's own stands last, where a step after -1 finds it.
    fields: list[ReceptiveField | None] = [None] * len(steps)
    fields.append(ReceptiveField((Window(), Window(), Window()), cells))
    for i, step in enumerate(steps):
        before = fields[step.after]
        layer = axis_windows(step, tuple(map(len, before.seen))) if before is not None else None
        if before is None or layer is None:
            continue
        t, h, w = (w.through(*axis) for w, axis in zip(before.windows, layer.axes, strict=True))
        seen = tuple(map(cells_through, before.seen, layer.axes, layer.positions))
        fields[i] = ReceptiveField((t, h, w), seen)
    return fields[:-1]


def cells_through(
    seen: Sequence[tuple[int, int]], axis: Axis, count: int
) -> tuple[tuple[int, int], ...]:
    """Return the (first, end) cells that `count` units of a layer see, given those before it.

    Args:
        seen: for each unit before the layer.
        axis: kernel, stride, padding at the low end, dilation. Padding sees nothing.
    """
    kernel, stride, padding, dilation = axis
    boxes = []
    for i in range(count):
        taps = (i * stride - padding + dilation * k for k in range(kernel))
        inside = [seen[tap] for tap in taps if 0 <= tap < len(seen)]
        boxes.append((min(lo for lo, _ in inside), max(hi for _, hi in inside)))
    return tuple(boxes)


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
    are united: in every other one some inputs are so large that they alone decide, which
    shows units at the border too. The model's own weights are put back afterwards.

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
    weights = model.state_dict()
    before = [(m, m.training) for m in model.modules()]
    learnt = [p for p in model.parameters() if p.requires_grad]
    seen = np.zeros(tuple(clip[1:]), bool)
    model.eval().requires_grad_(False)
    try:
        for trial in range(trials):
            _make_positive(model, rng)
            values = rng.lognormal(0, (0.3, 3)[trial % 2], (1, *clip))
            x = Tensor((values / values.max()).astype(np.float32), requires_grad=True)
            # Sums of products alone: Winograd's algorithm leaves rounding where zeros belong.
            with use(conv2d="cpu/im2col", conv3d="cpu/im2col"):
                y = _unit(_output(model, modules[layer], x), unit)
                g = grad(y, x, Tensor(rng.uniform(0.5, 1.5, y.shape).astype(y.dtype)))
            seen |= (g.data != 0).any((0, 1))
    finally:
        model.load_state_dict(weights)
        for module, mode in before:
            module.training = mode
        for p in learnt:
            p.requires_grad_()
    cells = np.nonzero(seen)
    return tuple((int(axis.min()), int(axis.max()) + 1) for axis in cells)


class _Reached(Exception):
    """Carries the output of the layer asked for out of a forward pass, which need not go on."""


def _output(model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    def stop(module: nn.Module, inputs: tuple, y: Any) -> None:
        raise _Reached(y)

    with layer.register_forward_hook(stop):
        try:
            model(x)
        except _Reached as reached:
            y = reached.args[0]
            return y[0] if isinstance(y, tuple) else y
    raise UserError("the model does not run the layer asked for")


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
