"""From a plan to the results: every system run, measured and drawn."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinyvid import models, nn
from tinyvid.checkpoint import write_atomically
from tinyvid.data import VideoSet
from tinyvid.data.sets import describe
from tinyvid.evaluate import Scores
from tinyvid.metrics import measure
from tinyvid.reproduce import gallery
from tinyvid.reproduce.markdown import markdown
from tinyvid.reproduce.page import page
from tinyvid.reproduce.papers import TABLES, PaperTable
from tinyvid.reproduce.results import (
    FusionRow,
    Measured,
    Results,
    Row,
    SizeRow,
    SizeTable,
    System,
    Table,
    by_clips,
    measured,
)
from tinyvid.reproduce.shift import shift_curves
from tinyvid.reproduce.systems import SYSTEMS, Trained
from tinyvid.reproduce.work import (
    Plan,
    open_plan,
    run_system,
    test_videos,
    trained_runs,
)
from tinyvid.runs import Run, clip_shape, data_name, locked, make_folder, versions
from tinyvid.shift import equivariance
from tinyvid.summary import compare_fusion, summarise, total
from tinyvid.trace import size_text

Told = Callable[[str], None]

WORKED = ("worked_late_fusion", "worked_early_fusion", "worked_slow_fusion", "c3d_lecture")


def reproduce(plan: Plan, tell: Told = lambda text: None) -> Results:
    """Run whatever of a plan is not finished, and write the results and the report.

    Writes `report.html`, `report.md`, `results.json` and `pictures` into the plan's folder.

    Args:
        tell: is called with what has been done, line by line.

    Raises:
        UserError: the data cannot be used, or the folder holds another reproduction.
    """
    with locked(plan.out):
        return _reproduce(plan, tell)


def _reproduce(plan: Plan, tell: Told) -> Results:
    pictures = make_folder(plan.out / "pictures")
    videos, entries = open_plan(plan), plan.entries()
    scores: dict[str, Scores] = {}
    for number, name in enumerate(entries, start=1):
        scores[name] = Scores.load(run_system(name, plan, videos) / "scores.npz")
        hit = measured(scores[name]).video_hit_1.value
        tell(f"{number}/{len(entries)} {entries[name].label}: Video Hit@1 {hit:.1%}")
    tell("drawing what the networks look at")
    one = next(iter(entries))  # a network: all of them were tested on the same videos
    names = gallery.sample_names(scores[one])
    systems = {
        name: _system(name, plan, videos, scores[name], names[0], pictures) for name in entries
    }
    shown = {name: found for name, found in scores.items() if entries[name].gallery}
    samples = []
    for i, name in enumerate(names):
        run = _run_that_tests(name, one, plan, videos)
        tested = test_videos(run, plan, videos)
        samples.append(gallery.sample(name, tested, run.config, shown, pictures, f"sample{i}"))
    confusion = np.array(systems[one].confusion)
    results = Results(
        data=data_name(plan.data),
        command=_command(plan),
        facts=_facts(plan, videos, run, systems[one].measured),
        classes=scores[one].classes,
        chance=float(confusion.sum(axis=1).max() / confusion.sum()),
        tables=[_table(paper, systems) for paper in TABLES],
        systems=systems,
        samples=samples,
        sizes=[_sizes(name) for name in WORKED],
        fusions=_fusions(),
        shift=shift_curves(plan.out / "shift", plan.listener) if plan.shifts else [],
        equivariance=equivariance(),
    )
    results.save(plan.out / "results.json")
    write(results, plan.out)
    return results


def write(results: Results, folder: Path) -> None:
    """Write `report.html` and `report.md` into a folder that has `pictures`."""
    write_atomically(folder / "report.html", page(results, folder / "pictures").encode())
    write_atomically(folder / "report.md", markdown(results).encode())


def _run_that_tests(video: str, name: str, plan: Plan, videos: VideoSet) -> Run:
    runs = trained_runs(name, plan, videos).values()
    return next((run for run in runs if video in run.split["test"]), next(iter(runs)))


def _system(
    name: str, plan: Plan, videos: VideoSet, scores: Scores, video: str, pictures: Path
) -> System:
    entry = SYSTEMS[name]
    confusion = measure(scores.logits, scores.labels, scores.videos).confusion
    system: dict[str, Any] = {
        "label": entry.label,
        "about": entry.about,
        "measured": measured(scores, plan.clips > 1 and len(scores.labels) == len(scores.names)),
        "by_clips": by_clips(scores),
        "confusion": confusion.tolist(),
    }
    if isinstance(entry, Trained):
        run = _run_that_tests(video, name, plan, videos)
        model, _ = run.model()
        clip = clip_shape(run.config)
        sums = total(summarise(model, clip))
        system |= {
            "parameters": sums.parameters,
            "macs": sums.macs,
            "milliseconds": gallery.milliseconds_of(model, clip),
            "log": {fold: _log(one) for fold, one in trained_runs(name, plan, videos).items()},
        }
        if entry.gallery:
            tested = test_videos(run, plan, videos)
            about = (model, tested, video, run.config, scores.classes, pictures)
            system["explained"] = gallery.explain(*about, f"{name}")
            system["filters"] = gallery.filters(model, pictures, f"{name}-filters")
    return System(**system)


def _log(run: Run) -> list[dict[str, Any]]:
    with open(run.path / "log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{key: None if text == "" else float(text) for key, text in row.items()} for row in rows]


def _table(paper: PaperTable, systems: dict[str, System]) -> Table:
    rows = [
        Row(
            r.name,
            r.system,
            systems[r.system].measured if r.system in systems else None,
            list(r.numbers),
        )
        for r in paper.rows
    ]
    return Table(paper.key, paper.title, paper.of, list(paper.columns), rows)


def _sizes(name: str) -> SizeTable:
    entry = models.entry(name)
    with nn.shapes_only():
        every = summarise(models.build(name, entry.classes), entry.clip)
        rows = summarise(models.build(name, entry.classes), entry.clip, fold=True)
    shown = []
    for row in rows:
        text = "" if row.clipped is None else size_text(row.clipped)
        if row.receptive_field != row.clipped and row.receptive_field is not None:
            text += f" [{size_text(row.receptive_field)}]"
        label = row.layer if row.name in ("clip", "gap") else f"{row.name} {row.layer}"
        shown.append(SizeRow(label, size_text(row.size), text))
    sums = total(every)
    return SizeTable(entry.line, shown, sums.parameters, sums.macs)


def _fusions() -> list[FusionRow]:
    """Early fusion against 3-D convolution, on the worked example's clip and filters."""
    shift = ("learns another filter for each moment", "one filter serves every moment")
    return [
        FusionRow(f.name, size_text(f.weight), f.weights, size_text(f.output), f.macs, text)
        for f, text in zip(compare_fusion(models.WORKED, filters=12), shift, strict=True)
    ]


