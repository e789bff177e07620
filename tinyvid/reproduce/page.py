"""The report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from pathlib import Path

from tinyvid.reproduce import texts
from tinyvid.reproduce.charts import curve_chart, share_chart
from tinyvid.reproduce.results import MOST_CLASSES, Results, ShiftCurve, most_confused
from tinyvid.reproduce.shift import CHANCE
from tinyvid.shift import SHIFTS

HERE = Path(__file__).parent


def page(results: Results, pictures: Path) -> str:
    """Return the report as HTML, pictures and style inside.

    Args:
        pictures: the folder of the pictures that the results name.

    Raises:
        OSError: a picture is missing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def data(name: str) -> str:
        content = (pictures / f"{name}.webp").read_bytes()
        return f"data:image/webp;base64,{base64.b64encode(content).decode()}"

    def curves(name: str) -> Markup:
        label = f"Hit@1 of {results.systems[name].label} over the epochs"
        return Markup(curve_chart(results.systems[name].log, label, f"curve-{name}"))

    def clips(name: str) -> Markup:
        system = results.systems[name]
        label = f"Video Hit@1 of {system.label} over the number of test clips"
        points = {float(n): share for n, share in system.by_clips.items()}
        drawn = share_chart(points, label, results.chance, "test clips", f"clips-{name}")
        return Markup(drawn)

    def later(curve: ShiftCurve, number: int) -> Markup:
        label = f"Video Hit@1 of {curve.label} over the frames by which the action comes later"
        points = {float(n): share for n, share in curve.points.items()}
        drawn = share_chart(points, label, CHANCE, "frames later", f"shift-{number}")
        return Markup(drawn)

    environment.globals.update(
        later=later,
        small=texts.small,
        shifts=SHIFTS,
        data=data,
        curves=curves,
        clips=clips,
        percent=texts.percent,
        interval=texts.interval,
        wilson=texts.wilson,
        count=texts.count,
        most_confused=most_confused,
        most_classes=MOST_CLASSES,
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
    )
    shown = {n: s for n, s in results.systems.items() if s.explained is not None}
    return environment.get_template("report.html").render(r=results, shown=shown)
