"""Builds, their cache, arguments and options."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close
from emulated import HERE, SCHEDULES, module, needs_compiler

from tinyvid.errors import UserError
from tinyvid.kernels.emulator import Module, build, options
from tinyvid.kernels.emulator.found import AccessError

pytestmark = needs_compiler

SIMPLE = """// The first version.
#include "factor.cuh"
struct Pair { int a; float b; };
__device__ int seen;
extern "C" __global__ void __launch_bounds__(64)
all(const float* x, float* y, double d, int i, unsigned char u, Pair pair, void* any) {
  y[threadIdx.x] = x[threadIdx.x] * FACTOR + d + i + u + pair.a + pair.b;
}
__global__ void plain(float* x) {}
template <class T> __global__ void fill(T* x) { x[threadIdx.x] = 3; }
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, but for the runtime, which takes seconds to compile."""
    (first, *_) = build.runtime(checked=False)
    folder = tmp_path / "cache" / "kernels" / "emulator"
    shutil.copytree(first.parent, folder / first.parent.name)
    monkeypatch.setenv("TINYVID_CACHE", str(tmp_path / "cache"))
    return folder


def write_simple(folder):
    (folder / "factor.cuh").write_text("#ifndef FACTOR\n#define FACTOR 2\n#endif\n")
    (folder / "simple.cu").write_text(SIMPLE)
    return folder / "simple.cu"


@pytest.fixture(scope="module")
def simple(tmp_path_factory):
    """The file of SIMPLE, for all tests: its path is part of a build."""
    return write_simple(tmp_path_factory.mktemp("simple"))


@pytest.fixture
def own(tmp_path):
    """A copy to change."""
    return write_simple(tmp_path)


def arguments():
    pair = np.array((1, 0.5), np.dtype([("a", "i4"), ("b", "f4")]))[()]
    x, y = np.arange(64, dtype=np.float32), np.full(64, np.nan, np.float32)
    return [x, y, 0.25, 7, np.uint8(200), pair, None]


# ---- arguments ---------------------------------------------------------------------------------


def test_arguments_of_every_kind(simple):
    args = arguments()
    Module(simple, {"FACTOR": 4}).get_function("all")((1,), (64,), args)
    assert_close(args[1], args[0] * 4 + np.float32(0.25 + 7 + 200 + 1 + 0.5))


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, np.zeros(64), r"all: x points to float of 4 bytes, and the array is float64"),
        (0, np.zeros(64, np.int32), r"x points to float of 4 bytes, and the array is int32"),
        (0, 3.0, r"x is a pointer: give a NumPy array or None, not float"),
        (0, np.zeros((8, 8), np.float32)[:, ::2], r"shape \(8, 4\) .* is not contiguous in any"),
        (1, np.broadcast_to(np.float32(0), ()), r"y is not a pointer to const, and .* read-only"),
        (2, np.float32(1), r"d is a floating-point number of 8 bytes: give numpy.float64, not"),
        (3, 2.0, r"i is an integer of 4 bytes: give an int or numpy.int32, not float"),
        (3, 2**31, r"i=2147483648 does not fit an integer from -2147483648 to 2147483647"),
        (3, np.int16(1), r"i is an integer of 4 bytes: .* not int16"),
        (4, -1, r"u=-1 does not fit an integer from 0 to 255"),
        (5, b"abc", r"pair is a struct: give it as 8 bytes"),
    ],
)
def test_a_wrong_argument_is_named(simple, position, wrong, message):
    args = arguments()
    args[position] = wrong
    with pytest.raises(UserError, match=message):
        Module(simple).get_function("all")((1,), (64,), args)


def test_too_few_arguments_and_wrong_sizes(simple):
    function = Module(simple).get_function("all")
    args = arguments()
    with pytest.raises(UserError, match=r"all takes 7 arguments \(x, y, d, .*\), and got 2"):
        function((1,), (64,), args[:2])
    with pytest.raises(UserError, match=r"has 65 threads; its __launch_bounds__ allow 64"):
        function((1,), (65,), args)
    for grid in [(0,), (1, 65536), (1, 1, 1, 1)]:
        with pytest.raises(UserError, match=r"grid=\(.*give 1 to 3 sizes"):
            function(grid, (64,), args)
    with pytest.raises(UserError, match=r"block=\(1, 1, 65\).* z must be from 1 to 64"):
        function((1,), (1, 1, 65), args)


def test_arrays_may_lie_in_any_order(simple):
    args = arguments()
    args[0] = np.asfortranarray(np.arange(64, dtype=np.float32).reshape(4, 16))
    Module(simple).get_function("all")((1,), (64,), args)
    assert_close(args[1], args[0].T.ravel() * 2 + np.float32(0.25 + 7 + 200 + 1 + 0.5))


def test_names(simple):
    made = Module(simple, name_expressions=["fill<int>", "plain"])
    x = np.zeros(4, np.int32)
    made.get_function("fill<int>")((1,), (4,), (x,))
    assert x.tolist() == [3] * 4
    made.get_function("plain")
    with pytest.raises(UserError, match=r"no kernel 'al'. It has all, .* Did you mean 'all'\?"):
        made.get_function("al")
    with pytest.raises(UserError, match=r"'fill<float>'. It is a template: name it in name_expr"):
        made.get_function("fill<float>")
    with pytest.raises(UserError, match=r"no __device__ or __constant__ variable 'sen'. It has"):
        made.get_global("sen")
    with pytest.raises(UserError, match="seen has 4 bytes, not 8"):
        made.get_global("seen").copy_from_host(x.ctypes.data, 8)
    with pytest.raises(UserError, match=r'plain.*It is not extern "C": make it so, or'):
        Module(simple).get_function("plain")


# ---- builds ------------------------------------------------------------------------------------


def test_a_build_is_made_again_only_when_what_it_depends_on_changes(own, cache):
    first = build.build(own).library
    assert first.parent == cache
    changed = first.stat().st_mtime_ns
    own.write_text(SIMPLE.replace("The first", "Another"))
    assert build.build(own).library == first
    assert first.stat().st_mtime_ns == changed
    assert build.build(own, {"FACTOR": 5}).library != first
    (own.parent / "factor.cuh").write_text("#define FACTOR 3\n")
    assert build.build(own).library != first
    assert len(list(cache.glob("simple-*.so"))) == 3
    assert len(list(cache.glob("runtime-*"))) == 1
    assert not list(cache.glob("tmp*"))


def test_two_processes_may_build_the_same(simple, cache):
    code = (
        "import sys; from tinyvid.kernels.emulator import Module; import numpy as np; "
        "x = np.zeros(4, np.int32); m = Module(sys.argv[1], name_expressions=['fill<int>']); "
        "m.get_function('fill<int>')((1,), (4,), (x,)); print(x.sum())"
    )
    root = Path(__file__).resolve().parents[3]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, simple], stdout=subprocess.PIPE, text=True, cwd=root
        )
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in both] == ["12", "12"]
    assert len(list(cache.glob("simple-*.so"))) == 1


def test_a_kernel_that_does_not_compile_is_told_with_its_own_line(own):
    own.write_text(SIMPLE + "\n__global__ void wrong(float* x) {\n  x[0] = nothing;\n}\n")
    with pytest.raises(UserError) as caught:
        Module(own)
    line = SIMPLE.count("\n") + 3
    assert f"{own}:{line}:" in str(caught.value)
    assert "nothing" in str(caught.value)
    own.write_text('#include "missing.cuh"\n')
    with pytest.raises(UserError, match=r"simple\.cu:1:.*missing\.cuh"):
        Module(own)
    with pytest.raises(UserError, match=r"no\.cu: no such file"):
        Module(own.parent / "no.cu")


def test_no_compiler_is_one_sentence(simple, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    build.compiler.cache_clear()
    try:
        with pytest.raises(UserError, match=r"needs a C\+\+17 compiler .* apt install g\+\+"):
            Module(simple)
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.raises(UserError, match=r"\$CXX names 'no-such-compiler', which is not there"):
            Module(simple)
    finally:
        build.compiler.cache_clear()


def test_a_cache_that_cannot_be_written_is_named(simple, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYVID_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot keep compiled kernels there.*TINYVID_CACHE"):
        Module(simple)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_portable_switch_of_fibres(simple, monkeypatch, schedule):
    monkeypatch.setenv("TINYVID_EMULATOR_FLAGS", "-DEMULATOR_UCONTEXT -O0")  # quicker to compile
    made = Module(HERE / "schedules.cu")
    x = np.random.default_rng(0).standard_normal((3, 70), np.float32)
    y = np.full_like(x, np.nan)
    with options(schedule=schedule):
        made.get_function("meets_in_both_ways")((3,), (70,), (x, y))
    lanes = np.arange(70)
    assert_close(y, x[:, np.where(lanes < 64, lanes ^ 21, lanes ^ 1)][:, ::-1])


# ---- options -----------------------------------------------------------------------------------


def test_options_are_checked_and_end_with_their_block():
    with pytest.raises(UserError, match=r"schedule='backward': it is one of .*reversed"):
        options(schedule="backward").__enter__()
    with options(schedule="reversed") as outer:
        assert outer.schedule == "reversed"
        with options(copies="early") as inner:
            assert (inner.schedule, inner.copies) == ("reversed", "early")


def test_schedules_do_differ():
    """A race between warps: who reads first sees NaN, who reads last sees the other's number."""
    made = module("schedules.cu")
    seen = {}
    for schedule in SCHEDULES:
        out = np.zeros((4, 2), np.float32)
        with options(schedule=schedule, seed=5):
            made.get_function("who_is_first")((4,), (64,), (out,))
        seen[schedule] = out
    assert np.isnan(seen["forward"][:, 0]).all()
    assert (seen["forward"][:, 1] == 0).all()
    assert np.isnan(seen["reversed"][:, 1]).all()
    assert (seen["reversed"][:, 0] == 1).all()
    order = np.zeros(5, np.int32)
    with options(schedule="reversed"):
        made.get_function("blocks_in_order")((4,), (1,), (order,))
    assert order.tolist() == [3, 2, 1, 0, 4]


