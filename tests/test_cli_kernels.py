"""`tinyvid kernels check`: what it finds, what it prints, what bad usage gets."""

import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tinyvid.cli import app, kernels
from tinyvid.cli.launches import Planned
from tinyvid.errors import UserError
from tinyvid.kernels import files, launch
from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.written import in_file, parse

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)
CONV3D = Path(files.__file__).parent / "conv3d"

TRANSPOSE = """\
// check: transpose grid=2,2 block=32,8 x=[64,64] y=[64,64]
extern "C" __global__ void transpose(const float* x, float* y) {
  __shared__ float tile[32][32 + PAD];
  const int row = blockIdx.y * 32, column = blockIdx.x * 32;
  for (int j = threadIdx.y; j < 32; j += 8)
    tile[j][threadIdx.x] = x[(row + j) * 64 + column + threadIdx.x];
#ifndef FORGET
  __syncthreads();  // the tile is complete
#endif
  for (int j = threadIdx.y; j < 32; j += 8)
    y[(column + j) * 64 + row + threadIdx.x] = tile[threadIdx.x][j];
}
"""
SPLIT = """\
// check: parts grid=3 block=64 x=[200] part=[3] n=200
extern "C" __global__ void parts(const float* x, float* part, int n) {
  float sum = 0.0f;
  for (int i = blockIdx.x; i < n; i += gridDim.x) sum += x[i];
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}
/* The second launch adds up what the first has left.
 * check: total part=@part sum=[1] scale=0.5f
 */
extern "C" __global__ void total(const float* part, float* sum, float scale) {
  *sum = scale * (part[0] + part[1] + part[2]);
}
// check: "fill<int, 3>" block=40 x=[100]
template <class T, int VALUE> __global__ void fill(T* x) { x[threadIdx.x] = VALUE; }
"""


def run(*args: object, columns: int = 100):
    return CliRunner().invoke(
        app, ["kernels", "check", *map(str, args)], env={"COLUMNS": str(columns)}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "transpose.cu").write_text(TRANSPOSE)
    (folder / "split.cu").write_text(SPLIT)
    (folder / "bare.cu").write_text(
        'extern "C" __global__ void bare(float* x, int n) {\n'
        "  if (threadIdx.x <= n) x[threadIdx.x] = n;\n}\n"
    )
    return folder


# ---- what is found and printed -------------------------------------------------------------------


@needs_compiler
def test_a_right_kernel_and_what_its_lines_cost(folder):
    result = run(folder / "transpose.cu", "-D", "PAD=0")
    assert result.exit_code == 0, result.output
    rows = [" ".join(row.split()) for row in result.stdout.splitlines()]
    assert rows[0] == str(folder / "transpose.cu")
    assert rows[1] == "line access bytes requests moved fewest"
    # 4 blocks of 32 rows; without padding a column of the tile lies in one bank.
    assert rows[2].startswith("6 global read 4 128 512 512 1.00x tile[j][threadIdx.x] = x[")
    assert rows[3].startswith("6 shared write 4 128 128 128 1.00x ")
    assert rows[4].startswith("11 global write 4 128 512 512 1.00x ")
    assert rows[5].startswith("11 shared read 4 128 4096 128 32.00x ")
    assert rows[-1].startswith("nothing found in 6 launches, ")
    padded = run(folder / "transpose.cu", "-D", "PAD=1", "--schedule", "reversed")
    assert re.search(r"11 +shared read +4 +128 +128 +128 +1.00x", padded.stdout)
    assert "nothing found in 2 launches, " in padded.stdout
    one = run(folder / "transpose.cu", "-D", "PAD=0", "--schedule", "reversed", "--copies", "late")
    assert "nothing found in 1 launch, " in one.stdout


