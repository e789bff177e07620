"""The variants of Numba: in its simulator, and compiled to PTX, both without a GPU.

A process has either Numba's simulator or its compiler. What runs in the simulator is in
`numba_simulator.py`, and is run here by processes of its own.
"""

import os
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tinyvid import kernels
from tinyvid.checking.suite import jobs, problems
from tinyvid.errors import UserError
from tinyvid.kernels import numba_launch
from tinyvid.kernels.registry import why_not_there

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = [
    pytest.param(kernel, variant, id=f"{kernel.name}-{variant.name}")
    for kernel in kernels.kernels()
    for variant in kernel.variants.values()
    if variant.target == "numba" and kernel.op != "conv2d"  # which launches those of conv3d
]


def python(*args: str, simulator: bool) -> subprocess.CompletedProcess:
    """Run Python in a process of its own, with Numba's simulator on or off."""
    # What pytest and its plugins tell their own processes is not for these: a trace of each line
    # would take the simulator's many threads minutes.
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTEST"))}
    environment = {"PYTHONPATH": str(ROOT), "NUMBA_ENABLE_CUDASIM": str(int(simulator))}
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env={**ours, **environment},
        capture_output=True,
        text=True,
    )


# ---- in the simulator ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("tests", ["conv3d", "conv2d or pool3d", "lstm or flow or strict"])
def test_in_the_simulator(tests):
    file = "tests/kernels/numba_simulator.py"
    run = python("-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", tests, simulator=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\d+ passed", run.stdout)
    assert not re.search("skipped|failed|error", run.stdout.splitlines()[-1])


@pytest.mark.parametrize("on", [False, True])
def test_gradcheck_takes_them_where_the_simulator_is_on(on):
    code = (
        "from tinyvid.checking.suite import jobs; "
        "print('numba/naive' in {job.variant for job in jobs('conv3d', device='emulator')})"
    )
    run = python("-c", code, simulator=on)
    assert run.stdout.strip() == str(on), run.stderr


# ---- compiled ------------------------------------------------------------------------------------


@cache
def has_compiler() -> bool:
    """Whether there is numba-cuda, with the libraries of NVIDIA that it compiles with."""
    from numba import cuda

    if find_spec("numba_cuda") is None:
        return False  # what Numba itself has inlines no functions, and asks for a driver
    try:
        cuda.compile_ptx(lambda: None, (), cc=(8, 0))
    except Exception:  # each library that may be missing has its own
        return False
    return True


def compiled(monkeypatch, kernel, variant, dtype) -> list[tuple]:
    """Return what a variant launches on a case: kernel, types of its arguments, shared bytes."""
    import numba

    launched = []

    def note(kernel, blocks, threads, inputs, outputs, *numbers, device, shared=0):
        args = (*inputs, *outputs, *numbers)
        launched.append((kernel, tuple(map(numba.typeof, args)), shared))

    monkeypatch.setattr(numba_launch, "run", note)
    rng = np.random.default_rng(0)
    found = problems(kernel.op)
    # The first, and the last: a flow that begins at a smaller size launches what others do not.
    for problem in (found[0], found[-1]):
        args = problem.arguments(
            kernel.pass_, lambda *shape: rng.standard_normal(shape).astype(dtype)
        )
        if variant.unfit is None or variant.unfit(*args) is None:
            variant.function(*args, device="emulator")
    return list(dict.fromkeys(launched))


def compile_ptx(function, types, arch: int) -> str:
    from numba import cuda

    return cuda.compile_ptx(function.py_func, types, cc=divmod(arch, 10))[0]


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "variant"), VARIANTS)
@pytest.mark.parametrize(("arch", "dtype"), [(80, "float32"), (90, "float64")])
def test_compiles_to_ptx(monkeypatch, kernel, variant, arch, dtype):
    if not has_compiler():
        pytest.skip("needs numba-cuda and NVVM: pip install 'tinyvid[test]'")
    launched = compiled(monkeypatch, kernel, variant, np.dtype(dtype))
    assert launched
    for function, types, shared in launched:
        ptx = compile_ptx(function, types, arch)
        assert f".target sm_{arch}" in ptx
        assert re.search(rf"\.visible \.entry \w*{function.__name__}", ptx)
        assert re.search(rf"\.[fb]{dtype[-2:]}\b", ptx)
        if dtype == "float32":  # a number of the wrong type would bring the other precision in
            assert not re.search(r"\.f64\b", ptx)
        assert bool(re.search(r"\bbar\.sync\b", ptx)) == bool(shared)
        assert not re.search(r"\bcall\b", ptx), "a function is not inlined"


