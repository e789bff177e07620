"""The loader of CUDA C++, and the headers that kernels share."""

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close

from tinyvid.errors import UserError
from tinyvid.kernels import launch

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)

ADD = """
__constant__ int sizes[2];
extern "C" __global__ void add(const REAL* x, REAL* y) {
  if (threadIdx.x < sizes[0]) y[threadIdx.x] = x[threadIdx.x] + AMOUNT + sizes[1];
}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "add.cu"
    path.write_text(ADD)
    return path


@needs_compiler
def test_a_module_for_each_set_of_constants(file):
    constants = {"REAL": "float", "AMOUNT": 3}
    module = launch.load(file, constants, device="emulator")
    assert launch.load(str(file), dict(reversed(constants.items())), device="emulator") is module
    other = launch.load(file, {"REAL": "double", "AMOUNT": 5}, device="emulator")
    for made, dtype, amount in ((module, np.float32, 3), (other, np.float64, 5)):
        launch.write_global(made, "sizes", np.array([4, 10], np.int32))
        x, y = np.arange(6, dtype=dtype), launch.empty((6,), dtype, "emulator")
        made.get_function("add")((1,), (6,), (x, y))
        assert_close(y[:4], x[:4] + amount + 10)
        assert np.isnan(y[4:]).all()


@needs_compiler
def test_a_changed_file_is_loaded_anew(file):
    constants = {"REAL": "float", "AMOUNT": 3}
    first = launch.load(file, constants, device="emulator")
    file.write_text(ADD.replace("add(", "sum("))
    second = launch.load(file, constants, device="emulator")
    assert second is not first
    second.get_function("sum")


def test_other_devices_are_refused(file):
    with pytest.raises(UserError, match="device 'cpu' does not run CUDA"):
        launch.load(file, device="cpu")
    with pytest.raises(UserError, match=r"no\.cu: no such file"):
        launch.load(file.with_name("no.cu"), device="cuda")


def test_cuda_without_cupy_is_one_sentence(file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(UserError, match=r"needs CuPy.*pip install 'tinyvid\[cuda13\]'.*emulator"):
        launch.load(file, device="cuda")
    with pytest.raises(UserError, match="needs CuPy"):
        launch.empty((3,), np.float32, "cuda")


def test_new_arrays_are_filled_with_what_shows():
    assert np.isnan(launch.empty((2, 3), np.float64, "emulator")).all()
    assert (launch.empty((2, 3), np.int32, "emulator") == -1).all()
    assert launch.empty((0, 3), np.float32, "emulator").shape == (0, 3)
    assert launch.empty((), np.float32, "emulator").shape == ()


# ---- common.cuh and ptx.cuh ----------------------------------------------------------------------


def names(path, pattern):
    return set(re.findall(pattern, path.read_text()))


def test_the_emulator_has_every_function_of_the_headers():
    """What a kernel may call on a GPU, it may call on the emulator."""
    emulator = launch.KERNELS / "emulator"
    own = {"EMULATOR_OWN", "EMULATOR_MMA", "EMULATOR_LDMATRIX"}
    for header in ("common.cuh", "ptx.cuh"):
        wanted = names(launch.KERNELS / header, r"__forceinline__ \w+ (\w+)\(")
        assert wanted
        there = set()
        for file in ("device.h", "memory.h", "tensor_core.h"):
            there |= names(emulator / file, r"(?:EMULATOR_OWN inline \w+ |EMULATOR_\w+\()(\w+)")
        assert wanted - (there - own) == set()


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_the_headers_compile_for_gpus(architecture, tmp_path):
    """With the functions that the emulator's tests use, whose file includes both headers."""
    if importlib.util.find_spec("cuda") is None or not importlib.util.find_spec("cuda.bindings"):
        pytest.skip("needs the NVRTC wheels: pip install 'tinyvid[inspect]'")
    from cuda.bindings import nvrtc

    features = Path(__file__).parent / "emulator" / "features.cu"
    _, program = nvrtc.nvrtcCreateProgram(features.read_bytes(), str(features).encode(), 0, [], [])
    options = [f"-arch={architecture}", "-std=c++17", f"-I{features.parent}"]
    expressions = [b"scale<float, 4>", b"product_16<true>", b"product_16<false>"]
    for expression in expressions:
        nvrtc.nvrtcAddNameExpression(program, expression)
    (status,) = nvrtc.nvrtcCompileProgram(
        program, len(options), [option.encode() for option in options]
    )
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    assert size > 10_000