def _command(plan: Plan) -> str:
    words = ["tinyvid", "reproduce", "--data", plan.data]
    words += ["--quick"] if plan.quick else []
    words += [] if plan.generated else ["--by", plan.by]
    words += ["--config", str(plan.config)] if plan.config is not None else []
    words += [word for text in plan.overrides for word in ("--set", text)]
    return shlex.join(words)


def _facts(plan: Plan, videos: VideoSet, run: Run, tested: Measured) -> list[tuple[str, str]]:
    config = run.config
    _, frames, height, width = clip_shape(config)
    how = (
        f"trained on {len(run.split['train']):,} videos, tested on {tested.videos:,} new ones"
        if plan.generated
        else f"each group tested by networks that have never seen it (folds: {plan.by})"
    )
    clip = f"{frames} frames of {height}×{width}, {plan.clips} clips of each test video"
    moving = plan.entries().get("temporal_stream")
    if isinstance(moving, Trained):
        clip += f"; of the temporal stream, {clip_shape(plan.config_of(moving))[1]} flows"
    found = versions()
    absent = [SYSTEMS[n].label for n in plan.systems if n not in plan.entries()]
    absent += ["the shift experiment"] if plan.generated and plan.quick else []
    left_out = [("Left out", ", ".join(absent))] if absent else []
    return [
        ("Videos", describe(videos)),
        ("Test", how),
        ("Clips", clip),
        ("Training", f"{config.run.epochs} epochs, seed {config.run.seed}"),
        *left_out,
        ("Made by", f"tinyvid {found['tinyvid']}, NumPy {found['numpy']}, {os.cpu_count()} cores"),
    ]
