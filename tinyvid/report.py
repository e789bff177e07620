"""Pictures of a run: its curves and its confusion matrix, as PNG.

Matplotlib is imported when a picture is drawn, and draws off screen. The two colours differ
in lightness too, so that they are told apart in print and with any colour vision; lines are
labelled where they end.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvid.checkpoint import write_atomically
from tinyvid.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN, VAL = "#0072b2", "#d55e00"  # blue and vermilion of Okabe and Ito's palette
# The same palette without yellow, which is hard to see on white.
COLOURS = (TRAIN, VAL, "#009e73", "#cc79a7", "#56b4e9")
INK, FAINT = "#222222", "#9a9a9a"

FEW = 8  # epochs, of which each is named

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.8,
}


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> None:
    """Draw loss, accuracy and learning rate over the epochs.

    Args:
        rows: one an epoch, with the keys of `log.csv`; validation values may be None.
        path: the PNG to write.

    Raises:
        UserError: there are no rows, or the file cannot be written.
    """
    if not rows:
        raise UserError(f"{path}: there is no finished epoch to draw")
    with _style():
        _save(_curves(rows, title), path)


def _curves(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    epochs = [row["epoch"] for row in rows]
    figure, axes = _figure(1, 3, (10.5, 3.3), width_ratios=[1, 1, 0.7])
    # Space between the lines' names and the next axis:
    figure.set_layout_engine("constrained", wspace=0.04)
    loss, hit, lr = axes
    best = _best(rows)
    _line(loss, epochs, rows, "train_loss", "training", TRAIN)
    _line(loss, epochs, rows, "val_loss", "validation", VAL, best)
    loss.set(title="Loss (cross-entropy, nats)", ylim=(0, None))
    _line(hit, epochs, rows, "train_acc", "training clips", TRAIN, scale=100)
    _line(hit, epochs, rows, "val_hit1", "validation videos", VAL, best, scale=100)
    hit.set(title="Hit@1 (%)", ylim=(0, 102))
    _line(lr, epochs, rows, "lr", "", INK)
    if len(epochs) <= FEW:  # a line would have corners where the rate has none
        for line in lr.get_lines():
            line.set_drawstyle("steps-mid")
    lr.set(title="Learning rate", ylim=(0, None))
    lr.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    lr.yaxis.get_major_locator().set_params(nbins=4)
    for axis in axes:
        axis.set_xlabel("epoch")
        if len(epochs) <= FEW:
            axis.set_xticks(epochs)
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        room = 0.5 if len(epochs) == 1 else 0.03 * (epochs[-1] - epochs[0])
        axis.set_xlim(epochs[0] - room, epochs[-1] + room)
    lr.set_xlabel("epoch (at its end)")
    _spread_labels(loss)
    _spread_labels(hit)
    if best is not None:
        marked = f"●  best: epoch {epochs[best]}"
        hit.set_title(marked, loc="right", color=VAL, size=9, weight="normal")
    if title:
        figure.suptitle(title, x=0.008, ha="left", fontsize=11)
    return figure


def _best(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The row whose weights are kept as the best; None where nothing validates."""
    validated = [i for i, row in enumerate(rows) if row["val_hit1"] is not None]
    if not validated:
        return None
    return max(validated, key=lambda i: (rows[i]["val_hit1"], -(rows[i]["val_loss"] or 0)))


