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

MACHINE = {
    "processor": "a processor",
    "gpu": None,
    "threads": 2,
    "versions": {"numpy": "2.0"},
    "blas": ["openblas 0.3"],
    "environment": {"OMP_NUM_THREADS": "2"},
    "busy": 0.02,
}
ABOUT = (
    "a processor, 2 threads, numpy 2.0; BLAS openblas 0.3, of its variables `OMP_NUM_THREADS=2`. "
    "A product of large matrices reached 300 GFLOP/s, a large copy 20.0 GB/s. Other work took 2% "
    "of the machine at the start. `tinyvid bench conv3d`, 2026-01-02:"
)


def kept(ms=10.0):
    lines = [Line("cpu/im2col", OURS, [ms / 1e3] * 8), Line("torch", PEER, [0.025] * 8)]
    measured = Measured("conv3d", "fprop", "c3d_conv2", "x 1×2", 1, 1, "the reference", lines)
    alone = Measured("lstm", "fprop", "no peer", "N 1", 1, 1, "the reference", lines[:1])
    return Results(
        "tinyvid bench conv3d", "2026-01-02T03:04:05", MACHINE, [], 300, 20, [measured, alone]
    )


def test_the_table():
    faster = "2.50 (2.50–2.50) faster"
    assert tables.table([kept()]).splitlines() == [
        ABOUT,
        "",
        "| what | ours | time | peer | time | ours is so many times as fast |",
        "| --- | --- | ---: | --- | ---: | --- |",
        f"| conv3d fprop c3d_conv2, x 1×2 | cpu/im2col | 10.0 ms | torch | 25.0 ms | {faster} |",
    ]


def test_the_table_of_goals():
    def row(label, ours, goals, within=0.0, flops=0, fault=None):
        lines = [
            Line("tinyvid", OURS, [] if fault else [ours] * 8, fault),
            Line("torch", PEER, [] if fault else [0.03] * 8),
            Line("torch/channels_last", PEER, [] if fault else [0.01] * 8),
        ]
        about = ("op", "forward", "case", "x 1", flops, 0, "the reference", lines)
        return Measured(*about, label, goals, within)

    run = kept()
    run.measured = [
        row("a pool", 0.005, {"torch": 5, "torch/channels_last": 3}),
        row("a layer", 0.01, {"torch": 2}, flops=15 * 10**8),
        row("a call", 5e-6, {}, within=4e-6),
        row("a wrong one", 0.01, {"torch": 2}, fault="off by 1"),
    ]
    two = "6.00 (6.00–6.00); 2.00 (2.00–2.00) than torch/channels_last"
    wanted = "≥ 5× torch; ≥ 3× torch/channels_last"
    assert tables.table([run]).splitlines()[4:] == [
        f"| a pool | 30.0 ms | 5.00 ms | {two} |  | {wanted} | met; missed |",
        "| a layer | 30.0 ms | 10.0 ms | 3.00 (3.00–3.00) | 50% | ≥ 2× torch | met |",
        "| a call | 30.0 ms | 5.00 µs | 6,000 (6,000–6,000) |  | ≤ 4 µs | missed |",
        "| a wrong one |  | failed: off by 1 |  |  | ≥ 2× torch | cannot tell |",
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
    kept().write(tmp_path / "a-processor-2-cores", "conv3d")
    assert tables.runs(tmp_path) == [kept()]


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_are_not_stale(page):
    assert not tables.stale(tables.runs(), page)