def test_launches_from_several_python_threads_do_not_mix(simple):
    function = module("features.cu").get_function("busy")
    results = [np.zeros((50, 64), np.int32) for _ in range(4)]
    threads = [
        threading.Thread(target=function, args=((50,), (64,), (out, i)))
        for i, out in enumerate(results)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, out in enumerate(results):
        assert (out == np.arange(50)[:, None] + i).all()


# ---- checked launches --------------------------------------------------------------------------


def test_a_checked_launch_does_the_same_and_tells_what_it_finds():
    made, launches = module("schedules.cu"), []
    x = np.arange(64, dtype=np.float32)
    with options(checked=True):
        y = np.full(64, np.nan, np.float32)
        made.get_function("halves")((2,), (32,), (x, y, 64))
        assert_close(y, x / 2)
        view = np.full(70, np.nan, np.float32)
        with pytest.raises(AccessError, match="out of bounds"):
            made.get_function("halves")((2,), (32,), (x, view[:63], 64))
        assert_close(view[:63], x[:63] / 2)
        assert np.isnan(view[63:]).all()  # the overrun did no harm
        with pytest.raises(AccessError, match="never_written"), options(copies="early"):
            made.get_function("halves")((1,), (32,), (np.full_like(x, FRESH), y, 32))
        with options(watch=launches.append, count_lines=True):
            made.get_function("halves")((2,), (32,), (x, y[:63], 64))
    (launched,) = launches
    assert launched.module is made
    assert (launched.kernel, launched.grid, launched.fault) == ("halves", (2, 1, 1), None)
    assert [finding.kind for finding in launched.findings] == ["out of bounds"]
    assert launched.counts


FRESH = np.array(0xFFFFFFFF, np.uint32).view(np.float32)[()]


def test_arrays_that_share_memory_share_it_in_a_checked_launch():
    buffer = np.arange(96, dtype=np.float32)
    with options(checked=True):
        module("schedules.cu").get_function("halves")((2,), (32,), (buffer[32:], buffer[:64], 32))
    assert_close(buffer[:32], np.arange(32, 64, dtype=np.float32) / 2)
    assert_close(buffer[32:], np.arange(32, 96, dtype=np.float32))
