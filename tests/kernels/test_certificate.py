"""The certificate: that it is fresh, that budgets are kept, and that it would be seen if not."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinyvid.cli import app
from tinyvid.errors import UserError
from tinyvid.kernels import Variant, certificate, kernels, launch
from tinyvid.kernels.certificate import (
    CHECKED,
    COMPILED,
    Table,
    filled,
    markdown,
    read,
    stale,
    write,
)
from tinyvid.kernels.inspection import Budget, Program
from tinyvid.kernels.inspection.compile import KERNELS, compile_file
from tinyvid.kernels.inspection.program import programs
from tinyvid.kernels.inspection.resources import resources


@pytest.fixture(scope="module")
def compiler():
    from tinyvid.kernels.inspection import compile, sass

    try:
        compile.nvrtc_version()
        sass.nvdisasm()
    except UserError as error:
        pytest.skip(str(error))


# ---- of the real kernels -------------------------------------------------------------------------


def test_every_cuda_variant_has_a_program_for_each_pass():
    registered = {
        (kernel.op, kernel.pass_, variant.name)
        for kernel in kernels()
        for variant in kernel.variants.values()
        if variant.target == "cuda"
    }
    assert {(p.op, p.pass_, p.variant) for p in programs() if p.pass_ != "any"} == registered


def test_no_kernel_is_left_out(compiler):
    found = programs()
    compiled = set()
    for file, constants in {p.file: p.constants for p in found}.items():
        compiled |= set(resources(compile_file(KERNELS / file, "sm_80", constants)))
    assert {p.kernel for p in found} == compiled


def test_what_is_written_down_is_so(compiler):
    assert stale(read(), certificate.certificate(run=False)) == []


def test_every_kernel_keeps_its_budget(compiler):
    assert certificate.broken_budgets(programs()) == []


# ---- that faults would be seen -------------------------------------------------------------------

CHECKS = Table(
    CHECKED,
    "Errors.",
    ("op", "pass", "variant", "cases", *certificate._ERRORS, "agrees", "gradient", "accesses"),
    (
        ("conv3d", "fprop", "cuda/tiled", "27", "1.2e-07", "4.1e-07", "yes", "yes", "yes"),
        ("conv3d", "fprop", "reference", "27", "–", "–", "yes", "yes", "–"),
    ),
)
FACTS = Table(
    COMPILED,
    "By NVRTC 13.5, in float32.",
    ("variant", "pass", "kernel", "on", "registers"),
    (
        ("conv3d cuda/tiled", "fprop", "fprop_tiled", "sm_80", "64"),
        ("conv3d cuda/tiled", "fprop", "fprop_tiled", "sm_90", "60"),
    ),
)


def changed(table, row, **cells):
    """The table with some cells of a row changed; a key names a column, `_` for a space."""
    rows = [list(r) for r in table.rows]
    for name, text in cells.items():
        rows[row][table.header.index(name.replace("_", " "))] = text
    return replace(table, rows=tuple(map(tuple, rows)))


def test_tables_are_read_as_they_were_written(tmp_path):
    readme = tmp_path / "README.md"
    text = f"# Kernels\n\n{certificate.BEGIN}\nold\n{certificate.END}\n\nmore\n"
    readme.write_text(text)
    write([CHECKS, FACTS], readme)
    before, after = readme.read_text().split("### What is checked")[0], readme.read_text()
    assert before.startswith("# Kernels\n")
    assert after.endswith(f"{certificate.END}\n\nmore\n")
    assert "old" not in after
    assert stale(read(readme=readme), [CHECKS, FACTS]) == []
    write([CHECKS, FACTS], readme)
    assert readme.read_text() == after
    assert markdown([FACTS]).count("\n| ") == len(FACTS.rows) + 2


def test_a_readme_without_markers_is_told(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Kernels\n")
    with pytest.raises(UserError, match="has no certificate"):
        read(readme=readme)


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (changed(CHECKS, 0, cases="28"), "reference|has cases '28'; written down is '27'"),
        (changed(CHECKS, 0, agrees="NO"), "fprop has agrees 'NO'"),
        (changed(CHECKS, 0, accesses="NO"), "has accesses 'NO'"),
        (changed(CHECKS, 0, variant="cuda/new"), "cuda/new fprop is not written down"),
        (replace(CHECKS, rows=CHECKS.rows[:1]), "reference fprop is written down, but gone"),
        (replace(CHECKS, about="Differently."), "the heading has changed"),
        (changed(FACTS, 1, registers="61"), "sm_90 has registers '61'; written down is '60'"),
    ],
)
def test_a_difference_is_told(now, sentence):
    found = stale([CHECKS, FACTS], [now if t.title == now.title else t for t in (CHECKS, FACTS)])
    assert any(re.search(sentence, one) for one in found)


def test_a_table_that_is_missing_or_too_many_is_told():
    assert stale([CHECKS], [CHECKS, FACTS]) == [f"{COMPILED}: the table is missing"]
    assert stale([CHECKS, FACTS], [CHECKS]) == [f"{COMPILED}: the table is too many"]


def test_digits_of_errors_and_what_was_not_run_are_not_compared():
    assert stale([CHECKS], [changed(CHECKS, 0, largest_error="1.4e-07")]) == []
    assert stale([CHECKS], [changed(CHECKS, 1, **{"error_/_√n": "2e-07"})]) == []
    assert stale([CHECKS], [changed(CHECKS, 0, agrees="", gradient="", accesses="")]) == []


def test_facts_of_another_compiler_are_not_compared():
    other = replace(changed(FACTS, 0, registers="99"), about="By NVRTC 13.6, in float32.")
    assert stale([FACTS], [other]) == []


def test_checks_that_were_not_run_are_kept_or_failed():
    every = changed(changed(CHECKS, 0, agrees="", gradient=""), 1, variant="cuda/new")
    kept = changed(CHECKS, 0, largest_error="1.4e-07")
    found = filled(every, kept, CHECKS)
    assert found.rows[0] == kept.rows[0]
    assert found.rows[1] == ("conv3d", "fprop", "cuda/new", "27", "–", "–", "NO", "NO", "NO")
    assert filled(CHECKS, CHECKS) == CHECKS
    narrower = replace(CHECKS, header=CHECKS.header[:-1], rows=tuple(r[:-1] for r in CHECKS.rows))
    assert filled(CHECKS, narrower).rows[0][-1] == "NO"  # of other columns: not taken over


def test_a_failure_that_was_written_down_is_told():
    (found,) = stale([changed(CHECKS, 0, gradient="NO")], [changed(CHECKS, 0, gradient="")])
    assert "conv3d cuda/tiled fprop failed, or was not checked" in found


SPILLING = Program(
    "conv3d",
    "fprop",
    "cuda/f",
    str(Path(__file__).parent / "inspection" / "samples.cu"),
    "spilled",
    1024,
)


def test_a_kernel_that_spills_is_told(compiler):
    table = certificate.compiled_table([SPILLING])
    (found,) = certificate.broken_budgets([SPILLING], ["sm_80"])
    assert found.startswith("conv3d fprop cuda/f: spilled on sm_80 spills ")
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert (row["limits"], row["kept"]) == ("no spills", "NO")
    allowed = replace(SPILLING, budget=Budget(spills=10**6))
    assert certificate.broken_budgets([allowed], ["sm_80"]) == []


def run_main(monkeypatch, *args):
    monkeypatch.setattr("sys.argv", ["certificate", *args])
    with pytest.raises(SystemExit) as ended:
        certificate.main()
    return ended.value.code


def test_the_script_exits_with_1_where_a_budget_is_broken(compiler, monkeypatch, capsys):
    monkeypatch.setattr(certificate, "programs", lambda: [SPILLING])
    monkeypatch.setattr(certificate, "ARCHS", ("sm_80",))
    assert run_main(monkeypatch, "--budgets") == 1
    assert "spilled on sm_80 spills" in capsys.readouterr().err
    assert run_main(monkeypatch, "--budgets", "--variant", "reference") == 0


def test_the_script_prints_the_certificate_and_tells_errors(monkeypatch, capsys):
    assert run_main(monkeypatch) == 0
    assert capsys.readouterr().out.strip() == markdown(read())
    assert run_main(monkeypatch, "--budgets", "--variant", "cuda/none") == 2
    assert capsys.readouterr().err.startswith("error: no variant is called 'cuda/none'")


RACING = """
extern "C" __global__ void racing(float* y) {
  __shared__ float last;
  last = y[threadIdx.x];
  y[threadIdx.x] = last;
}
"""


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)
def test_a_kernel_that_races_is_told_with_its_case(monkeypatch, tmp_path):
    from tinyvid.checking import races, suite

    (tmp_path / "racing.cu").write_text(RACING)
    module = launch.load(tmp_path / "racing.cu", {}, "emulator")

    def racing(x, w, geometry, *finish, device):
        module.get_function("racing")((1,), (64,), (np.ones(64, np.float32),))

    few = suite.problems("conv3d", quick=True)
    monkeypatch.setattr(races, "problems_of", lambda *_: few)
    variant = Variant("cuda/racing", "nowhere:racing", unfit=lambda *args: None)
    variant._function = racing
    kernel = next(kernel for kernel in kernels() if kernel.name == "conv3d_fprop")
    found = races.check_accesses(kernel, variant)
    assert {sentence.partition(":")[0] for sentence in found} == {p.name for p in few}
    assert all("race" in sentence and "racing.cu:4" in sentence for sentence in found)
    variant.unfit = lambda *args: "never fits"
    assert races.check_accesses(kernel, variant) == []


def command(*args):
    from typer.testing import CliRunner

    return CliRunner().invoke(app, ["kernels", *args], env={"COLUMNS": "80"})


def test_the_command_lists_the_variants_in_few_lines():
    shown = [line.rstrip() for line in command().output.splitlines()]
    assert len(shown) < 80
    assert max(map(len, shown)) <= 80
    assert "conv3d fprop, dgrad, wgrad" in shown
    for kernel in kernels():
        (at,) = (
            i for i, line in enumerate(shown) if re.match(rf"{kernel.op} .*{kernel.pass_}", line)
        )
        targets = list(dict.fromkeys(v.target for v in kernel.variants.values()))
        rows = [line.replace(",", " ").split() for line in shown[at + 1 : at + 1 + len(targets)]]
        assert [row[0] for row in rows] == targets
        names = [
            f"{target}/{name.rstrip('?!')}"
            for target, *algorithms in rows
            for name in algorithms
            if target != "reference"
        ]
        assert sorted(names) == sorted(set(kernel.variants) - {"reference"})


def test_the_list_marks_what_failed_and_what_was_not_checked(monkeypatch):
    checks = replace(read()[0], rows=tuple(r for r in read()[0].rows if r[:2] == ("lstm", "fprop")))
    rows = [list(row) for row in checks.rows]
    failed = next(row for row in rows if row[2] == "cuda/naive")
    failed[checks.header.index("agrees")] = certificate.FAILED
    monkeypatch.setattr(
        certificate, "read", lambda: [replace(checks, rows=tuple(map(tuple, rows)))]
    )
    shown = command().output
    assert "persistent, fused_step, naive!\n" in shown  # of lstm fprop
    assert "persistent?, fused_step?, naive?\n" in shown  # of lstm bprop
    assert "! failed a check" in shown
    assert "? not in the certificate yet" in shown


def test_the_command_prints_what_is_written_down():
    everything = command("--all")
    assert everything.exit_code == 0, everything.output
    for table in read():
        assert table.title in everything.output
    assert "cpu/im2col" in everything.output
    one = command("--op", "lstm").output
    for table in read(op="lstm"):
        assert table.rows
        assert table.title in one
    assert "lstm cuda/naive fprop" in one
    assert "conv3d" not in one
    both = command("--op", "conv2d", "--variant", "cuda/tiled").output
    assert "conv2d cuda/tiled" in both
    assert not re.search("conv3d cuda|cuda/naive", both)
    assert "cpu/im2col" not in command("--variant", "reference").output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--variant", "referense"], "no variant is called 'referense'"),
        (["--variant", "referense"], "Did you mean 'reference'?"),
        (["--op", "lst"], "no operation with kernels is called 'lst'"),
        (["--op", "lst"], "Did you mean 'lstm'?"),
        (["--all", "--op", "lstm"], "leave out --op and --variant, or --all"),
    ],
)
def test_what_the_command_does_not_know_is_said(args, says):
    done = command(*args)
    assert done.exit_code == 2
    assert says in done.output