@needs_compiler
def test_findings_are_told_and_the_exit_code_is_1(folder):
    result = run(folder / "transpose.cu", "-D", "PAD=0", "--define", "FORGET", "--no-counts")
    assert result.exit_code == 1, result.output
    assert "requests" not in result.stdout
    assert re.search(
        r"transpose\.cu:6: race: transpose, block \(0, 0, 0\), thread \(\d+, \d, 0\) writes shared "
        r"tile element \d+ \(byte \d+ of 4096\), which thread \(\d+, \d, 0\) reads in line 11; "
        r"nothing orders the two \(\d+ times\)\n"
        r"  writes  6  tile\[j\]\[threadIdx.x\] = x\[.*\n  reads  11  y\[",
        result.stdout,
    ), result.stdout
    # That the tile is read before it is written is no second one.
    assert result.stdout.splitlines()[-1].startswith("1 finding in 6 launches, ")


@needs_compiler
def test_the_example_of_the_documentation(tmp_path):
    text = (CONV3D.parent / "emulator" / "CHECKER.md").read_text()
    blocks = re.findall(r"(?:^ {4}.*\n|^\n)+", text, re.MULTILINE)
    source, printed = (next(b for b in blocks if mark in b) for mark in ("__global__", "requests"))
    file = tmp_path / "transpose.cu"
    file.write_text(textwrap.dedent(source).strip() + "\n")
    shown = " ".join(run(file, columns=80).stdout.split())
    for row in printed.split("\n")[2:6]:  # the numbers of each line
        assert " ".join(row.partition("x ")[0].split()) in shown
    race = " ".join(printed.partition("transpose.cu:6: ")[2].split())
    assert race in shown


@needs_compiler
def test_the_worst_of_several_files_is_the_exit_code(folder):
    split, bare, transpose = (folder / name for name in ("split.cu", "bare.cu", "transpose.cu"))
    both = run(split, transpose, "-DPAD=0", "-D", "FORGET")
    assert both.exit_code == 1
    assert "nothing found in 18 launches" in both.stdout  # 3 in each of 6 modes
    assert f"\n{transpose}\n" in both.stdout
    # One that cannot be checked does not keep the others from it.
    all_of_them = run(split, bare, folder / "none.cu", transpose, "-DPAD=0", "-D", "FORGET")
    assert all_of_them.exit_code == 2
    assert all_of_them.stdout.count(" launches, ") == 2
    assert all_of_them.stderr.startswith(f"error: {bare}: nothing says how to launch it; ")
    assert all_of_them.stderr.endswith(f"error: {folder / 'none.cu'}: no such file\n")
    assert "of several files" in " ".join(run("--help", columns=80).stdout.split())


@needs_compiler
def test_elements_left_out_are_noted(folder):
    result = run(folder / "split.cu", "--schedule", "forward", "--copies", "late")
    assert result.exit_code == 0, result.output
    # An int of -1 is as good as any other.
    assert "note: fill<int, 3>: x: 60 of 100 elements were never written" in result.stdout


@needs_compiler
def test_a_launch_from_options(folder):
    how = ["--kernel", "bare", "--block", 40, "--arg", "x=[40]", "--arg"]
    right = run(folder / "bare.cu", *how, "n=39", "--schedule", "shuffled", "--seed", 3)
    assert right.exit_code == 0, right.output
    assert "nothing found in 2 launches" in right.stdout
    wrong = run(
        folder / "bare.cu", "--kernel", "bare", "--block", 41, "--arg", "x=[40]", *how[-1:], "n=40"
    )
    assert wrong.exit_code == 1
    assert (
        "bare.cu:2: out of bounds: bare, block (0, 0, 0), thread (40, 0, 0) writes" in wrong.stdout
    )


@needs_compiler
def test_a_launch_from_python(folder):
    script = folder / "launches.py"
    script.write_text(
        "import numpy as np\n\n\n"
        "def launch(module):\n"
        "    x = np.zeros(10, np.float32)\n"
        '    module.get_function("bare")((1,), (32,), (x, np.int32(N)))\n'.replace("N", "9")
    )
    assert run(folder / "bare.cu", "--with", script).exit_code == 0
    script.write_text(script.read_text().replace("int32(9)", "int32(10)"))
    result = run(folder / "bare.cu", "--with", script)
    assert result.exit_code == 1
    assert "thread (10, 0, 0) writes 4 bytes at byte 40 of global x, which has 40" in result.stdout