def plot_confusion(
    confusion: np.ndarray, classes: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Draw a confusion matrix: a row for each true class, shaded by its share of the row.

    Args:
        confusion: counts `(classes, classes)`, row the true class, column the predicted.
        path: the PNG to write.
    """
    confusion = np.asarray(confusion)
    if confusion.shape != (len(classes), len(classes)):
        raise UserError(f"confusion of shape {confusion.shape} for {len(classes)} classes")
    with _style():
        _save(_confusion(confusion, classes, title), path)


def _confusion(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    count = len(classes)
    totals = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(totals, 1)
    longest = max(len(name) for name in classes)
    room = 0.075 * min(longest, 30)  # inches
    cell = 0.55 if count <= 20 else max(0.12, 11 / count)
    side = max(2.0, cell * count)
    about, _, found = title.rpartition(": ")  # what was tested, and how it went, on two lines
    # Characters of this font are 0.09 inches wide on average; a title is rarely wider.
    width = max(side + room + 1.2, min(0.09 * max(len(about), len(found)) + 0.2, 9.0))
    figure, axis = _figure(1, 1, (width, side + room * 0.75 + 0.9))
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    if count <= 30:
        for i, j in np.argwhere(confusion > 0):
            shade = "white" if share[i, j] > 0.55 else INK
            axis.text(j, i, str(confusion[i, j]), ha="center", va="center", color=shade)
    shown = [name if len(name) <= 30 else name[:29] + "…" for name in classes]
    size = 9 if count <= 30 else max(3.0, 270 / count)
    axis.set_xticks(range(count), shown, rotation=45, ha="right", rotation_mode="anchor", size=size)
    counts = [f"{name}  ({n})" for name, n in zip(shown, totals[:, 0], strict=True)]
    axis.set_yticks(range(count), counts, size=size)
    axis.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axis.grid(True, which="minor", axis="both", color="white", linewidth=1.5 if count <= 30 else 0)
    axis.tick_params(which="both", length=0)
    axis.set(xlabel="predicted", ylabel="true class (videos)")
    if title:
        fits = int(width / 0.09)
        lines = [line for part in (about, found) for line in textwrap.wrap(part, fits)]
        figure.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=10, weight="bold")
    return figure


def plot_probabilities(
    times: Sequence[float],
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: str | Path,
    title: str = "",
    steps: bool = False,
) -> None:
    """Draw how probable the classes are as a video goes on, those that ever are the most so.

    Args:
        times: seconds, `(n,)`. probabilities: `(n, classes)` at these moments.
        path: the PNG to write.
        steps: whether the moments are single frames; else the middles of clips, which are marked.

    Raises:
        UserError: shapes do not fit, or the file cannot be written.
    """
    if probabilities.shape != (len(times), len(classes)) or not len(times):
        raise UserError(
            f"probabilities of shape {probabilities.shape} for {len(times)} moments and "
            f"{len(classes)} classes"
        )
    order = np.argsort(-probabilities.max(axis=0), kind="stable")[: len(COLOURS)]
    with _style():
        figure, axis = _figure(1, 1, (8.0, 3.0))
        for label, colour in zip(order, COLOURS, strict=False):
            axis.plot(
                times,
                100 * probabilities[:, label],
                color=colour,
                label=classes[label],
                marker="" if steps and len(times) > 1 else "o",
                clip_on=False,
            )
        axis.set(ylim=(0, 100), xlabel="seconds", ylabel="probability (%)")
        room = 0.02 * (times[-1] - times[0]) or 0.5
        axis.set_xlim(times[0] - room, times[-1] + room)
        _spread_labels(axis)
        if title:
            axis.set_title(title)
        _save(figure, path)


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _figure(rows: int, columns: int, size: tuple[float, float], **grid: Any) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)  # draws off screen, whatever back end the user has chosen
    return figure, figure.subplots(rows, columns, gridspec_kw=grid or None)


def _line(
    axis: Any,
    epochs: Sequence[int],
    rows: Sequence[Mapping[str, Any]],
    key: str,
    label: str,
    colour: str,
    best: int | None = None,
    scale: float = 1.0,
) -> None:
    values = np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)
    if np.isnan(values).all():
        return
    dots = [0] if len(rows) == 1 else [best] if best is not None else []
    axis.plot(
        epochs,
        values * scale,
        color=colour,
        marker="o",
        markevery=dots,
        label=label,
        clip_on=False,
    )


def _spread_labels(axis: Any) -> None:
    """Name each line at its end, in its colour, the names moved apart where the ends meet."""
    lines = axis.get_lines()
    low, high = axis.get_ylim()
    gap = 0.085 * (high - low)
    ends = sorted(lines, key=lambda line: _last(line))
    heights: list[float] = []
    for line in ends:
        heights.append(max(_last(line), heights[-1] + gap) if heights else _last(line))
    surplus = max(0.0, heights[-1] - high) if heights else 0.0
    for line, height in zip(ends, heights, strict=True):
        axis.annotate(
            line.get_label(),
            (1.0, height - surplus),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
            annotation_clip=False,
        )


def _last(line: Any) -> float:
    values = np.asarray(line.get_ydata())
    return float(values[~np.isnan(values)][-1])


def _save(figure: Figure, path: str | Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    write_atomically(path, content.getvalue())
