"""`tinyvid kernels check` on changed copies of our own files."""

import inspect
import re
import shutil
from pathlib import Path

import pytest
from kernel_files import CONV3D, needs_compiler, run, text_at
from typer.testing import CliRunner

from tinyvid.cli import app, kernels
from tinyvid.kernels import files, launch


def changed(tmp_path: Path, name: str, before: str, after: str, *, following: str = "") -> Path:
    """Write a copy of one of our files with one place changed, the first after `following`."""
    text = (CONV3D / name).read_text()
    at = text.index(before, text.index(following))
    copy = tmp_path / name
    copy.write_text(text[:at] + after + text[at + len(before) :])
    return copy


@needs_compiler
@pytest.mark.slow
def test_a_copy_of_our_file_without_a_barrier_or_a_wait(tmp_path):
    how = ["--only", "dgrad plain", "--schedule", "forward", "--copies", "early", "--no-counts"]
    name, wait = "implicit_gemm.cu", "cp_async_wait<0>();"
    barrier = changed(tmp_path, name, "__syncthreads();", "", following=wait)
    result = run(barrier, *how)
    assert result.exit_code == 1, result.output
    # The multiplication reads what other threads may be copying: told with both lines.
    races = re.findall(r"race: conv3d_dgrad_implicit_gemm.*", result.stdout)
    assert any(
        "of shared array `a`" in race and " writes " in race and "reads in line" in race
        for race in races
    ), races
    reads = text_at(barrier, r"multiply\S*\(a\[now\], b\[now\]")
    copies = text_at(barrier, r"problem\.load\(a\[0\]")
    assert re.search(rf"\n  from +{reads}  multiply", result.stdout)
    assert re.search(rf"\n  from +{copies}  problem\.load", result.stdout)

    (tmp_path / "wait").mkdir()
    result = run(changed(tmp_path / "wait", name, wait, ""), *how)
    assert result.exit_code == 1, result.output
    told = re.findall(r"copy not waited for: conv3d_dgrad_implicit_gemm.*", result.stdout)
    assert any(" reads " in one and "of shared array `a`" in one for one in told)
    assert re.search(rf"\n  from +{reads}  multiply", result.stdout)


@needs_compiler
def test_a_copy_of_our_file_with_an_index_off_by_one(tmp_path):
    copy = changed(tmp_path, "naive.cu", "first_c + c)]", "first_c + c + 1)]")
    how = ["--only", "plain", "--schedule", "forward", "--copies", "late", "--no-counts"]
    result = run(copy, *how)
    assert result.exit_code == 1, result.output
    line = text_at(copy, re.escape("first_c + c + 1)]"))
    assert f"naive.cu:{line}: out of bounds: conv3d_fprop_naive, block (" in result.stdout
    assert "reads 4 bytes at byte 2880 of global array `x`, which has 2880" in result.stdout
    assert "  first in fprop plain\n" in result.stdout
    assert run(CONV3D / "naive.cu", *how).exit_code == 0


def test_a_copy_is_known_by_name_and_kernels(tmp_path):
    ours = CONV3D / "naive.cu"
    assert files.original_of(ours) == ours
    copy = tmp_path / "naive.cu"
    assert files.original_of(copy) is None
    shutil.copy(ours, copy)
    assert files.original_of(copy) == ours
    copy.write_text("__global__ void naive(float* x) {}")
    assert files.original_of(copy) is None
    shutil.copy(ours, tmp_path / "mine.cu")
    assert files.original_of(tmp_path / "mine.cu") is None


def test_a_stand_in_stands_in_for_one_file_only(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(launch, "_load", lambda path, *rest: loaded.append((path, rest[-1])))
    ours, copy, other = CONV3D / "naive.cu", tmp_path / "naive.cu", tmp_path / "other.cu"
    for file in (copy, other):
        file.write_text("")
    with launch.stand_in(ours, copy):
        launch.load(ours, device="emulator")
        launch.load(other, device="emulator")
    launch.load(ours, device="emulator")
    assert loaded == [(copy, CONV3D), (other, tmp_path), (ours, CONV3D)]


def test_help_shows_no_types_of_flags():
    assert "<bool>" not in run("--help").stdout
    assert "<bool>" not in CliRunner().invoke(app, ["kernels", "--help"]).stdout


def test_help_fits_80_columns():
    written = inspect.cleandoc(kernels.check.__doc__).splitlines()[1:]
    shown = run("--help", columns=80).stdout
    lines = [line.removeprefix(" ").rstrip() for line in shown.splitlines()]
    first = lines.index(written[1])
    assert lines[first : first + len(written) - 1] == written[1:]
