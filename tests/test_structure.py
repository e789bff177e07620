"""The folders keep their promise: each kernel has what a reader and a checker need."""

import re
from pathlib import Path

import pytest

from tinyvid.kernels import kernels

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "max_pool3d": "pool3d",
    "avg_pool3d": "pool3d",
    "conv2d_uint8": "conv2d",
    "conv3d_uint8": "conv3d",
    "tvl1": "flow",
    "horn_schunck": "flow",
}


def folder(kernel):
    return FOLDERS.get(kernel.op, kernel.op)


@pytest.mark.parametrize("kernel", kernels(), ids=lambda k: k.name)
def test_every_kernel_has_a_reference_cases_tests_and_a_docstring(kernel):
    name = folder(kernel)
    for part in ("reference.py", "cases.py", "cpu.py"):
        assert (ROOT / "kernels" / name / part).is_file(), f"kernels/{name} lacks {part}"
    assert (ROOT / "tests" / "kernels" / f"test_{name}.py").is_file()
    assert "reference" in kernel.variants
    assert any(v.target == "cpu" for v in kernel.variants.values())
    assert kernel.__doc__
    for variant in kernel.variants.values():
        assert callable(variant.function)
        assert variant.function.__doc__ or variant.function.__module__.endswith("reference")


def test_the_table_of_operations_names_every_variant():
    there = {}
    for kernel in kernels():
        for variant in kernel.variants:
            there.setdefault(kernel.op, {}).setdefault(variant, set()).add(kernel.pass_)
    told = {}
    text = (ROOT / "kernels" / "README.md").read_text().partition("## What there is")[2]
    for row in re.findall(r"^\| `.*$", text.partition("\n## ")[0], re.MULTILINE):
        op, passes, variants = (cell.strip() for cell in row.split("|")[1:4])
        told[op.strip("`")] = {
            name: set((only or passes).split(", "))
            for name, only in re.findall(r"`([^`]+)`(?: \(([^)]*)\))?", variants)
        }
    assert told == there


def test_every_folder_of_kernels_is_packed():
    import sys

    if sys.version_info < (3, 11):
        pytest.skip("reads TOML with the standard library")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["setuptools"]["packages"])
    for top, prefix in (("tinyvid", "tinyvid"), ("kernels", "tinyvid.kernels")):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            assert ".".join((prefix, *parts)) in packages


def test_no_two_files_of_tests_have_one_name():
    """They would be one module, and pytest takes the first only."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
