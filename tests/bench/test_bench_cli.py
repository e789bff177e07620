"""`tinyvid bench`: what it prints, what bad usage gets, and the pages that tell of it."""

import re
import shutil
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tinyvid.bench import machine, pipeline, timing
from tinyvid.bench.results import OURS, read
from tinyvid.checking.suite import PROBLEMS
from tinyvid.cli import app, bench
from tinyvid.data import write_verbs
from tinyvid.kernels import conv3d_fprop

ROOT = Path(__file__).resolve().parents[2]


def run(*args, columns=100):
    return CliRunner().invoke(app, ["bench", *map(str, args)], env={"COLUMNS": str(columns)})


def flat(text):
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """No time is looked at: small ceilings, and few calls a round."""
    monkeypatch.setattr(machine, "GEMM", 64)
    monkeypatch.setattr(machine, "COPIED", 4096)
    monkeypatch.setattr(timing, "SHORTEST", 1e-6)


def test_every_operation_has_a_command():
    assert set(PROBLEMS) <= set(bench.OPS)
    text = flat(run("--help").output)
    for name in (*bench.OPS, "models", "pipeline", "compare"):
        assert name in text


def test_help_fits():
    for command in ("models", "pipeline", "compare", "conv3d"):
        result = run(command, "--help", columns=80)
        assert result.exit_code == 0
        assert max(map(len, result.output.splitlines())) <= 80
    text = flat(result.output)
    for option in ("--case", "--ladder", "--with", "--check", "--quick", "--out", "--peer"):
        assert option in text


def test_a_run_and_its_files(tmp_path):
    result = run(
        *("conv3d", "--case", "plain", "--pass", "fprop", "--peer", "numpy"),
        *("--variant", "cpu/im2col"),
        *("--seconds", "1", "--out", tmp_path),
    )
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.replace(str(tmp_path), "").splitlines())) <= 100
    lines = result.output.splitlines()
    assert "conv3d fprop plain" in lines
    assert any(re.match(r"  cpu/im2col +[\d.,]+ +\d+% +[\d.]+ +[\d.]+ +\d+%$", x) for x in lines)
    assert any(re.match(r"  numpy .*(faster|slower|same|cannot tell)", x) for x in lines)
    found = read(tmp_path / "conv3d.json")
    assert [line.name for line in found.measured[0].lines] == ["cpu/im2col", "numpy"]
    assert found.gflops > 0
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".csv", ".md", ".png"}
    same = run("compare", tmp_path / "conv3d.json", tmp_path / "conv3d.json")
    assert same.exit_code == 0
    assert re.search(r"conv3d fprop plain cpu/im2col +1\.00 .*\(by numpy\)", same.output)


def test_whole_operations():
    given = ("conv3d", "--whole", "--case", "plain", "--peer", "none", "--seconds", "0.05")
    result = run(*given)
    assert result.exit_code == 0, result.output
    for line in ("conv3d forward plain", "conv3d forward+backward plain"):
        assert line in result.output.splitlines()
    one = run(*given, "--pass", "forward", "--check").output
    assert re.findall(r"  tinyvid +(\w+)", one) == ["right"]


def test_a_wrong_variant_fails_the_run(monkeypatch):
    kept = dict(conv3d_fprop.variants)
    monkeypatch.setattr(conv3d_fprop, "variants", kept)
    conv3d_fprop.add("cpu/planted", "tests:planted")
    kept["cpu/planted"]._function = lambda x, w, g: kept["cpu/im2col"].function(x, w, g) * 2
    given = ("--case", "plain", "--variant", "cpu/planted", "--peer", "none")
    result = run("conv3d", *given, "--seconds", "0.05")
    assert result.exit_code == 1
    assert "FAILED: result 0 is wrong" in flat(result.output)
    assert "1 failed" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("conv3d", "--device", "emulator"), "times on the emulator mean nothing"),
        (("conv3d", "--ladder", "--device", "emulator"), "times on the emulator mean nothing"),
        (("conv3d", "--device", "gpu"), "no device is called 'gpu'"),
        (("conv3d", "--case", "c3d_conv9"), "Did you mean 'c3d_conv5'?"),
        (("conv3d", "--pass", "bprop"), "no pass of conv3d is called 'bprop'"),
        (("conv3d", "--variant", "cpu/imcol"), "Did you mean 'cpu/im2col'?"),
        (("conv3d", "--peer", "toch"), "Did you mean 'torch'?"),
        (("conv3d", "--seconds", "0"), "--seconds 0: more than 0"),
        (("conv3d", "--with", "nowhere.py"), "--with nowhere.py: no such file"),
        (("conv3d", "--whole", "--ladder"), "--whole runs what the operation chooses"),
        (("conv3d", "--whole", "--pass", "fprop"), "a whole operation has forward and"),
        (("conv2d_uint8", "--whole"), "conv2d_uint8 cannot be timed as a whole"),
        (("models", "c3f"), "no network is called 'c3f'. Did you mean 'c3d'?"),
        (("models", "--pass", "backward"), "step or forward"),
        (("models", "c3d", "--batch", "0"), "--batch 0: at least 1"),
        (("models", "c3d", "--peer", "numpy"), "networks have the peer torch, or none"),
        (("pipeline", "--data", "nowhere"), "nowhere"),
        (("compare", "a.json", "b.json"), "a.json: No such file"),
    ],
)
def test_bad_usage_gets_a_sentence(args, message):
    result = run(*args)
    assert result.exit_code == 2
    assert message in flat(result.stderr)