def test_every_kernel_of_a_module_is_launched(monkeypatch):
    from tinyvid.kernels.flow import numba_naive, numba_tiled

    launched = set()
    for kernel in kernels.kernels():
        for variant in kernel.variants.values():
            if kernel.pass_ == "flow" and variant.target == "numba":
                launched |= {f for f, *_ in compiled(monkeypatch, kernel, variant, np.float32)}
    modules = vars(numba_naive) | vars(numba_tiled)
    assert launched == {f for name, f in modules.items() if name.startswith("flow_")}


# ---- chosen --------------------------------------------------------------------------------------


def test_they_run_when_asked_for_only():
    kernel = kernels.conv3d_fprop
    problem = problems("conv3d", quick=True)[0]
    args = problem.arguments("fprop", lambda *shape: np.ones(shape, np.float32))
    assert kernel.select(*args, device="emulator").target == "cuda"
    with (
        kernels.use(conv3d_fprop="numba/naive"),
        pytest.raises(UserError, match="in Numba's simulator only: set NUMBA_ENABLE_CUDASIM=1"),
    ):
        kernel.select(*args, device="emulator")
    with (
        kernels.use(conv3d_fprop="numba/naive"),
        pytest.raises(UserError, match="does not run on device 'cpu'"),
    ):
        kernel.select(*args, device="cpu")


def test_what_is_missing_is_told(monkeypatch):
    with pytest.raises(UserError, match="variant 'numba' runs there in Numba's simulator only"):
        jobs(variant="numba", device="emulator")
    with pytest.raises(UserError, match="set NUMBA_ENABLE_CUDASIM=1"):
        numba_launch.run(test_what_is_missing_is_told, 1, 1, [], [], device="emulator")
    assert why_not_there("numba", "cuda") is None
    monkeypatch.setattr("numba.config.ENABLE_CUDASIM", 1)
    assert why_not_there("numba", "emulator") is None
    assert "unset NUMBA_ENABLE_CUDASIM" in why_not_there("numba", "cuda")


def test_importing_tinyvid_does_not_import_numba():
    code = "import sys, tinyvid; print([m for m in sys.modules if m.startswith('numba')])"
    run = python("-c", code, simulator=False)
    assert run.stdout.strip() == "[]", run.stderr


# ---- the launch on a GPU -------------------------------------------------------------------------


def test_launches_in_the_stream_of_cupy(monkeypatch):
    """On a stand-in for both packages; `test_on_gpu.py` has the rest."""
    import types

    told = []

    class Kernel:
        def __getitem__(self, configuration):
            return lambda *args: told.append((configuration, args))

    stream = types.SimpleNamespace(ptr=77)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(get_current_stream=lambda: stream))
    cuda = types.SimpleNamespace(
        external_stream=lambda ptr: ("stream", ptr),
        as_cuda_array=lambda array, sync: ("array", array, sync),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(numba_launch, "cuda", cuda)
    numba_launch.run(Kernel(), 3, 256, ["x"], ["y"], (1, 2), 5, device="cuda", shared=64)
    arrays = ("array", "x", False), ("array", "y", False)
    assert told == [((3, 256, ("stream", 77), 64), (*arrays, (1, 2), 5))]
