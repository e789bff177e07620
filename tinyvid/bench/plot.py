"""The roofline of a run as a picture: what was reached, below what the machine allows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from tinyvid.bench.machine import line
from tinyvid.bench.results import OURS, Measured, Results

# Of Okabe and Ito: told apart by everybody.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "os^Dv*"
INK, FAINT = "#333333", "#999999"
_NOTE: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": INK}


def roofline(results: Results, path: Path) -> bool:
    """Draw operations a second against operations a byte, both logarithmic, into a PNG.

    Each task is a thin line with a number; its contestants stand on it, ours filled. What lies
    above the roof does fewer multiplications than the definition.

    Returns:
        Whether there was anything to draw: tasks with operations and bytes, and ceilings.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    drawn = [one for one in results.measured if one.flops and one.moved and one.timed]
    if not drawn or not results.gflops:
        return False
    drawn.sort(key=_intensity)
    figure = Figure(figsize=(10, 6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ridge = results.gflops / results.gbps
    low, high = min(_intensity(drawn[0]), ridge) / 2, max(_intensity(drawn[-1]), ridge) * 2
    rates = [one.flops / each.median / 1e9 for one in drawn for each in one.timed]
    bottom, top = min(rates) / 3, max(*rates, results.gflops) * 2
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(bottom, top))
    _roof(axes, results, low, high, bottom)
    rows = _rows([math.log(_intensity(one) / low) / math.log(high / low) for one in drawn])
    for number, (one, row) in enumerate(zip(drawn, rows, strict=True), 1):
        best = max(one.flops / each.median / 1e9 for each in one.timed)
        axes.plot([_intensity(one)] * 2, [bottom, best], color=FAINT, lw=0.6, zorder=1)
        at = {"xytext": (-2, 3 + 9 * row), "ha": "right", **_NOTE, "fontsize": 7.5}
        axes.annotate(str(number), (_intensity(one), bottom), **at)
    names = list(dict.fromkeys(each.name for one in drawn for each in one.timed))
    for place, name in enumerate(names):
        _points(axes, drawn, name, place)
    axes.set_xlabel("operations of the definition, for each byte that must be moved")
    axes.set_ylabel("operations of the definition, 10⁹ a second")
    _finish(axes)
    figure.suptitle(line(results.machine), fontsize=9, color=INK, x=0.01, ha="left")
    legend = figure.legend(loc="outside right upper", fontsize=8.5, frameon=False, alignment="left")
    cases = "\n".join(
        f"{number:>2}  {one.label or f'{one.op} {one.pass_} {one.case}'}"
        for number, one in enumerate(drawn, 1)
    )
    if len(drawn) <= MOST:
        legend.set_title(f"{cases}\n", FontProperties(size=7.5))
    figure.savefig(path)
    return True


MOST = 40  # names of tasks that there is room for


def _rows(places: list[float]) -> list[int]:
    """Return the row of each label at the foot of its line: the lowest that is free there."""
    ends: list[float] = []  # of each row, where its last label stands
    found = []
    for place in places:
        row = next((r for r, end in enumerate(ends) if place - end > 0.025), len(ends))
        ends[row:] = [place, *ends[row + 1 :]]
        found.append(row)
    return found


def _roof(axes: Any, results: Results, low: float, high: float, bottom: float) -> None:
    x = np.geomspace(low, high, 200)
    roof = np.minimum(results.gflops, x * results.gbps)
    axes.fill_between(x, bottom, roof, color="#f2f4f7", zorder=0)
    about = f"a large product: {results.gflops:,.0f} GFLOP/s\na large copy: {results.gbps:.0f} GB/s"
    axes.plot(x, roof, color=INK, lw=1.4, zorder=2, label=about)


def _points(axes: Any, drawn: list[Measured], name: str, place: int) -> None:
    """Draw a contestant on every task that it was timed on, ours filled."""
    found = [(one, each) for one in drawn for each in one.timed if each.name == name]
    colour, ours = COLOURS[place % len(COLOURS)], found[0][1].role == OURS
    axes.plot(
        [_intensity(one) for one, _ in found],
        [one.flops / each.median / 1e9 for one, each in found],
        MARKERS[place % len(MARKERS)],
        color=colour,
        markerfacecolor=colour if ours else "white",
        markersize=6.5 if ours else 5,
        label=name,
        zorder=4 if ours else 3,
    )


def _finish(axes: Any) -> None:
    from matplotlib.ticker import NullFormatter

    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_formatter("{x:,g}")
        scale.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _intensity(of: Measured) -> float:
    return of.flops / of.moved