PAGE = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"example: my_conv\.py -->\n```python\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a user's file, and takes its variants and modules away after the test."""
    monkeypatch.setattr(conv3d_fprop, "variants", dict(conv3d_fprop.variants))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text, name="my_conv.py"):
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
        path = tmp_path / name
        path.write_text(text)
        return path

    yield write
    sys.modules.pop("my_conv", None)


def test_the_variant_of_the_page_is_checked_and_timed(own):
    given = ("--case", "no_padding", "--peer", "none", "--seconds", "0.05")
    result = run("conv3d", "--with", own(EXAMPLE), *given)
    assert result.exit_code == 0, result.output
    for dtype in ("float32", "float64"):
        assert re.search(rf"conv3d fprop cpu/windows {dtype}: \d+ cases, pass", result.output)
    assert re.search(r"  cpu/windows +[\d.]+ ", result.output)
    assert "dgrad" not in result.output  # a pass that the file has no variant of


def test_a_wrong_variant_of_a_file_is_not_timed(own):
    wrong = EXAMPLE.replace(
        '"nczpqtrs,kctrs->nkzpq", windows, w,', '"nczpqtrs,kctrs->nkzpq", windows, w * 1.01,'
    )
    result = run("conv3d", "--with", own(wrong), "--case", "no_padding", "--peer", "none")
    assert result.exit_code == 1
    assert "FAIL" in result.output
    assert "the reference has" in result.output
    assert not re.search(r"  cpu/windows +[\d.]+ ", result.output)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "it adds no variant of conv3d"),
        ("import nothing_of_the_kind\n", "ModuleNotFoundError"),
    ],
)
def test_a_file_that_adds_nothing(own, text, message):
    result = run("conv3d", "--with", own(text))
    assert result.exit_code == 2
    assert message in flat(result.stderr)


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)
def test_on_a_stand_in_for_a_gpu(cupy):
    times = iter(range(10**6))

    class Event:
        def record(self):
            self.at = next(times)

        def synchronize(self):
            pass

    cupy.cuda.Event = Event
    cupy.cuda.get_elapsed_time = lambda a, b: 1000.0 * (b.at - a.at)
    cupy.cuda.runtime.getDeviceProperties = lambda n: {"l2CacheSize": 64, "name": b"a stand-in"}
    empty = cupy.empty
    cupy.empty = lambda shape, dtype: (
        types.SimpleNamespace(fill=lambda value: None) if dtype == "uint8" else empty(shape, dtype)
    )
    result = run(
        *("conv3d", "--device", "cuda", "--case", "pointwise", "--pass", "fprop"),
        *("--ladder", "--variant", "cuda/naive", "--peer", "torch", "--seconds", "9"),
    )
    assert result.exit_code == 0, result.output
    assert "a stand-in" in result.output
    assert "torch is skipped" in result.output
    assert re.search(r"cuda/naive +1,000 ", result.output)


def test_models(monkeypatch):
    from tinyvid.bench import networks

    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    given = ("early_fusion", "--batch", "1", "--peer", "none", "--seconds", "0.01")
    result = run("models", *given)
    assert result.exit_code == 0, result.output
    for line in ("models step early_fusion", "models forward early_fusion", "1 clips 3×16×64×64"):
        assert line in result.output


def test_pipeline(monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "WINDOW", 1e-3)
    folder = write_verbs(tmp_path / "videos", 1, frames=6, size=32)
    sizes = ("--frames", "4", "--size", "32", "--batch", "2", "--model", "early_fusion")
    result = run("pipeline", "--data", folder, *sizes, "--seconds", "0.01", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert re.search(r"\d+ clips a second", result.output)
    assert len(re.findall(r"\d+ clips a second", result.output)) == 3
    assert "of the time spent waiting for data" in result.output
    assert "in the first epoch" in result.output
    assert all(one.first(OURS) for one in read(tmp_path / "pipeline.json").measured)
    result = run("pipeline", "--data", folder, *sizes, "--seconds", "0.01", "--memory", "0")
    assert "do not fit into --memory 0" in result.output
    assert len(re.findall(r"\d+ clips a second", result.output)) == 2
