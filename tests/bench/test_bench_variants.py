"""The choice between variants, held to what was measured."""

import importlib.util
import sys
from pathlib import Path

import pytest

from tinyvid.bench import machine
from tinyvid.bench.results import OURS, Line, Measured, Results, read
from tinyvid.kernels import kernels

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "bench_variants", ROOT / "benchmarks" / "bench_variants.py"
)
bench = importlib.util.module_from_spec(_SPEC)
sys.modules["bench_variants"] = bench  # where dataclasses look for it
_SPEC.loader.exec_module(bench)

KEPT = sorted(bench.RESULTS.rglob(f"{bench.NAME}.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parent.name)
def test_the_choice_is_near_the_best(path):
    """Variants that were added later are missing: measure anew, benchmarks/bench_variants.py."""
    assert bench.faults(read(path)) == []


def results(slow=(), factor=1.0, without=()):
    """Make results in which the chosen variant of each shape is the fastest, but for those told."""
    measured = []
    for op in bench.OPS:
        for kernel, case, args in bench.problems(op, bench._unwritten):
            names = [n for n in bench.candidates(kernel, args) if n not in without]
            first = factor if f"{kernel.name} {case.name}" in slow else 1.0
            lines = [Line(name, OURS, [1.0 + at] * 8) for at, name in enumerate(names)]
            lines += [Line("cpu/other", OURS, [1.0 / first] * 8)]
            measured.append(Measured(op, kernel.pass_, case.name, "", 0, 0, "", lines))
    return Results("", "", {}, [], measured=measured)


def test_a_choice_far_from_the_best_is_found():
    assert bench.faults(results()) == []
    shape = "conv3d_fprop c3d_conv2"
    assert bench.faults(results([shape], 1.9)) == []
    (fault,) = bench.faults(results([shape], 2.1))
    assert fault.startswith(shape)
    assert fault.endswith("takes 2.10 times as long as cpu/other")


def test_choices_a_little_off_everywhere_are_found():
    every = [f"{m.op}_{m.pass_} {m.case}" for m in results().measured]
    assert bench.faults(results(every, 1.05)) == []
    (fault,) = bench.faults(results(every, 1.2))
    assert fault == "the choices take 1.200 times as long as the best, at most 1.1"


def test_variants_that_were_not_measured_are_found(monkeypatch):
    (conv,) = (k for k in kernels() if k.name == "conv3d_dgrad")
    full = results()
    monkeypatch.setattr(conv, "variants", dict(conv.variants))
    conv.add("cpu/later", "tests:later")
    faults = bench.faults(full)
    assert len(faults) == len(bench.cases("conv3d"))
    assert all(
        fault.startswith("not measured: conv3d_dgrad") and fault.endswith("cpu/later")
        for fault in faults
    )
    wrong = results()
    wrong.measured[0].lines[0].fault = "result 0 is wrong"
    assert any(fault.startswith("not measured: conv3d_fprop") for fault in bench.faults(wrong))
    none = Results("", "", {}, [])
    assert len(bench.faults(none)) == len(full.measured)


def test_shapes_are_the_same_in_every_process_and_spread():
    conv = bench.cases("conv3d")
    assert len({case.name for case in conv}) == len(conv) >= 25
    random = [case for case in conv if case.name.startswith("random")]
    assert random[0].x == (1, 128, 4, 20, 20)
    assert {case.w[2:] for case in random} > {(3, 3, 3), (1, 1, 1)}
    assert min(c.geometry.macs for c in conv) * 1000 < max(c.geometry.macs for c in conv)


def test_small_ones_are_measured_and_judged(tmp_path, monkeypatch, capsys):
    small = [case for case in bench.PROBLEMS["conv3d"][0] if case.name == "plain"]
    monkeypatch.setattr(bench, "cases", lambda op: small if op == "conv3d" else [])
    monkeypatch.setattr(machine, "GEMM", 64)
    monkeypatch.setattr(machine, "COPIED", 4096)
    monkeypatch.setattr(bench, "WORST", 1e9)
    monkeypatch.setattr(bench, "MEAN", 1e9)
    bench.measure_all(["conv3d"], 0.01, tmp_path)
    found = read(tmp_path / "variants.json")
    assert [m.pass_ for m in found.measured] == ["fprop", "dgrad", "wgrad"]
    assert all(line.seconds for m in found.measured for line in m.lines)
    assert bench.check(tmp_path)
    assert "geometric mean" in capsys.readouterr().out
    bench.measure_all(["conv2d"], 0.01, tmp_path)  # those of other operations stay
    assert read(tmp_path / "variants.json").measured == found.measured
    monkeypatch.setattr(bench, "WORST", 0.5)
    assert not bench.check(tmp_path)