# What people write: CUDA's own headers, our own from another folder, no extern "C", C's types.
PLAIN = """\
#include <cuda_runtime.h>
#include <cstdint>
#include <stdio.h>
#include "ptx.cuh"
#include "common.cuh"

// check: halve block=32 x=float[32] n=int[1]:32 y=double[1]
__global__ void halve(float* x, const int* n, double* y) {
  x[threadIdx.x] = *n / 2.0f;
  if (threadIdx.x == 0) printf("n is %d\\n", *n), *y = FLT_MAX;
}
// check: mine::low k=unsigned[1] h=half[1] s=size_t[1]
namespace mine {
__global__ void low(uint32_t* k, unsigned short* h, size_t* s) { *k = 1, *h = 2, *s = 3; }
}
"""


@needs_compiler
def test_a_file_as_people_write_it(tmp_path, capfd):
    file = tmp_path / "plain.cu"
    file.write_text(PLAIN)
    result = run(file, "--schedule", "forward", "--copies", "late")
    assert result.exit_code == 0, result.output
    assert "nothing found in 2 launches" in result.stdout
    assert capfd.readouterr().out == "n is 32\n"
    script = tmp_path / "launches.py"
    script.write_text(
        "import numpy as np\n\n"
        "def launch(module):\n"
        "    low = module.get_function('mine::low')\n"
        "    low((1,), (1,), [np.zeros(1, t) for t in (np.uint32, np.uint16, np.uint64)])\n"
    )
    how = ["--schedule", "forward", "--copies", "late", "--with", script]
    assert run(file, *how).exit_code == 0


@needs_compiler
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n#include <mma.h>", "k.cu:2: #include mma.h: nvcuda::wmma is not emulated; ptx.cuh has"),
        ("#include <cuda_fp16.h>", "cuda_fp16.h: the 16-bit floating-point types are not emulated"),
        ("#include <cooperative_groups.h>", "use grid_sync() of common.cuh"),
        ("#include <cooperative_groups/reduce.h>", "cooperative groups are not emulated"),
        ("#include <cuda/pipeline>", "it is not emulated; use cp_async_16()"),
        ("#include <cub/cub.cuh>", "cub/cub.cuh: the emulator has not been made for it"),
        ("#include <vector>", "vector: the emulator has no header of that name; code for the CPU"),
        ('#include "mine.cuh"', "mine.cuh: no such file beside it, nor in the kernels folder"),
        ("\n\nint main() { k<<<1, 32>>>(); }", "k.cu:3: a launch, <<<...>>>, is code for the CPU"),
    ],
)
def test_what_is_not_emulated_is_said(tmp_path, text, says):
    file = tmp_path / "k.cu"
    file.write_text(text + '\nextern "C" __global__ void k() { printf("a <<<b"); }\n')
    result = run(file, "--kernel", "k")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


ENDS = """\
// check: stops block=64 part=[1]
extern "C" __global__ void stops(float* part) {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  part[0] = 1.0f;
}
// check: uses part=@part sum=[1]
// check: uses part=@sum sum=[1]
// check: uses part=[1]:1 sum=[0]
extern "C" __global__ void uses(const float* part, float* sum) { *sum = *part; }
"""


@needs_compiler
def test_launches_after_a_fault_are_made_or_said_to_be_left_out(tmp_path):
    file = tmp_path / "ends.cu"
    file.write_text(ENDS)
    result = run(file, "--schedule", "forward", "--copies", "late", "--no-counts")
    assert result.exit_code == 1, result.output
    # The first ends at a fault, two depend on it, and the fourth has a fault of its own.
    assert "ends.cu:4: divergent barrier: stops" in result.stdout
    assert "  3  if (threadIdx.x < 32) __syncthreads();\n" in result.stdout
    assert "ends.cu:10: out of bounds: uses" in result.stdout
    left = [row for row in result.stdout.splitlines() if row.startswith("note: ")]
    assert [row.partition(" was not")[0] for row in left] == [
        f"note: {file}:7: uses",
        f"note: {file}:8: uses",
    ]
    assert "2 findings in 2 launches" in result.stdout

    script = tmp_path / "launches.py"
    script.write_text(
        "import numpy as np\n\n"
        "def launch(module):\n"
        "    for block in (64, 64):\n"
        '        module.get_function("stops")((1,), (block,), (np.zeros(1, np.float32),))\n'
    )
    result = run(file, "--with", script)
    assert "note: launches.py: a fault ended it, and left out what it launches" in result.stdout
    assert "1 finding in 6 launches" in result.stdout


