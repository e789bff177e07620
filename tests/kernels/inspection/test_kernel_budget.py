"""Each limit of a budget is broken by a kernel that was made to break it, and by it alone."""

import re
import subprocess
import sys

import pytest

from tinyvid.kernels.inspection import Budget
from tinyvid.kernels.inspection.budget import limits, violations

BROKEN = [
    ("spilled", Budget(), r"spilled on sm_80 spills \d+ bytes to local memory and loads \d+"),
    ("many_registers", Budget(registers=96), r"takes \d+ registers a thread; at most 96"),
    ("many_registers", Budget(threads=256), "has 128 threads a block; at least 256"),
    ("nested", Budget(ffma=0.9), r"has \d+\.\d% multiply-adds in the main loop \(8 of \d+ inst"),
    ("loads_32", Budget(wide_loads=True), "not of 128 bits: 1 of 32 bits"),
    ("loads_64", Budget(wide_loads=True), "not of 128 bits: 1 of 64 bits"),
    ("divided_64", Budget(no_division=True), r"divides integers in the main loop, at samples\.cu:"),
    ("one_stage", Budget(stages=2), "keeps the copies of 1 of the 2 stages going"),
    ("loads_128", Budget(stages=2), "copies of 0 of the 2 stages"),
    ("product_by_words", Budget(ldmatrix=True), "reads no fragment with ldmatrix"),
]
KEPT = [
    ("many_registers", Budget(registers=255, threads=128, ffma=0.4)),
    ("loads_128", Budget(wide_loads=True, no_division=True)),
    ("divided_by_constant", Budget(no_division=True)),
    ("two_stages", Budget(stages=2)),
    ("three_stages", Budget(stages=2, wide_loads=True)),
    ("product_by_matrices", Budget(ldmatrix=True)),
    ("indexed", Budget()),
]


def test_limits_are_told_in_a_few_words():
    assert limits(Budget(), "sm_80") == ["no spills"]
    budget = Budget(8, 128, 256, 0.85, True, True, 2, True)
    assert limits(budget, "sm_90") == [
        *("≤ 8 spilled bytes", "≤ 128 registers", "≥ 256 threads", "≥ 85% FFMA"),
        *("loads of 128 bits", "no division", "≥ 2 stages", "ldmatrix"),
    ]
    assert limits(budget, "sm_100") == ["≤ 8 spilled bytes"]


@pytest.mark.parametrize(("kernel", "budget", "sentence"), BROKEN)
def test_a_broken_limit_is_told(inspected, kernel, budget, sentence):
    (found,) = violations(inspected(kernel), budget)
    assert re.search(sentence, found)


@pytest.mark.parametrize(("kernel", "budget"), KEPT)
def test_a_kept_limit_is_not(inspected, kernel, budget):
    assert violations(inspected(kernel), budget) == []


def test_limits_hold_on_some_architectures_and_spills_on_all(inspected):
    facts = inspected("many_registers", "sm_100")
    assert violations(facts, Budget(registers=96)) == []
    assert violations(facts, Budget(registers=96, archs=("sm_100",))) != []
    assert len(violations(inspected("spilled", "sm_100"), Budget(registers=16))) == 1
    assert violations(inspected("spilled"), Budget(spills=10**6)) == []


def command(*args):
    line = [sys.executable, "-m", "tinyvid.kernels.inspection", *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_command_prints_the_facts(toolchain, samples):
    done = command(samples, "--kernel", "two_stages", "--arch", "sm_80", "--block", 128, "--code")
    assert done.returncode == 0, done.stderr
    for part in (
        "two_stages  sm_80, 128 threads a block",
        "no spills",
        "8192 bytes of shared memory",
        "main loop",
        "global loads: 1 of 128 bits",
        "at least 2 stages",
        "LDGSTS.E.BYPASS.128",
        f"{samples}:",
    ):
        assert part in done.stdout


def test_the_command_tells_where_registers_are_spilled(toolchain, samples):
    line = next(
        n for n, row in enumerate(samples.read_text().splitlines(), 1) if " spilled(" in row
    )
    done = command(samples, "--kernel", "spilled", "--arch", "sm_80")
    assert re.search(rf"local memory: \d+ at samples\.cu:{line}", done.stdout)


def test_the_command_tells_errors_in_a_sentence(toolchain, samples):
    done = command(samples, "--kernel", "none", "--arch", "sm_80")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "has no kernel 'none'" in done.stderr
    assert "Traceback" not in done.stderr
