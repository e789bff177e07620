"""The rewriting of kernel text, without a compiler."""

import pytest

from tinyvid.errors import UserError
from tinyvid.kernels.emulator.source import translate


def test_kernels_and_their_parameters():
    source = translate(
        """
        struct Pair { int a, b; };
        extern "C" __global__ void __launch_bounds__(2 * (64), 2)
        first(const float* __restrict__ x, float (&y)[4], Pair p, int n = 3) { }
        __global__ void __launch_bounds__(32) second(void) { }
        template <class T, int N = (1 < 2)> __global__ void third(T* x) { }
        extern "C" { __global__ void fourth(unsigned long long n) { } }
        extern "C" __launch_bounds__(128) __global__ void fifth(float* x) { }
        extern "C" __global__ void declared(float* x);
        """
    )
    got = {
        k.name: (k.parameters, k.template, k.exported, k.most_threads)
        for k in source.kernels.values()
    }
    assert got == {
        "first": (["x", "y", "p", "n"], False, True, "2 * (64)"),
        "second": ([], False, False, "32"),
        "third": (["x"], True, False, "0"),
        "fourth": (["n"], False, True, "0"),
        "fifth": (["x"], False, True, "128"),
    }


def test_variables():
    source = translate(
        """
        __constant__ Geometry geometry;
        __device__ unsigned counter = 0;
        static __device__ __align__(16) float table[4] = {1, 2};
        __constant__ int grid[2][3];
        __device__ float twice(float x) { return 2 * x; }
        struct Row { float* p; __device__ float& operator[](int i) { return p[i]; } };
        template <class T> __device__ __forceinline__ T zero() { return T(); }
        """
    )
    assert source.variables == {
        "geometry": True,
        "counter": False,
        "table": False,
        "grid": True,
    }


def test_shared_arrays_keep_their_lines():
    text = """__global__ void k() {
  __shared__ __align__(16) float a[2][N + (1)], b;
  volatile __shared__ int
      c[3];
  extern __shared__ alignas(32) unsigned char d[];
  last();
}"""
    lines = translate(text).text.split("\n")
    assert len(lines) == len(text.split("\n"))
    assert "__align__(16) float a__type[2][N + (1)], b__type;" in " ".join(lines[1].split())
    assert "volatile" in lines[2]
    assert 'dynamic_shared("d", (32)' in lines[4]
    assert lines[5] == "  last();"
    assert "__shared__" not in "".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('__device__ int f() {\n asm("ret;"); }', r"k\.cu:8: inline PTX cannot be emulated"),
        ("\nextern __shared__ float s[];", r"k\.cu:8: declare extern __shared__ s\[\] inside"),
        ("__shared__ float s[3];", r"k\.cu:7: declare __shared__ variables inside"),
        ("void k() { __shared__ int s = 3; }", r"k\.cu:7: not a declaration"),
    ],
)
def test_what_cannot_be_rewritten_is_named_with_its_line(text, message):
    with pytest.raises(UserError, match=message):
        translate(f'# 7 "folder/k.cu"\n{text}\n')
