"""A network layer by layer: sizes, receptive fields, parameters, arithmetic and memory.

Nothing is computed: shapes are followed through the layers (`tinyvid.trace`), so that C3D
takes no longer than a toy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from tinyvid import nn
from tinyvid.geometry import per_axis
from tinyvid.receptive_field import receptive_fields
from tinyvid.trace import CONVS, ELEMENTWISE, FLAT, MAX_POOLS, POOLS, Step, size, size_text, trace

Ints: TypeAlias = tuple[int, ...]

FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Row:
    """What one layer does to a single clip.

    Attributes:
        name: the layer's name in the network.
        layer: what it is, `Conv3D(3×3×3, 3→12)`.
        then: the element-wise layers folded into this row, in order.
        size: its output as the lecture writes it, `C T H W`; `C H W` where time is gone.
        receptive_field: `T H W` of a unit, though it may be larger than the clip; None where
            it is not known.
        clipped: the same, at most the clip.
        parameters: learnt numbers; those of a shared layer are counted where it first runs.
        macs: multiply-accumulates; flops: twice as many.
        training_bytes: of the float32 arrays that the engine keeps for the backward pass (one
            for each operation in the layer), and of the argmax of a max pool. Where layers run as
            one operation it keeps less; `tinyvid.step_memory` knows.
        inference_bytes: of the activations that are alive while it runs: input and output.
    """

    name: str
    layer: str
    then: tuple[str, ...]
    size: Ints
    receptive_field: Ints | None
    clipped: Ints | None
    parameters: int
    macs: int
    training_bytes: int
    inference_bytes: int

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiply-accumulate is two."""
        return 2 * self.macs

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain values, for JSON and CSV."""
        values = asdict(self)
        values["flops"] = self.flops
        return values


def summarise(model: nn.Module, clip: Sequence[int], fold: bool = False) -> list[Row]:
    """Return a row for the clip and one for each layer that it passes through.

    MACs are those of convolutions, fully connected layers and LSTMs.

    Args:
        model: takes `N C T H W`.
        clip: `C T H W`.
        fold: put the element-wise layers (ReLU, normalisation, dropout) and Flatten into the
            row of the layer they follow.

    Raises:
        UserError: the clip does not fit; the message names the layer.
    """
    clip = tuple(clip)
    steps = trace(model, clip)
    fields = receptive_fields(steps, clip)
    clip_bytes = FLOAT * math.prod(clip)
    rows = [Row("clip", "input", (), clip, (1, 1, 1), (1, 1, 1), 0, 0, clip_bytes, clip_bytes)]
    names = _short_names([step.name for step in steps])
    seen: set[int] = set()
    for name, step, field in zip(names, steps, fields, strict=True):
        row = Row(
            name,
            label(step),
            (),
            _size(step),
            field.size if field else None,
            field.clipped(clip) if field else None,
            0 if id(step.module) in seen else sum(p.size for p in step.module.parameters()),
            step.macs,
            _kept_bytes(step),
            _alive_bytes(step),
        )
        seen.add(id(step.module))
        if fold and isinstance(step.module, (*ELEMENTWISE, nn.Flatten)):
            rows[-1] = _folded(rows[-1], row)
        else:
            rows.append(row)
    return rows


def total(rows: Sequence[Row]) -> Row:
    """Return the sums over a network; of the inference bytes the largest, for its peak."""
    return replace(
        rows[-1],
        name="total",
        layer="",
        then=(),
        parameters=sum(r.parameters for r in rows),
        macs=sum(r.macs for r in rows),
        training_bytes=sum(r.training_bytes for r in rows),
        inference_bytes=max(r.inference_bytes for r in rows),
    )


def label(step: Step) -> str:
    """Return what a layer is, as the lecture writes it: `Conv2D(3×3, 3·20→12)`."""
    m = step.module
    kind = type(m).__name__
    if isinstance(m, CONVS):
        # Early fusion takes the clip as it lies: its channels are C·T.
        taken = f"{step.x[1]}·{step.x[2]}" if len(step.x) - m.rank == 3 else str(m.in_channels)
        inside = f"{size_text(m.kernel_size)}, {taken}→{m.out_channels}"
        return f"Conv{m.rank}D({inside}{_stride(m.stride)})"
    if isinstance(m, POOLS):
        rank = 2 if isinstance(m, FLAT) else 3
        window = per_axis("kernel_size", m.kernel_size, rank, 1)
        stride = per_axis("stride", m.stride, rank, 1)
        padding = per_axis("padding", m.padding, rank, 0)
        text = size_text(window) + ("" if stride == window else _stride(stride))
        text += f", padding {size_text(padding)}" if any(padding) else ""
        return f"{'' if isinstance(m, MAX_POOLS) else 'Avg'}Pool{rank}D({text})"
    if isinstance(m, nn.GlobalAvgPool):
        return "GAP"
    if isinstance(m, nn.Linear):
        return f"Linear({m.in_features}→{m.out_features})"
    if isinstance(m, nn.LSTM):
        return f"LSTM({m.input_size}→{m.hidden_size})"
    if isinstance(m, nn.Dropout):
        return f"Dropout({m.p:g})"
    if isinstance(m, nn.LocalResponseNorm):
        return "LRN"
    return kind.removesuffix("1d").removesuffix("2d").removesuffix("3d")


def _stride(stride: Ints) -> str:
    if all(s == 1 for s in stride):
        return ""
    return f", stride {stride[0] if len(set(stride)) == 1 else size_text(stride)}"


def _size(step: Step) -> Ints:
    shape = size(step.y, step.per_frame)
    # A mean over positions leaves one of each: 24×1×1×1, or 64×16×1×1 for each frame.
    if isinstance(step.module, nn.GlobalAvgPool):
        shape += (1,) * (4 - len(shape))
    return shape


def _kept_bytes(step: Step) -> int:
    m, outputs = step.module, math.prod(step.y)
    if isinstance(m, nn.Flatten):
        return 0  # a view takes no memory
    arrays = 1
    if isinstance(m, nn.Dropout):
        arrays = 2  # the mask
    elif isinstance(m, nn.LocalResponseNorm):
        arrays = 7  # squares, padded, averaged, times alpha, plus k, power, quotient
    kept = FLOAT * arrays * outputs
    if isinstance(m, MAX_POOLS):
        rank = 2 if isinstance(m, FLAT) else 3
        window = math.prod(per_axis("kernel_size", m.kernel_size, rank, 1))
        kept += outputs * (1 if window <= 256 else 4)
    return kept


def _alive_bytes(step: Step) -> int:
    passes_on = isinstance(step.module, (nn.Flatten, nn.Dropout))  # its input itself
    return FLOAT * (math.prod(step.x) + (0 if passes_on else math.prod(step.y)))


def _folded(row: Row, after: Row) -> Row:
    return replace(
        row,
        then=(*row.then, after.layer),
        parameters=row.parameters + after.parameters,
        macs=row.macs + after.macs,
        training_bytes=row.training_bytes + after.training_bytes,
        inference_bytes=max(row.inference_bytes, after.inference_bytes),
    )


def _short_names(names: Sequence[str]) -> list[str]:
    """Return the last part of each dotted name where it tells the layers apart."""
    last = [name.rpartition(".")[2] for name in names]
    unique = {short for short in last if len({n for n in names if _ends(n, short)}) == 1}
    return [
        short if short in unique and not short.isdigit() else name
        for name, short in zip(names, last, strict=True)
    ]


def _ends(name: str, short: str) -> bool:
    return name.rpartition(".")[2] == short


@dataclass(frozen=True)
class Fusion:
    """One side of the lecture's comparison of early fusion with 3-D convolution.

    Attributes:
        name: which. weight: `K C·T R S` or `K C T R S`. weights: how many numbers.
        output: `K H W` or `K T H W`. macs: multiply-accumulates of one clip.
    """

    name: str
    weight: Ints
    weights: int
    output: Ints
    macs: int


def compare_fusion(clip: Sequence[int], filters: int) -> tuple[Fusion, Fusion]:
    """Return early fusion and 3-D convolution of the same clip, side by side.

    Both have 3×3 (×3) filters, stride 1 and keep the size of what they slide along.

    Args:
        clip: `C T H W`.
        filters: K.
    """
    c, t, _, _ = clip
    with nn.shapes_only():
        convs = {
            "early fusion": nn.Conv2d(c * t, filters, 3, padding="same", bias=False),
            "3-D convolution": nn.Conv3d(c, filters, 3, padding="same", bias=False),
        }
    early, slow = (
        Fusion(name, conv.weight.shape, conv.weight.size, size(step.y), step.macs)
        for name, conv in convs.items()
        for step in trace(conv, clip)
    )
    return early, slow
