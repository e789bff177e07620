"""`tinyvid kernels check`: what it finds, and what it prints."""

import re
import textwrap
from functools import partial
from pathlib import Path

import pytest
from kernel_files import CONV3D, kernels_in, needs_compiler, run
from rich.console import Console

from tinyvid.cli import kernels
from tinyvid.cli.launches import Planned
from tinyvid.kernels import launch
from tinyvid.kernels.emulator import options


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return kernels_in(tmp_path_factory.mktemp("kernels"))


@needs_compiler
def test_a_right_kernel_and_what_its_lines_cost(folder):
    result = run(folder / "transpose.cu", "-D", "PAD=0")
    assert result.exit_code == 0, result.output
    rows = [" ".join(row.split()) for row in result.stdout.splitlines()]
    assert rows[0] == str(folder / "transpose.cu")
    assert rows[1] == "line access bytes requests moved fewest ratio"
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
        r"transpose\.cu:6: race: transpose, block \(0, 0, 0\), thread \(\d+, \d, 0\) writes "
        r"element \d+ of shared array `tile` \(byte \d+ of 4096\), which "
        r"thread \(\d+, \d, 0\) reads in line 11; nothing orders the two \(\d+ times in 6 runs\)\n"
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
    assert (
        "thread (10, 0, 0) writes 4 bytes at byte 40 of global array `x`, which has 40"
        in result.stdout
    )


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
