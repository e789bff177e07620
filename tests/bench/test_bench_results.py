"""Files of results: there and back, compared, as tables and as a picture; the machine."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from tinyvid.bench import machine
from tinyvid.bench.plot import roofline
from tinyvid.bench.results import OURS, PEER, Line, Measured, Results, compare, noisy, read
from tinyvid.errors import UserError

MACHINE = {
    "processor": "a processor",
    "gpu": None,
    "threads": 2,
    "environment": {},
    "versions": {"numpy": "2.0", "torch": "2.9"},
    "busy": 0.0,
    "cores": 2,
}


def seconds(median, noise=0.01, rounds=12, seed=0):
    rng = np.random.default_rng(seed)
    return (median * (1 + noise * rng.uniform(-1, 1, rounds))).tolist()


def run(ours=0.010, peer=0.020, name="cpu/im2col", noise=0.01, seed=0, lines=()):
    measured = Measured("conv3d", "fprop", "c3d_conv2", "x 1×2", 10**9, 10**6, "the reference")
    measured.lines = [Line(name, OURS, seconds(ours, noise, seed=seed))]
    if peer:
        measured.lines.append(Line("torch", PEER, seconds(peer, noise, seed=seed + 1)))
    measured.lines += lines
    return Results(
        "tinyvid bench conv3d", "2026-01-01T00:00:00+00:00", MACHINE, [], 200.0, 20.0, [measured]
    )


def test_json_there_and_back(tmp_path):
    before = run(lines=[Line("numpy", PEER, fault="result 0 is wrong", note="slow")])
    paths = before.write(tmp_path / "new", "conv3d")
    assert [path.name for path in paths] == ["conv3d.json", "conv3d.csv", "conv3d.md"]
    assert read(paths[0]) == before
    assert json.loads(paths[0].read_text())["machine"] == MACHINE


def test_the_figures_by_hand():
    results = run(noise=0.0, lines=[Line("numpy", PEER, fault="result 0 is wrong")])
    ours, torch, numpy = csv.DictReader(io.StringIO(results.csv()))
    assert float(ours["ms"]) == pytest.approx(10)
    assert float(ours["GFLOP/s"]) == pytest.approx(100)
    assert float(ours["GB/s"]) == pytest.approx(0.1)
    assert float(ours["of ceiling"]) == pytest.approx(0.5)  # 1 GFLOP at 200 GFLOP/s is 5 ms
    assert ours["ours/peer"] == ""
    assert float(torch["ours/peer"]) == pytest.approx(2)
    assert torch["ours is"] == "faster"
    assert (numpy["ms"], numpy["fault"]) == ("", "result 0 is wrong")
    table = results.markdown()
    assert "| conv3d | fprop | c3d_conv2 | cpu/im2col | 10.0 | 100 | 0.10 | 50% |  |" in table
    assert "| torch | 20.0 | 50.0 | 0.05 | 25% | 2.00 (2.00–2.00) faster |" in table
    assert "numpy | failed: result 0 is wrong |" in table
    for part in ("a processor, 2 threads", "Ceilings: 200 GFLOP/s", "compared with the reference"):
        assert part in table


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (run(0.005, 0.020, seed=5), "faster"),
        (run(0.015, 0.020, seed=5), "slower"),
        (run(0.010, 0.020, noise=0.002, seed=5), "same"),
        (run(0.010, 0.020, noise=0.9, seed=5), "cannot tell"),
        # The machine is three times slower, and ours with it: no change.
        (run(0.030, 0.060, noise=0.002, seed=5), "same"),
        # It is as slow as before, although the machine has become faster.
        (run(0.010, 0.010, seed=5), "slower"),
    ],
)
def test_two_runs_compare_through_the_peer(after, said):
    (change,), notes = compare(run(noise=0.002), after)
    assert change.verdict == said
    assert change.through == "torch"
    assert change.what == "conv3d fprop c3d_conv2 cpu/im2col"
    assert notes == []


def test_without_a_common_peer_by_the_times():
    (change,), _ = compare(run(0.010, None), run(0.030, 0.020))
    assert (change.verdict, change.through) == ("slower", "")


def test_another_preferred_variant_is_compared_with_the_one_before():
    (change,), _ = compare(run(0.010), run(0.004, name="cpu/winograd"))
    assert change.what.endswith("cpu/im2col → cpu/winograd")
    assert change.verdict == "faster"


def test_what_differs_is_said_and_what_is_not_the_same_work_is_not_compared():
    after = run()
    versions = {**MACHINE["versions"], "torch": "3.0"}
    after.machine = {**MACHINE, "processor": "another", "versions": versions}
    _, notes = compare(run(), after)
    assert notes == [
        "the processor differs: a processor, then another",
        "PyTorch differs: 2.9, then 3.0",
    ]
    after.measured[0].shapes = "x 4×2"
    assert compare(run(), after)[0] == []
    assert compare(Results("", "", MACHINE, []), run())[0] == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1, "measured": [{}]}'])
def test_what_is_no_file_of_results(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.json is not a file of results"):
        read(path)
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none.json")
    path.write_text('{"format": 0}')
    with pytest.raises(UserError, match="another version"):
        read(path)


def test_the_roofline_is_drawn_where_there_is_something_to_draw(tmp_path):
    path = tmp_path / "roofline.png"
    assert roofline(run(), path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    pools = run()
    pools.measured[0] = replace(pools.measured[0], flops=0)
    assert not roofline(pools, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_times_that_vary():
    assert not noisy(run().measured[0])
    assert noisy(run(noise=0.9).measured[0])


# ---- the machine ---------------------------------------------------------------------------------


def test_variables_that_change_blas_are_noted_and_those_that_slow_it_are_warned_of(monkeypatch):
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = machine.describe()
    assert found["environment"]["OMP_NUM_THREADS"] == "2"
    assert not any("slower" in text for text in machine.warnings({**found, "busy": 0.0}))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    (text,) = machine.warnings({**machine.describe(), "busy": 0.05})
    assert text.startswith("OPENBLAS_CORETYPE set: NumPy's products are slower than they need be")
    assert "env -u OPENBLAS_CORETYPE tinyvid bench" in text
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    (text,) = machine.warnings({**machine.describe(), "busy": None})
    assert text.startswith("OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE set")


def test_other_work_is_warned_of_and_the_machine_fits_a_line():
    (text,) = machine.warnings({"environment": {}, "busy": 0.75})
    assert text == "other work takes 75% of this machine: only ratios mean anything"
    counters = iter(["cpu  100 0 100 800 10 0 0 0", "cpu  140 5 110 836 14 0 0 0"])
    # 95 ticks: 40 user, 5 nice, 10 system, 36 idle, 4 waiting.
    assert machine.busy(lambda: next(counters)) == pytest.approx(55 / 95, abs=0.005)
    assert machine.busy(lambda: None) is None
    assert machine.busy(lambda: "cpu 1 1 1 1 1") is None  # no time has passed
    found = machine.describe()
    assert np.__version__ in machine.line(found)
    assert f"{found['threads']} threads" in machine.line(found)


def test_ceilings_keep_the_best_of_several_tries():
    taken = iter([9.0, 9.0, 0.010, 0.5, 0.002, 0.7])
    tops = machine.Ceilings(timer=lambda run, calls: (run(), next(taken))[1], gemm=64, copied=4096)
    tops.sample()
    assert tops.gflops == pytest.approx(2 * 64**3 / 0.010 / 1e9)
    assert tops.gbps == pytest.approx(2 * 4096 / 0.5 / 1e9)
    tops.sample()
    assert tops.gflops == pytest.approx(2 * 64**3 / 0.002 / 1e9)
    assert tops.gbps == pytest.approx(2 * 4096 / 0.5 / 1e9)
    assert tops.bound(tops.gflops * 1e9, 0) == pytest.approx(1)
    assert tops.bound(0, tops.gbps * 3e9) == pytest.approx(3)