@needs_compiler
def test_a_finding_that_a_later_launch_explains_is_told_no_more(capsys):
    """An element that an index off by one leaves out, and later that index."""
    file = Path(__file__).parent / "kernels" / "emulator" / "accesses.cu"
    with options(checked=True):
        module = launch.load(file, device="emulator")

    def launches(count):
        y = launch.empty((count,), "float32", "emulator")
        module.get_function("next_to_it")((1,), (64,), (y, 1))

    cases = {"longer": 65, "as long": 64, "even longer": 66}
    plan = Planned([(name, partial(launches, count)) for name, count in cases.items()])
    how = ("forward",), ("late",), 1, False, Console(width=100)
    assert kernels._run(file, plan, *how) == 1
    printed = capsys.readouterr().out
    assert "out of bounds: next_to_it" in printed
    assert "uninitialised" not in printed
    assert "  first in as long\n1 finding in 3 launches of 3 cases" in printed


# ---- changed copies of our own files -------------------------------------------------------------


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
    assert any("writes shared a" in race and "reads in line" in race for race in races), races
    reads = text_at(barrier, r"multiply\S*\(a\[now\], b\[now\]")
    copies = text_at(barrier, r"problem\.load\(a\[0\]")
    assert re.search(rf"\n  from +{reads}  multiply", result.stdout)
    assert re.search(rf"\n  from +{copies}  problem\.load", result.stdout)

    (tmp_path / "wait").mkdir()
    result = run(changed(tmp_path / "wait", name, wait, ""), *how)
    assert result.exit_code == 1, result.output
    told = re.findall(r"copy not waited for: conv3d_dgrad_implicit_gemm.*", result.stdout)
    assert any("reads shared a" in one for one in told)
    assert re.search(rf"\n  from +{reads}  multiply", result.stdout)


def text_at(file: Path, pattern: str) -> int:
    """Return the line of a file at which a pattern is found first."""
    text = file.read_text()
    found = re.search(pattern, text)
    assert found, pattern
    return text.count("\n", 0, found.start()) + 1


@needs_compiler
def test_a_copy_of_our_file_with_an_index_off_by_one(tmp_path):
    copy = changed(tmp_path, "naive.cu", "first_c + c)]", "first_c + c + 1)]")
    how = ["--only", "plain", "--schedule", "forward", "--copies", "late", "--no-counts"]
    result = run(copy, *how)
    assert result.exit_code == 1, result.output
    line = text_at(copy, re.escape("first_c + c + 1)]"))
    assert f"naive.cu:{line}: out of bounds: conv3d_fprop_naive, block (" in result.stdout
    assert "reads 4 bytes at byte 2880 of global x, which has 2880" in result.stdout
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


# ---- bad usage -----------------------------------------------------------------------------------

BARE = ["bare.cu", "--kernel", "bare"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["none.cu"], "none.cu: no such file"),
        (["bare.cu"], "bare.cu: nothing says how to launch it; write above its kernel"),
        (["bare.cu", "--schedule", "forwards"], "Did you mean 'forward'?"),
        (["bare.cu", "--copies", "now"], "--copies now: it is one of all, late, early."),
        (["bare.cu", "--arg", "x=[1]"], "--arg belongs to a launch: name its --kernel, too"),
        (["split.cu", "--grid", "4"], "--grid belongs to a launch: name its --kernel, too"),
        (["split.cu", "--block", "4", "--shared", 0], "--block, --shared belong to a launch"),
        (["split.cu", "--cooperative"], "--cooperative belongs to a launch"),
        ([*BARE, "--with", "none.py"], "--kernel and --with both say what to launch"),
        (["bare.cu", "--with", "none.py"], "none.py: no such file"),
        ([*BARE, "--grid", "a"], "the options: grid=a: give whole numbers, such as grid=4"),
        ([*BARE, "--arg", "n"], "the options: 'n' is not of the form name=value"),
        (["transpose.cu", "-D", "1x"], "--define 1x: write NAME or NAME=value"),
        (["bare.cu", "--kernel", "x=1"], "the options: name the kernel first"),
    ],
)
def test_bad_usage_is_one_sentence(folder, monkeypatch, args, says):
    monkeypatch.chdir(folder)
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert says in result.stderr


