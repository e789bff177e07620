"""`tinyvid kernels check`: launches in comments, and what bad usage gets."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_files import CONV3D, SPLIT, kernels_in, needs_compiler, run, text_at

from tinyvid.errors import UserError
from tinyvid.kernels import files
from tinyvid.kernels.emulator.written import in_file, parse


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return kernels_in(tmp_path_factory.mktemp("kernels"))


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
