"""What a terminal shows: bars, tables, and how far a training is."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tinyvid.cli.progress import Reporter
from tinyvid.cli.tables import (
    bar,
    confusion_table,
    counting_bar,
    print_metrics,
    print_prediction,
    spans,
)
from tinyvid.data import open_data
from tinyvid.metrics import measure
from tinyvid.predict import Prediction
from tinyvid.train import Row


def test_neighbouring_clips_of_one_class_are_one_line(capsys):
    clips = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    times = [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (3.0, 5.0)]
    found = Prediction(Path("a.mp4"), ["wave", "jump"], clips.mean(axis=0), clips, times)
    assert spans(found) == [
        (0.0, 3.0, 0, pytest.approx(0.8)),
        (2.0, 4.0, 1, 0.8),
        (3.0, 5.0, 0, 0.6),
    ]
    print_prediction(Console(width=80), found, 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["when", "0.0", "–", "3.0", "s", "wave", "█████████▋", "80.0%"]
    assert len(lines) == 6


def test_the_table_of_a_test_fits_80_columns(capsys):
    logits = np.log(np.full((9, 3), 0.2) + 0.6 * np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1, 0]])
    metrics = measure(logits, np.array([0, 1, 2] * 3), np.arange(9), "mean_logit")
    print_metrics(Console(width=80), metrics, ["a", "b", "c"], "slow_fusion on gestures")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:21].strip() for line in lines[1:6]] == [
        "Clip Hit@1",
        "Video Hit@1",
        "95% interval",
        "Video Hit@3",
        "mean class accuracy",
    ]
    assert [line for line in lines[1:6] if not line[:1].strip()] == [lines[3]]  # nothing breaks
    low, high = metrics.interval
    assert lines[3].rstrip().endswith(f"{low:.1%} – {high:.1%} (Wilson)")
    assert "%" in lines[2]
    assert " %" not in "".join(lines)


def row(epoch: int) -> Row:
    return Row(epoch, 4 * epoch, 1e-3, 1.5, 0.25, 1.25, 0.5, 2.0, 30.0)


class FakeRun:
    class config:
        class run:
            epochs = 12

        class model:
            name = "slow_fusion"

        class data:
            path = "verbs"


some = open_data("verbs", per_class=1)

none = some.subset([])


def test_a_terminal_gets_a_bar():
    console = Console(force_terminal=True, width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with Reporter(console) as reporter:
        reporter.start(FakeRun(), {"train": some, "val": none}, 2, 4)
        reporter.step(2, 1, 1.234, 8)
        reporter.bar.refresh()
        task = reporter.bar.tasks[0]
        assert (task.completed, task.total) == (5, 48)
        assert (task.fields["loss"], task.fields["epoch"]) == ("1.234", 2)
        reporter.note("once")
        reporter.note("once")
        reporter.epoch(row(2), True)
    assert reporter.bar is None
    console.file.close()
    text = console.export_text()
    assert text.count("note: once") == 1
    assert "goes on with epoch 2 of 12" in text
    assert "epoch  2/12  loss 1.500  Clip Hit@1  25.0% | val 1.250  Video Hit@1  50.0% *" in text


def test_a_terminal_sees_videos_being_read(monkeypatch):
    shown = []
    monkeypatch.setattr("rich.progress.Progress.update", lambda *a, **k: shown.append(k))
    console = Console(force_terminal=True, file=io.StringIO())
    with Reporter(console) as reporter:
        reporter.reading(1, 2)
        assert [(t.description, t.total) for t in reporter.bar.tasks] == [("", 2)]
        reporter.reading(2, 2)
        assert reporter.bar is None  # the line is gone before training has its own
    assert [k["completed"] for k in shown] == [1, 2]
    plain = Console(force_terminal=False, file=io.StringIO())
    with Reporter(plain) as reporter:
        reporter.reading(1, 2)
    assert plain.file.getvalue() == ""


def test_long_epochs_are_told_of_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("tinyvid.cli.progress.PLAIN_EVERY", 0.0)
    with Reporter(Console(width=100)) as reporter:
        reporter.start(FakeRun(), {"train": some}, 1, 4)
        reporter.step(1, 1, 1.234, 8)
    assert "epoch 1/12, step 1/4: loss 1.234, " in capsys.readouterr().out


def test_short_epochs_are_told_of_once(monkeypatch, capsys):
    """No line about a step of an epoch whose own line follows at once."""
    now = [100.0]
    monkeypatch.setattr("tinyvid.cli.progress.time.perf_counter", lambda: now[0])
    with Reporter(Console(width=100)) as reporter:
        reporter.start(FakeRun(), {"train": some}, 1, 1)
        for epoch in range(1, 9):
            now[0] += 8  # seconds
            reporter.step(epoch, 1, 1.234, 8)
            reporter.epoch(row(epoch), False)
    out = capsys.readouterr().out
    assert "step" not in out
    assert out.count("\nepoch ") == 8


def test_bars_have_eighths():
    assert bar(0.0, 4) == "    "
    assert bar(1.0, 4) == "████"
    assert bar(0.5, 4) == "██  "
    assert bar(1 / 32, 4) == "▏   "
    assert bar(7.0, 2) == "██"


def test_a_confusion_table_by_hand(capsys):
    console = Console(width=80)
    console.print(confusion_table(np.array([[3, 1], [0, 0]]), ["a", "b"]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[-3:] == [
        ["1", "2", "right"],
        ["1", "a", "3", "1", "75%"],
        ["2", "b", "·", "·", "–"],
    ]


def test_counting_needs_a_terminal():
    with counting_bar(Console(force_terminal=False), "x") as progress:
        assert progress is None
    with open("/dev/null", "w") as sink:
        console = Console(force_terminal=True, file=sink)
        with counting_bar(console, "x", "videos") as progress:
            progress(1, 2)