@needs_compiler
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["bear", "x=[1]", "n=1"], "has no kernel 'bear'. It has bare. Did you mean 'bare'?"),
        (["bare", "x=[1]"], "bare(x, n): give a value for n"),
        (["bare", "x=[1]", "n=1", "m=2"], "bare(x, n) has no parameter 'm'"),
        (["bare", "x=[1]", "n=1.5"], "n=1.5: it must be a whole number"),
        (["bare", "x=7", "n=1"], "x=7: it is a pointer: write an array, such as [1000]"),
        (["bare", "x=[1]:zeroes", "n=1"], "Did you mean 'zeros'?"),
        (["bare", "x=float23[1]", "n=1"], "x=float23[1]: 'float23' is no type of numbers"),
        (["bare", "x=str[1]", "n=1"], "x=str[1]: 'str' is no type of numbers"),
        (["bare", "x=int32[1]", "n=1"], "the array is int32"),
        (["bare", "x=int[1]", "n=1"], "the array is int32"),
        (["bare", "x=double[1]", "n=1"], "the array is float64"),
        (["bare", "x=@y", "n=1"], "x=@y: no earlier parameter of that name; there are none"),
    ],
)
def test_a_launch_that_does_not_fit(folder, monkeypatch, args, says):
    monkeypatch.chdir(folder)
    kernel, *values = args
    result = run("bare.cu", "--kernel", kernel, *(word for v in values for word in ("--arg", v)))
    assert result.exit_code == 2, result.output
    assert says in result.stderr


@needs_compiler
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ": it must define launch(module), which makes the launches"),
        ("launch = 3", ": it must define launch(module)"),
        ("def launch(module):\n    pass", ": it launches nothing"),
        ("x = 1\nimport no_such", ":2: ModuleNotFoundError: No module named 'no_such'"),
        ("def launch(module):\n  3 +", ":2: SyntaxError: invalid syntax"),
        ("def launch(module):\n    helper()\ndef helper():\n    1 / 0", ":4: ZeroDivisionError: "),
        ("def launch(module):\n    raise SystemExit(0)", ":2: SystemExit: 0"),
        ("def launch(m):\n    m.get_function('bear')", ":2: bare.cu has no kernel 'bear'. It has"),
    ],
)
def test_a_script_that_does_not_launch(folder, monkeypatch, text, says):
    monkeypatch.chdir(folder)
    Path("script.py").write_text(text + "\n")
    result = run("bare.cu", "--with", "script.py")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: script.py{says}")
    assert result.stderr.count("\n") == 1


