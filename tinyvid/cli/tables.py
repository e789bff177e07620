"""What the commands print of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tinyvid.folds import CrossValidation
    from tinyvid.metrics import Metrics
    from tinyvid.predict import Prediction

MOST_CLASSES = 20  # a larger confusion matrix is for the picture


@contextmanager
def counting_bar(
    console: Console, what: str, of: str = "clips"
) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar while something is counted; yields what to call with (done, total)."""
    if not console.is_terminal:
        yield None
        return
    with Progress(
        TextColumn(what),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn(f"{{task.completed}}/{{task.total}} {of}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", visible=False)  # until something is counted

        def count(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield count


def print_metrics(console: Console, metrics: Metrics, classes: list[str], title: str) -> None:
    """Print the metrics of a test and its confusion matrix."""
    low, high = metrics.interval
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.title_style = "bold"
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    capped = f" ({metrics.k} of {len(classes)} classes)" if metrics.k < 5 else ""
    rows = (
        (
            "Clip Hit@1",
            metrics.clip_hit_1,
            f"the most probable class right, of {metrics.clips:,} clips",
        ),
        (
            "Video Hit@1",
            metrics.video_hit_1,
            f"of {metrics.videos:,} videos, clips fused by {metrics.fusion}",
        ),
        ("  95% interval", None, f"{low:.1%} – {high:.1%} (Wilson)"),
        (
            f"Video Hit@{metrics.k}",
            metrics.video_hit_k,
            f"right class among the first {metrics.k}{capped}",
        ),
        ("mean class accuracy", metrics.mean_class, "mean of the classes' Video Hit@1"),
    )
    for name, share, about in rows:
        table.add_row(name, "" if share is None else f"{share:.1%}", about)
    console.print(table, highlight=False)
    if len(classes) <= MOST_CLASSES:
        console.print("\ntrue class (rows), predicted class (columns)", highlight=False)
        console.print(confusion_table(metrics.confusion, classes), highlight=False)


def confusion_table(confusion: np.ndarray, classes: list[str]) -> Table:
    """Return the confusion matrix as a table; columns are numbered as the rows are."""
    table = Table(box=None)
    table.add_column("", justify="right", style="dim")
    table.add_column("")
    for j in range(len(classes)):
        table.add_column(str(j + 1), justify="right", header_style="dim", min_width=3)
    table.add_column("right", justify="right")
    for i, name in enumerate(classes):
        total = confusion[i].sum()
        cells = [
            Text("·" if n == 0 else str(n), style="bold" if i == j else "dim" if n == 0 else "")
            for j, n in enumerate(confusion[i])
        ]
        share = f"{confusion[i, i] / total:.0%}" if total else "–"
        table.add_row(str(i + 1), Text(name), *cells, share)
    return table


def print_prediction(console: Console, found: Prediction, top: int) -> None:
    """Print the most probable classes of a file, and the first of them clip by clip."""
    console.print(f"[bold]{escape(str(found.path))}[/bold]", highlight=False, soft_wrap=True)
    width = max(len(name) for name in found.classes)
    for name, probability in found.top(top):
        _line(console, f"  {name:{width}}  {bar(probability, 30)} {probability:6.1%}")
    for i, (start, end, best, share) in enumerate(spans(found)):
        when = "when" if i == 0 else "    "
        _line(
            console,
            f"  {when}  {start:5.1f} – {end:5.1f} s  {found.classes[best]:{width}}  "
            f"{bar(share, 12)} {share:6.1%}",
        )


def spans(found: Prediction) -> list[tuple[float, float, int, float]]:
    """Return (start, end, class, mean probability) for each run of clips of one class."""
    joined = []
    best = found.clips.argmax(axis=1)
    borders = np.flatnonzero(np.diff(best)) + 1
    for clips in np.split(np.arange(len(best)), borders):
        label = int(best[clips[0]])
        start, end = found.times[clips[0]][0], max(found.times[i][1] for i in clips)
        joined.append((start, end, label, float(found.clips[clips, label].mean())))
    return joined


def print_crossval(console: Console, result: CrossValidation, title: str) -> None:
    """Print Video Hit@1 of each seed and fold, and the mean with its spread."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.title_style = "bold"
    table.add_column("")
    few = len(result.folds) <= 8
    for fold in result.folds if few else []:
        table.add_column(Text(fold), justify="right")
    table.add_column("all videos", justify="right", style="bold")
    table.add_column("mean class", justify="right")
    table.add_column("clips", justify="right")
    for seed in result.seeds:
        folds = [f"{result.metrics[seed, f].video_hit_1:.1%}" for f in result.folds if few]
        p = result.pooled[seed]
        pooled = [f"{v:.1%}" for v in (p.video_hit_1, p.mean_class, p.clip_hit_1)]
        table.add_row(f"seed {seed}", *folds, *pooled)
    columns = [
        [result.metrics[s, f].video_hit_1 for s in result.seeds] for f in result.folds if few
    ]
    for name in ("video_hit_1", "mean_class", "clip_hit_1"):
        columns.append([getattr(p, name) for p in result.pooled.values()])
    table.add_row("mean", *[f"{np.mean(c):.1%}" for c in columns])
    if len(result.seeds) > 1:
        table.add_row("± std of seeds", *[f"{100 * np.std(c, ddof=1):.1f}" for c in columns])
    console.print(table, highlight=False)
    videos = next(iter(result.pooled.values())).videos
    _line(
        console,
        f"{videos} videos, each tested once a seed; always answering the most frequent class "
        f"would give {result.majority:.1%}",
    )


def bar(share: float, cells: int) -> str:
    """Return a bar of eighths of a cell, `cells` long for a share of 1."""
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    text = "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
    return text.ljust(cells)


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
