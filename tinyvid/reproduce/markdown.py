"""The results as Markdown: every table, and the pictures by their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinyvid.reproduce.results import (
    MOST_CLASSES,
    Measured,
    Results,
    Share,
    Table,
    most_confused,
)
from tinyvid.reproduce.shift import FRAMES, MOVING, STILL
from tinyvid.reproduce.texts import count, interval, percent, small, wilson
from tinyvid.shift import SHIFTS

HERE = ("Clip Hit@1", "Video Hit@1", "Video Hit@5")


def markdown(results: Results) -> str:
    """Return the whole report as Markdown; pictures are links into the folder beside it."""
    parts = [f"# The lecture's comparisons on {_plain(results.data)}", _facts(results)]
    for table in results.tables:
        parts += [f"## {table.title}", comparison(table, results)]
    parts += ["## When an action comes later", shift_section(results)]
    parts += ["## Number of test clips", _clips(results)]
    parts += ["## What it costs", _costs(results)]
    parts += ["## Which class is taken for which"]
    parts += [_confusion(name, results) for name in results.systems if _shown(name, results)]
    parts += ["## Sample clips", _samples(results)]
    parts += ["## The worked example, and C3D"]
    for sizes in results.sizes:
        head = f"**{sizes.name}**: {count(sizes.parameters)} parameters, {count(sizes.macs)} MACs"
        rows = [(r.layer, r.size, r.field) for r in sizes.rows]
        parts += [head, _grid(("layer", "size", "receptive field"), rows)]
    parts += ["## Early fusion against 3-D convolution", _fusions(results)]
    return "\n\n".join(parts) + "\n"


def comparison(table: Table, results: Results) -> str:
    """Return a paper's table with what was measured beside it, as Markdown."""
    rows = []
    for row in table.rows:
        paper = ["–" if n is None else f"{n:.1f}" for n in row.paper]
        rows.append((row.name, *_measured(row.measured), *paper))
    head = ("", *(f"{name} here" for name in HERE), *(f"{c}, paper" for c in table.columns))
    few = next((r.measured for r in table.rows if r.measured and r.measured.wilson), None)
    notes = (
        f"In percent, with 95 % intervals by the bootstrap over videos. Paper: {table.of}. "
        f"Always answering with the most frequent class gives {percent(results.chance)}."
    )
    if few:
        notes += f" {few.videos} videos are few: in brackets Wilson's interval of Video Hit@1."
    if len(results.classes) <= 5:
        notes += f" Video Hit@5 says nothing of {len(results.classes)} classes."
    return f"{_grid(head, rows)}\n\n{notes}"


def shift_section(results: Results) -> str:
    """Return the curves of the shift experiment, and the measured equivariance, as Markdown."""
    parts = []
    if results.shift:
        shifts = list(results.shift[0].points)
        rows = [(c.label, *(_share(c.points[s]) for s in shifts)) for c in results.shift]
        head = ("Video Hit@1", *(f"{s} frames later" if s else "as in training" for s in shifts))
        about = (
            f"Clips of {FRAMES} frames, in which the action takes frames {STILL} to "
            f"{STILL + MOVING - 1}, train; in the tests it comes later. Before and after it the "
            "shape holds still."
        )
        parts += [about, _grid(head, rows)]
    rows = [(name, *(small(e[s]) for s in SHIFTS)) for name, e in results.equivariance.items()]
    about = (
        "The output of a clip in which noise begins later, against the moved output, or the same "
        "where it has no time; as a share of the largest output, on layers with random weights:"
    )
    return "\n\n".join([*parts, about, _grid(("frames later", *map(str, SHIFTS)), rows)])


def _measured(found: Measured | None) -> tuple[str, str, str]:
    if found is None:
        return ("", "", "")
    more = f" [{wilson(found)}]" if found.wilson else ""
    return _share(found.clip_hit_1), _share(found.video_hit_1) + more, _share(found.video_hit_5)


def _share(share: Share | None) -> str:
    return "–" if share is None else f"{percent(share.value)} ({interval(share)})"


def _facts(results: Results) -> str:
    lines = [f"- {name}: {_plain(value)}" for name, value in results.facts]
    return "\n".join([*lines, "", "```sh", results.command, "```"])


def _clips(results: Results) -> str:
    chosen = {name: s for name, s in results.systems.items() if s.by_clips}
    numbers = sorted({n for s in chosen.values() for n in s.by_clips})
    rows = [
        (s.label, *(_share(s.by_clips[n]) if n in s.by_clips else "" for n in numbers))
        for s in chosen.values()
    ]
    return _grid(("Video Hit@1", *(f"{n} clips" if n > 1 else "1 clip" for n in numbers)), rows)


def _costs(results: Results) -> str:
    rows = [
        (s.label, count(s.parameters), count(s.macs or 0), f"{s.milliseconds or 0:.1f}")
        for s in results.systems.values()
        if s.parameters is not None
    ]
    return _grid(("network", "parameters", "MACs of a clip", "ms a clip"), rows)


def _fusions(results: Results) -> str:
    head = ("", "filters", "weights", "output", "MACs", "when an action comes later")
    rows = [
        (f.name, f.weight, count(f.weights), f.output, count(f.macs), f.shift)
        for f in results.fusions
    ]
    return _grid(head, rows)


def _shown(name: str, results: Results) -> bool:
    return results.systems[name].explained is not None


def _confusion(name: str, results: Results) -> str:
    system = results.systems[name]
    if len(results.classes) > MOST_CLASSES:
        wrong = most_confused(system.confusion, results.classes)
        cells = [(true, said, str(n)) for true, said, n in wrong]
        return f"{system.label}:\n\n" + _grid(("true class", "taken for", "videos"), cells)
    rows = [
        (f"**{label}**", *map(str, counts))
        for label, counts in zip(results.classes, system.confusion, strict=True)
    ]
    return f"{system.label}, true class down:\n\n" + _grid(("", *results.classes), rows)


def _samples(results: Results) -> str:
    rows = []
    for s in results.samples:
        said = "; ".join(
            f"{results.systems[n].label}: {label} {percent(p)} %"
            for n, (label, p) in s.said.items()
        )
        pictures = [f"![{s.truth}](pictures/{name}.webp)" for name in (s.clip, s.flow)]
        rows.append((s.truth, *pictures, said))
    return _grid(("class", "clip", "flow", "what was said"), rows)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in row) + " |" for row in lines)


def _plain(text: str) -> str:
    """Take from a text what would end a cell or begin markup."""
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
