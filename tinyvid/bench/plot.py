"""The roofline of a run as a picture: what was reached, below what the machine allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinyvid.bench.results import Measured, Results

COLOURS = ("#1f6fb4", "#d1495b", "#6a994e", "#8d6a9f", "#e09f3e", "#5c677d")
MARKERS = "os^Dv*"


def roofline(results: Results, path: Path) -> bool:
    """Draw operations a second against operations a byte, both logarithmic, into a PNG.

    Returns:
        Whether there was anything to draw: tasks with operations and bytes, and ceilings.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    drawn = [one for one in results.measured if one.flops and one.moved and one.timed]
    if not drawn or not results.gflops:
        return False
    figure = Figure(figsize=(9, 5.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    intensities = [one.flops / one.moved for one in drawn]
    ridge = results.gflops / results.gbps
    low, high = min(*intensities, ridge) / 2, max(*intensities, ridge) * 2
    x = np.geomspace(low, high, 200)
    axes.plot(x, np.minimum(results.gflops, x * results.gbps), color="black", lw=1.2)
    copy, product = f"copy: {results.gbps:.0f} GB/s", f"product: {results.gflops:.0f} GFLOP/s"
    axes.annotate(product, (high, results.gflops), (-4, 4), ha="right", **_NOTE)
    axes.annotate(copy, (low, low * results.gbps), (14, -16), ha="left", **_NOTE)
    names = list(dict.fromkeys(line.name for one in drawn for line in one.timed))
    for number, name in enumerate(names):
        points = [(one.flops / one.moved, rate) for one in drawn for rate in _rates(one, name)]
        axes.plot(
            *zip(*points, strict=True),
            MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            alpha=0.8,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_xlabel("operations for each byte that must be moved")
    axes.set_ylabel("GFLOP/s")
    ops = ", ".join(dict.fromkeys(f"{one.op} {one.pass_}" for one in drawn))
    axes.set_title(f"{ops}\n{results.machine['processor']}", fontsize=10)
    axes.grid(alpha=0.25, which="both")
    rates = [rate for one in drawn for name in names for rate in _rates(one, name)]
    axes.set_ylim(min(rates) / 2, max(*rates, results.gflops) * 1.5)
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_formatter("{x:g}")
        scale.set_minor_formatter(NullFormatter())
    cases = {one.flops / one.moved: one.case for one in drawn}
    for at, case in cases.items() if len(cases) <= 12 else ():
        axes.annotate(case, (at, axes.get_ylim()[0]), (-4, 6), rotation=90, ha="right", **_NOTE)
    figure.legend(loc="outside right upper", fontsize=9)
    figure.savefig(path)
    return True


_NOTE: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}


def _rates(one: Measured, name: str) -> list[float]:
    return [one.flops / line.median / 1e9 for line in one.timed if line.name == name]
