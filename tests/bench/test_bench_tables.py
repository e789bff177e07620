"""The README's table of speeds: written from the runs that are kept, and never stale."""

import importlib.util
from pathlib import Path

import pytest

from tinyvid.bench.results import OURS, PEER, Line, Measured, Results
from tinyvid.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)

MACHINE = {"processor": "a processor", "gpu": None, "threads": 2, "versions": {"numpy": "2.0"}}


def kept(ms=10.0):
    lines = [Line("cpu/im2col", OURS, [ms / 1e3] * 8), Line("torch", PEER, [0.025] * 8)]
    measured = Measured("conv3d", "fprop", "c3d_conv2", "x 1×2", 1, 1, "the reference", lines)
    alone = Measured("lstm", "fprop", "no peer", "N 1", 1, 1, "the reference", lines[:1])
    return Results(
        "tinyvid bench conv3d", "2026-01-02T03:04:05", MACHINE, [], 1, 1, [measured, alone]
    )


def test_the_table():
    faster = "2.50 (2.50–2.50) faster"
    assert tables.table([kept()]).splitlines() == [
        "a processor, 2 threads, numpy 2.0; `tinyvid bench conv3d`, 2026-01-02:",
        "",
        "| what | ours | ms | peer | ms | ours is so many times as fast |",
        "| --- | --- | ---: | --- | ---: | --- |",
        f"| conv3d fprop c3d_conv2, x 1×2 | cpu/im2col | 10.0 | torch | 25.0 | {faster} |",
    ]


def test_it_is_written_between_the_markers_and_found_stale(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n")
    assert not tables.stale([kept()], readme)  # there is no place for a table, and none is missed
    with pytest.raises(UserError, match="has no place for it"):
        tables.write([kept()], readme)
    readme.write_text(f"before\n{tables.BEGIN}\n{tables.END}\nafter\n")
    assert tables.stale([kept()], readme)
    with pytest.raises(UserError, match="no runs are kept"):
        tables.write([], readme)
    tables.write([kept()], readme)
    assert not tables.stale([kept()], readme)
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("\nafter\n")
    assert tables.stale([kept(ms=11)], readme)
    kept().write(tmp_path, "conv3d")
    assert tables.runs(tmp_path) == [kept()]


def test_the_readme_is_not_stale():
    assert not tables.stale(tables.runs())
