"""`tinyvid bench goals`: every row can be measured, is kept, and says what became of its goal."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from tinyvid.bench import goals, machine, networks, tape, timing
from tinyvid.bench.goals import GOALS
from tinyvid.bench.results import OURS, PEER, Line, Measured, read
from tinyvid.bench.run import Settings
from tinyvid.cli import app


def run(*args):
    return CliRunner().invoke(app, ["bench", "goals", *map(str, args)], env={"COLUMNS": "80"})


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(machine, "GEMM", 64)
    monkeypatch.setattr(machine, "COPIED", 4096)
    monkeypatch.setattr(machine, "busy", lambda: 0.0)
    monkeypatch.setattr(timing, "SHORTEST", 1e-6)


def row(ours, peer, goals=None, within=0.0):
    lines = [Line("tinyvid", OURS, ours), Line("torch", PEER, peer)]
    return Measured("op", "forward", "case", "", 0, 0, "the reference", lines, "it", goals, within)


def test_a_goal_is_met_if_the_whole_interval_says_so():
    assert row([1.0] * 8, [2.0] * 8, {"torch": 2}).reached() == [("≥ 2× torch", "met")]
    assert row([1.0] * 8, [1.9] * 8, {"torch": 2}).reached() == [("≥ 2× torch", "missed")]
    mixed = row([1.0] * 8, [1.9, 2.1] * 4, {"torch": 2})
    assert mixed.reached() == [("≥ 2× torch", "cannot tell")]
    assert row([1.0] * 8, [], {"torch": 2}).reached() == [("≥ 2× torch", "cannot tell")]
    assert row([1.0] * 5, [9.0] * 5, {"torch": 2}).reached() == [("≥ 2× torch", "cannot tell")]
    assert row([3e-6] * 8, [], {}, 4e-6).reached() == [("≤ 4 µs", "met")]
    assert row([5e-6] * 8, [], {}, 4e-6).reached() == [("≤ 4 µs", "missed")]


def test_names_and_labels_differ_and_cases_exist(monkeypatch):
    assert len({goal.name for goal in GOALS}) == len({goal.label for goal in GOALS}) == len(GOALS)
    seen = []
    monkeypatch.setattr(goals, "whole", lambda *args: args)
    monkeypatch.setattr(
        goals, "measure_whole", lambda what, settings: seen.append(what) or row([], [])
    )
    monkeypatch.setattr(
        goals, "measure_network", lambda name, *args: seen.append((name, *args)) or row([], [])
    )
    for goal in GOALS[:-1]:
        measured = goal.measure(Settings())
        assert (measured.label, measured.goals) == (goal.label, goal.over)
    from tinyvid.checking.problems import PROBLEMS
    from tinyvid.models import entry

    for first, *rest in seen:
        if first in PROBLEMS:
            assert rest[0] in [case.name for case in PROBLEMS[first][0]]
        else:
            entry(first)
            assert rest[0] in networks.PASSES
    assert len(seen) == len(GOALS) - 1


def test_rows_are_kept_and_measured_again_one_by_one(tmp_path):
    args = ("--only", "tape", "--seconds", "0.01", "--out", tmp_path)
    first = run(*args)
    assert first.exit_code == 0, first.output
    assert max(map(len, first.output.replace(str(tmp_path), "").splitlines())) <= 80
    assert re.search(r"goal ≤ 4 µs: (met|missed|cannot tell)", first.output)
    path = tmp_path / "goals.json"
    (kept,) = read(path).measured
    assert (kept.label, kept.within) == (GOALS[-1].label, 4e-6)
    assert run(*args, "--resume").output.count(": kept") == 1
    assert read(path).measured == [kept]
    assert run(*args).exit_code == 0
    (again,) = read(path).measured
    assert again.lines[0].seconds != kept.lines[0].seconds
    # Rows of another machine are not mixed with those of this one.
    found = json.loads(path.read_text())
    found["measured"][0]["label"] = GOALS[0].label
    path.write_text(json.dumps(found))
    assert run(*args).exit_code == 0
    assert [one.label for one in read(path).measured] == [GOALS[0].label, GOALS[-1].label]
    found["machine"]["threads"] += 1
    path.write_text(json.dumps(found))
    assert run(*args).exit_code == 0
    assert [one.label for one in read(path).measured] == [GOALS[-1].label]


def test_a_wrong_chain_is_a_failed_benchmark(monkeypatch):
    right = tape.chain

    def wrong(x, b, g, operation):
        return right(x, b, g, lambda y, b: y * b * np.float32(1.01))

    monkeypatch.setattr(tape, "chain", wrong)
    result = run("--only", "tape", "--seconds", "0.01")
    assert result.exit_code == 1
    assert "FAILED: the result or a gradient of a chain of products is wrong" in " ".join(
        result.output.split()
    )


def test_a_row_that_fails_does_not_keep_the_others_from_being_measured(monkeypatch):
    def fails(what, settings):
        raise ZeroDivisionError("no")

    monkeypatch.setattr(goals, "measure_whole", fails)
    result = run("--only", "lstm", "--only", "tape", "--seconds", "0.01")
    assert result.exit_code == 1
    assert "FAILED: ZeroDivisionError: no" in result.output
    assert re.search(r"goal ≤ 4 µs: (met|missed|cannot tell)", result.output)
    assert "1 failed" in result.output


def test_the_list_and_bad_usage():
    listed = run("--list").output
    assert all(goal.name in listed for goal in GOALS)
    for args, message in (
        (("--only", "conv3b"), "no such goal. Did you mean 'conv3a'?"),
        (("--seconds", "0"), "more than 0"),
        (("--resume",), "say with --out where"),
    ):
        result = run(*args)
        assert result.exit_code == 2
        assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())


def test_machines_of_a_kind_share_a_folder():
    of = {"processor": "AMD EPYC 7B13 (Milan)", "cores": 2, "gpu": None}
    assert machine.kind(of) == "amd-epyc-7b13-milan-2-cores"
    assert machine.kind({**of, "gpu": "NVIDIA H100 80GB HBM3"}) == "nvidia-h100-80gb-hbm3"


def test_variables_that_threadpoolctl_sets_are_not_told(monkeypatch):
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    told = machine.describe()["environment"]
    assert told["OPENBLAS_CORETYPE"] == "Haswell"
    assert "KMP_DUPLICATE_LIB_OK" not in told
