"""What every test may use: the comparison helpers, and the folder of real data where it is."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and ground truth; tests that need it are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the development data in {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def cupy(monkeypatch):
    """`import cupy` gives the stand-in, and device `cuda` is there."""
    import cupy_stand_in  # which needs tinyvid.kernels: only where a test asks for it

    yield cupy_stand_in.install(monkeypatch)
    cupy_stand_in.pool.set_limit()
    monkeypatch.undo()
    cupy_stand_in.forget()
