"""What the wheel and the sdist contain, and that each way to install can be imported."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def run(*command, cwd, **env):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV_", "PYTHONPATH"))}
    done = subprocess.run(
        command, cwd=cwd, env=environment | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the files that belong to the project, so that building leaves nothing here."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("the tests run without the project around them")
    import shutil

    folder = tmp_path_factory.mktemp("source") / "project"
    ignore = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", "runs", ".*_cache"
    )
    shutil.copytree(ROOT, folder, ignore=ignore)
    return folder


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    pytest.importorskip("setuptools")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "-o", str(out), cwd=source)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_has_one_top_level_name_and_every_source_file(built, source):
    names = zipfile.ZipFile(built[0]).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tinyvid"}
    kinds = ("*.py", "*.cu", "*.cuh", "*.cpp", "*.h")
    expected = {
        str(Path("tinyvid", path.relative_to(source)))
        if path.is_relative_to(source / "kernels")
        else str(path.relative_to(source))
        for folder in ("tinyvid", "kernels")
        for kind in kinds
        for path in (source / folder).rglob(kind)
    }
    assert expected - set(names) == set()
    assert {"tinyvid/py.typed", "tinyvid/recipes/small_sets.toml"} <= set(names)
    assert "tinyvid/kernels/registry.py" in names


def test_a_new_cuda_file_would_be_packed(source, tmp_path):
    planted = source / "kernels" / "conv3d" / "planted.cu"
    planted.write_text("// nothing\n")
    try:
        run(sys.executable, "-m", "build", "--no-isolation", "-w", "-o", str(tmp_path), cwd=source)
        (wheel,) = tmp_path.glob("*.whl")
        assert "tinyvid/kernels/conv3d/planted.cu" in zipfile.ZipFile(wheel).namelist()
    finally:
        planted.unlink()


def test_the_sdist_can_be_built_and_tested_from(built):
    with tarfile.open(built[1]) as sdist:
        names = sdist.getnames()
    inside = {name.partition("/")[2] for name in names}
    assert {"pyproject.toml", "README.md", "LICENSE", "kernels/registry.py"} <= inside
    assert {"tests/conftest.py", "CONTRIBUTING.md", "CHANGELOG.md"} <= inside


IMPORT = (
    "import tinyvid, tinyvid.kernels.conv3d.reference as r; "
    "print(tinyvid.__file__, r.__file__, sep='\\n')"
)


def test_a_bare_checkout_imports(source):
    lines = run(sys.executable, "-c", IMPORT, cwd=source).splitlines()
    assert all(Path(line).is_relative_to(source) for line in lines)


def test_the_wheel_imports_wherever_one_stands(built, source, tmp_path):
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site))
    run(*pip, str(built[0]), cwd=tmp_path)
    assert {p.name for p in site.iterdir() if p.suffix != ".dist-info"} <= {"tinyvid", "bin"}
    lines = run(sys.executable, "-c", IMPORT, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()
    assert all(Path(line).is_relative_to(site) for line in lines)
    # From the checkout itself, Python takes the checkout, whole.
    lines = run(sys.executable, "-c", IMPORT, cwd=source, PYTHONPATH=str(site)).splitlines()
    assert all(Path(line).is_relative_to(source) for line in lines)


def everything_else(folder):
    """Make a folder of what this environment has installed, but for a tinyvid of its own."""
    folder.mkdir()
    for path in Path(np.__file__).parents[1].iterdir():
        if "tinyvid" not in path.name:
            (folder / path.name).symlink_to(path)
    return folder


def test_an_editable_install_imports(source, tmp_path):
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation")
    run(*pip, "--target", str(site), "-e", str(source), cwd=tmp_path)
    others = everything_else(tmp_path / "others")
    start = f"import sys, site; sys.path.append({str(others)!r}); site.addsitedir({str(site)!r}); "
    lines = run(sys.executable, "-S", "-c", start + IMPORT, cwd=tmp_path).splitlines()
    assert all(Path(line).is_relative_to(source) for line in lines)


COMPILE = (
    "import numpy as np, tinyvid; x = tinyvid.randn(1, 1, 2, 2, 2, requires_grad=True); "
    "tinyvid.max_pool3d(x, 2).sum().backward(); print(tinyvid.__file__)"
)


def test_another_install_over_a_used_one_works(built, source, tmp_path):
    venv, cache = tmp_path / "venv", tmp_path / "cache"
    run(sys.executable, "-m", "venv", "--without-pip", str(venv), cwd=tmp_path)
    python = str(venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", where, cwd=tmp_path).strip())
    others = everything_else(tmp_path / "others")
    (site / "others.pth").write_text(f"{others}\n")
    env = {"TINYVID_CACHE": str(cache), "NUMBA_CACHE_DIR": ""}

    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps")
    run(*pip, str(built[0]), cwd=tmp_path)
    assert Path(run(python, "-c", COMPILE, cwd=tmp_path, **env).strip()).is_relative_to(site)
    assert list(cache.rglob("*.nbc"))
    run(*pip, "--no-build-isolation", "-e", str(source), cwd=tmp_path)
    assert not (site / "tinyvid").exists()
    assert Path(run(python, "-c", COMPILE, cwd=tmp_path, **env).strip()).is_relative_to(source)


def test_importing_tinyvid_loads_nothing_heavy():
    code = (
        "import sys, tinyvid; heavy = 'numba', 'av', 'matplotlib', 'cupy', 'rich', 'typer'; "
        "print([m for m in heavy if m in sys.modules])"
    )
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "[]"
