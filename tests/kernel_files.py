"""Calls of `tinyvid kernels check`, and files for it to check."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tinyvid.cli import app
from tinyvid.kernels import files

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)
CONV3D = Path(files.__file__).parent / "conv3d"

TRANSPOSE = """\
// check: transpose grid=2,2 block=32,8 x=[64,64] y=[64,64]
extern "C" __global__ void transpose(const float* x, float* y) {
  __shared__ float tile[32][32 + PAD];
  const int row = blockIdx.y * 32, column = blockIdx.x * 32;
  for (int j = threadIdx.y; j < 32; j += 8)
    tile[j][threadIdx.x] = x[(row + j) * 64 + column + threadIdx.x];
#ifndef FORGET
  __syncthreads();  // the tile is complete
#endif
  for (int j = threadIdx.y; j < 32; j += 8)
    y[(column + j) * 64 + row + threadIdx.x] = tile[threadIdx.x][j];
}
"""
SPLIT = """\
// check: parts grid=3 block=64 x=[200] part=[3] n=200
extern "C" __global__ void parts(const float* x, float* part, int n) {
  float sum = 0.0f;
  for (int i = blockIdx.x; i < n; i += gridDim.x) sum += x[i];
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}
/* The second launch adds up what the first has left.
 * check: total part=@part sum=[1] scale=0.5f
 */
extern "C" __global__ void total(const float* part, float* sum, float scale) {
  *sum = scale * (part[0] + part[1] + part[2]);
}
// check: "fill<int, 3>" block=40 x=[100]
template <class T, int VALUE> __global__ void fill(T* x) { x[threadIdx.x] = VALUE; }
"""


def run(*args: object, columns: int = 100):
    return CliRunner().invoke(
        app, ["kernels", "check", *map(str, args)], env={"COLUMNS": str(columns)}
    )


def kernels_in(folder: Path) -> Path:
    """Write the files transpose.cu, split.cu and bare.cu; returns the folder."""
    (folder / "transpose.cu").write_text(TRANSPOSE)
    (folder / "split.cu").write_text(SPLIT)
    (folder / "bare.cu").write_text(
        'extern "C" __global__ void bare(float* x, int n) {\n'
        "  if (threadIdx.x <= n) x[threadIdx.x] = n;\n}\n"
    )
    return folder


def text_at(file: Path, pattern: str) -> int:
    """Return the line of a file at which a pattern is found first."""
    text = file.read_text()
    found = re.search(pattern, text)
    assert found, pattern
    return text.count("\n", 0, found.start()) + 1
