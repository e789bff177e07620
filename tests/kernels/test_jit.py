"""Numba's cache: in the user's folder, for our functions only."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest

from tinyvid.kernels import jit

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module with one compiled function, and return it imported."""
    monkeypatch.setenv("TINYVID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "planted_module.py").write_text(
        "from tinyvid.kernels.jit import njit\n\n"
        "@njit('int64(int64)', nogil=True, cache=True)\ndef twice(x):\n    return 2 * x\n"
    )

    def load():
        sys.modules.pop("planted_module", None)
        import planted_module

        return planted_module

    yield load
    sys.modules.pop("planted_module", None)


def kept(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".nbi", ".nbc"))


def test_what_is_compiled_is_kept_in_the_users_cache_and_found_again(module, tmp_path):
    first = module()
    assert first.twice(21) == 42
    assert kept(tmp_path / "code") == []
    assert len(kept(tmp_path / "cache" / "kernels" / "numba")) == 2
    assert sum(first.twice.stats.cache_misses.values()) == 1
    assert sum(module().twice.stats.cache_hits.values()) == 1


def test_a_function_is_compiled_for_the_dtypes_that_are_asked_for(monkeypatch):
    made = []
    njit = jit.njit
    monkeypatch.setattr(jit, "njit", lambda s, **options: made.append(s) or njit(s, nogil=True))

    @jit.for_dtypes(lambda scalar: scalar(scalar))
    def halved(x):
        return x / 2

    assert made == []
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(halved, ["float32"] * 8))
    assert made == [[numba.float32(numba.float32)]]
    assert len(set(map(id, found))) == 1
    assert found[0](np.float32(3)) == 1.5
    assert halved("float64")(3.0) == 1.5
    assert len(made) == 2


def test_what_was_made_of_other_vectors_is_not_found(module, tmp_path, monkeypatch):
    """Numba looks at the file of a function only, not at those of what is compiled into it."""
    module()
    (folder,) = (tmp_path / "cache" / "kernels" / "numba").iterdir()
    monkeypatch.setattr(jit, "_vectors", lambda: "changed")
    again = module()
    assert sum(again.twice.stats.cache_hits.values()) == 0
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "changed"}


def test_a_changed_vector_has_another_folder(tmp_path, monkeypatch):
    found = []
    for text in ("", "# changed"):
        for name in ("lanes.py", "simd.py"):
            source = (ROOT / "kernels" / name).read_text()
            (tmp_path / name).write_text(source + (text if name == "lanes.py" else ""))
        monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
        jit._vectors.cache_clear()
        found.append(jit._vectors())
    jit._vectors.cache_clear()
    assert found[0] != found[1]
    monkeypatch.undo()
    assert jit._vectors() == found[0]


def test_other_packages_keep_their_place(module, tmp_path):
    module()
    assert numba.config.CACHE_DIR == ""
    other = tmp_path / "code" / "other_module.py"
    other.write_text("import numba\n\n@numba.njit(cache=True)\ndef f(x):\n    return x\n")
    import other_module

    other_module.f(1)
    assert {path.parent.parent for path in kept(tmp_path / "code")} == {tmp_path / "code"}
    assert len(kept(tmp_path / "cache")) == 2  # of the planted module


def test_a_folder_chosen_for_numba_is_used(module, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "chosen"))
    module()
    assert len(kept(tmp_path / "chosen")) == 2
    assert kept(tmp_path / "cache") == []
    assert Path(numba.config.CACHE_DIR) == tmp_path / "chosen"


def test_without_a_folder_nothing_is_kept(module, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYVID_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="compiling anew in each process: .*TINYVID_CACHE"):
        assert module().twice(4) == 8
    assert kept(tmp_path) == []
    assert numba.config.CACHE_DIR == ""


def test_an_uncached_function_asks_for_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYVID_CACHE", str(tmp_path / "cache"))
    assert jit.njit(nogil=True)(lambda x: x + 1)(1) == 2
    assert not (tmp_path / "cache").exists()


def test_every_kernel_uses_this_njit():
    ours = "from tinyvid.kernels.jit import njit"
    for path in (ROOT / "kernels").rglob("*.py"):
        text = path.read_text()
        if path.name != "jit.py":
            assert "numba.njit" not in text, path
            assert "@njit" not in text or ours in text, path


RUN_ALL = """
import numpy as np, tinyvid
x = tinyvid.randn(1, 2, 3, 4, 4, requires_grad=True)
w = tinyvid.randn(2, 2, 2, 2, 2)
tinyvid.max_pool3d(tinyvid.conv3d(x, w, padding=1), 2).sum().backward()
weights = [tinyvid.randn(*s) for s in ((8, 3), (8, 2), (8,), (8,))]
tinyvid.lstm(tinyvid.randn(1, 2, 3), weights)
"""


def test_the_kernels_leave_nothing_beside_the_package(tmp_path):
    before = {path: path.stat().st_mtime_ns for path in kept(ROOT / "kernels")}
    environment = {**os.environ, "TINYVID_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", RUN_ALL], env=environment, cwd=tmp_path, check=True)
    assert {path: path.stat().st_mtime_ns for path in kept(ROOT / "kernels")} == before
    names = {path.name.partition("-")[0] for path in kept(tmp_path)}
    assert {"bands._fprop", "rows.max_fprop", "rows.max_dgrad", "recurrence.forward"} <= names
