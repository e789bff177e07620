"""Vectors in registers: how wide they are, and that their width changes no sum."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyvid.kernels import lanes

ROOT = Path(__file__).resolve().parents[2]
SUMS = """
import sys
import numpy as np
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import lanes
from tinyvid.kernels.conv3d import cpu_winograd, direct
from tinyvid.kernels.lstm import cpu
numbers = np.random.default_rng(0)
def array(*shape):
    return numbers.standard_normal(shape).astype(np.float32)
found = [np.array([lanes.BYTES])]
for C, K in ((3, 12), (5, 40)):
    x, w = array(2, C, 3, 9, 11), array(K, C, 3, 3, 3)
    geometry = conv_geometry(x.shape, w.shape, padding=1)
    gy = array(*geometry.y)
    for module in (direct, cpu_winograd):
        found += [module.fprop(x, w, geometry), module.dgrad(gy, w, geometry)]
        found += [module.wgrad(gy, x, geometry)]
x, w_ih, w_hh, b, h, c = array(9, 4, 3), array(84, 3), array(84, 21), array(84), *array(2, 9, 21)
found += cpu.fprop(x, w_ih, w_hh, b, h, c, None, False)
np.savez(sys.argv[1], *found)
"""


def test_the_widest_registers_that_a_processor_has():
    assert lanes._widest("+avx,+avx2,-avx512f,+fma") == 32
    assert lanes._widest("+avx2,+avx512f,+avx512vl") == 64
    assert lanes._widest("") == 32
    assert lanes.BYTES in (32, 64)


@pytest.mark.slow
def test_results_do_not_depend_on_the_width(tmp_path):
    """A process for each width: the functions are compiled for one."""
    found = []
    for bytes_ in (32, 64):
        told = f"from tinyvid.kernels import lanes; lanes.BYTES = {bytes_}\n"
        path = tmp_path / f"{bytes_}.npz"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NUMBA_CACHE_DIR": str(tmp_path / path.stem),
        }
        command = [sys.executable, "-c", told + SUMS, str(path)]
        subprocess.run(command, check=True, env=environment)
        with np.load(path) as file:
            found.append([file[name] for name in file.files])
    assert [int(arrays[0][0]) for arrays in found] == [32, 64]
    for narrow, wide in zip(found[0][1:], found[1][1:], strict=True):
        assert narrow.tobytes() == wide.tobytes()