@needs_compiler
def test_what_is_found_before_a_script_raises_is_told(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("script.py").write_text(
        "import numpy as np\n\n"
        "def launch(module):\n"
        "    x = np.zeros(10, np.float32)\n"
        '    module.get_function("bare")((1,), (32,), (x, np.int32(10)))\n'
        "    assert x.sum() == 5\n"
    )
    result = run("bare.cu", "--with", "script.py")
    assert result.exit_code == 2
    assert "1 finding in 1 launch, " in result.stdout
    assert result.stderr == "error: script.py:6: AssertionError\n"


@needs_compiler
def test_launches_are_chosen_by_name(folder):
    how = ["--schedule", "forward", "--copies", "late", "--no-counts", "--only"]
    result = run(CONV3D / "naive.cu", *how, "fprop plane")
    assert result.exit_code == 2
    assert "no launch is named 'fprop plane'. Did you mean 'fprop plain'? There" in result.stderr
    assert re.search(r"There are\n  fprop plain, ", result.stderr)
    assert "wgrad plain" in result.stderr
    # The one of that name, rather than all that hold it; else all that do.
    names = [name for name, _ in files.launches_of(CONV3D / "naive.cu")]
    assert "nothing found in 1 launch, " in run(CONV3D / "naive.cu", *how, "fprop plain").stdout
    count = sum("plain" in name for name in names)
    assert f" launches of {count} cases, " in run(CONV3D / "naive.cu", *how, "plain").stdout
    assert "nothing found in 1 launch, " in run(folder / "split.cu", *how, "fill").stdout
    result = run(folder / "split.cu", *how, "parst")
    assert "Did you mean 'parts'? There are\n  parts, total, fill<int, 3>" in result.stderr


@needs_compiler
def test_control_c_is_told_and_ends_with_130():
    """In a process of its own: here the signal is for pytest."""
    file = Path(__file__).parent / "kernels" / "emulator" / "schedules.cu"
    code = (
        # Where the tests run in the background, their children start with this signal ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import os, sys, threading, time; from tinyvid.cli import main\n"
        "from tinyvid.kernels.emulator.module import _ONE_AT_A_TIME\n"
        "def press():\n"
        "    while not _ONE_AT_A_TIME.locked(): time.sleep(0.01)\n"
        "    time.sleep(0.1)\n"
        "    while _ONE_AT_A_TIME.locked(): os.kill(os.getpid(), signal.SIGINT); time.sleep(2)\n"
        "threading.Thread(target=press, daemon=True).start(); main()"
    )
    how = ["--kernel", "spins_alone", "--block", "64", "--arg", "x=float[64]:zeros"]
    done = subprocess.run(
        [sys.executable, "-c", code, "kernels", "check", str(file), *how],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=CONV3D.parents[1],
    )
    assert (done.returncode, done.stdout) == (130, "")
    barrier, loop = text_at(file, "// wait: spins_alone"), text_at(file, "// stop: spins_alone")
    assert re.match(
        rf"stopped: spins_alone was running in \S+schedules\.cu:{loop}, block \(0, 0, 0\), thread "
        rf"\(40, 0, 0\); 40 of its block's threads wait at __syncthreads in line {barrier}\.\n"
        "A thread that waits for another one to write waits for ever here: ",
        done.stderr,
    ), done.stderr


# ---- launches in comments ------------------------------------------------------------------------


def test_launches_in_comments(tmp_path):
    file = tmp_path / "k.cu"
    file.write_text(SPLIT + "// checks nothing: check: it\n")
    first, second, third = in_file(file)
    assert (first.kernel, first.grid, first.block) == ("parts", (3,), (64,))
    assert first.arguments == {"x": "[200]", "part": "[3]", "n": "200"}
    assert first.where == f"{file}:1"
    assert second.arguments == {"part": "@part", "sum": "[1]", "scale": "0.5f"}
    assert (third.kernel, third.grid, third.block) == ("fill<int, 3>", (1,), (40,))
    file.write_text('// check: k "x\n')
    with pytest.raises(UserError, match=r"k\.cu:1: No closing quotation"):
        in_file(file)
    with pytest.raises(UserError, match="No such file"):
        in_file(tmp_path / "none.cu")


def test_words_of_a_launch():
    words = "k grid=4,2 block=8x4x2 shared=64 cooperative=1 -DN=5 -DFAST x=[2,3]:1.5 f=-1"
    written = parse(words.split(), "here")
    assert (written.grid, written.block) == ((4, 2), (8, 4, 2))
    assert (written.shared, written.cooperative) == (64, True)
    assert written.defines == {"N": "5", "FAST": "1"}
    assert written.arguments == {"x": "[2,3]:1.5", "f": "-1"}
    for wrong, says in [([], "name the kernel"), (["k", "shared=x"], "must be a whole number")]:
        with pytest.raises(UserError, match=says):
            parse(wrong, "here")
