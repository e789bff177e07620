"""Charts as SVG that takes its colours from the page, so that they suit a light and a dark one.

Matplotlib draws them in the colours below, for which the page's own names are put in afterwards.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyvid.reproduce.results import Share

INK, FAINT = "#102030", "#a0b0c0"
COLOURS = ("#0072b2", "#d55e00")
NAMES = {INK: "ink", FAINT: "faint", COLOURS[0]: "blue", COLOURS[1]: "orange"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tinyvid",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
}
SIZE = (3.3, 2.1)  # inches


def share_chart(
    points: Mapping[float, Share], label: str, chance: float, xlabel: str, name: str
) -> str:
    """Draw shares with their intervals over numbers, and chance as a dotted line.

    Args:
        label: what a screen reader says. name: makes the drawing's inner names unlike others'.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axis = _figure()
        x = list(points)
        value, low, high = (
            100 * np.array([getattr(s, part) for s in points.values()])
            for part in ("value", "low", "high")
        )
        axis.fill_between(x, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
        axis.plot(x, value, color=COLOURS[0], marker="o", markersize=4, clip_on=False)
        axis.axhline(100 * chance, color=INK, linestyle=":", linewidth=1)
        axis.set(ylim=(0, 102), xlabel=xlabel, ylabel="Video Hit@1 (%)")
        axis.set_xticks(x)
        return _svg(figure, label, name)


def curve_chart(log: Mapping[str, Sequence[Mapping[str, Any]]], label: str, name: str) -> str:
    """Draw Hit@1 over the epochs, of training clips and, where there are any, validation videos.

    Args:
        log: the rows of each training's log. Several trainings are thin lines around their mean.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axis = _figure()
        ends = [rows[-1]["train_acc"] for rows in log.values()]
        bottom = 0.05 if np.mean(ends) > 0.4 else 0.8  # where the curves are not
        for key, colour, text, place in (
            ("train_acc", COLOURS[0], "training clips", bottom),
            ("val_hit1", COLOURS[1], "validation videos", bottom + 0.12),
        ):
            runs = [[row[key] for row in rows] for rows in log.values()]
            runs = [run for run in runs if None not in run]
            if not runs:
                continue
            epochs = np.arange(1, len(runs[0]) + 1)
            if len(runs) > 1:
                for run in runs:
                    axis.plot(epochs, 100 * np.array(run), color=colour, alpha=0.3, linewidth=1)
            mean = 100 * np.mean(runs, axis=0)
            axis.plot(epochs, mean, color=colour, marker="o", markevery=[-1], clip_on=False)
            at = (0.98, place)
            axis.annotate(text, at, xycoords="axes fraction", ha="right", color=colour)
        axis.set(ylim=(0, 102), xlabel="epoch", ylabel="Hit@1 (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        return _svg(figure, label, name)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any, label: str, name: str) -> str:
    content = io.StringIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, known in NAMES.items():
        text = text.replace(colour, f"var(--{known})")
    # Names inside one drawing must not meet those of another on the same page.
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', text)
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font: \1px var(--sans)", text)
    from markupsafe import escape

    described = f'<svg role="img" aria-label="{escape(label)}"'
    return text.replace("<svg", described, 1).strip()
