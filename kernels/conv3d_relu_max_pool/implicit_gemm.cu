// Convolution, bias, ReLU and max pooling in one kernel: what is pooled never leaves the registers.
//
// What changed since the implicit GEMM of conv3d, and why it helps:
// - The rows of a tile are ordered by pooling window: all cells of one are a thread's, which takes
//   their maximum before it writes. The convolution's output, the largest array of a network, is
//   neither written nor read again: of windows of four cells, a quarter of it and the offsets are.
// - Terms are counted through taps and channels alike, so that a stage of 16 holds five taps of
//   three channels: the layer that is worth most, the first, has no more.
// - A sum has one block and no slices, and its total stays in registers from slab to slab, with
//   what rounding takes from it (sum.cuh).
//
//               rows                                 columns    sum over
//    fprop      windows n z p q, cells in a window   k          t r s c     x gathered, w
#include "../conv3d/blocks.cuh"
#include "../conv3d/geometry.cuh"
#include "../conv3d/product.cuh"
#include "../conv3d/sum.cuh"
#include "../conv3d/windows.cuh"

// The pooling window: WINDOW_T x WINDOW_R x WINDOW_S cells of the convolution's output; C3D's first,
// unless a build says otherwise.
#ifndef WINDOW_T
#define WINDOW_T 1
#define WINDOW_R 2
#define WINDOW_S 2
#endif
constexpr int CELLS = WINDOW_T * WINDOW_R * WINDOW_S;
constexpr int WINDOWS_EACH = ROWS_EACH / CELLS;  // windows of a thread; some rows may be left
static_assert(WINDOWS_EACH >= 1, "a thread has all cells of a window");

using A = Along<ROWS, ROW_PARTS>;
using B = Along<COLUMNS, COLUMN_PARTS>;

// ---- rows ---------------------------------------------------------------------------------------

__device__ __forceinline__ int windows() {
  const auto& g = geometry;
  return g.N * (g.Z / WINDOW_T) * (g.P / WINDOW_R) * (g.Q / WINDOW_S);
}
// The j-th window of a thread of this row part. Neighbouring parts have neighbouring windows.
__device__ __forceinline__ int window_of(int row_tile, int part, int j) {
  return (row_tile * WINDOWS_EACH + j) * ROW_PARTS + part;
}
// The cell of the convolution's output that the i-th row of a tile is, counted in the order
// N Z P Q; past the last for rows without one.
__device__ __forceinline__ int output_cell(int row_tile, int i, const Axes& axes) {
  const int part = i % ROW_PARTS, j = i / ROW_PARTS, cell = j % CELLS;
  const int window = window_of(row_tile, part, j / CELLS);
  if (j >= WINDOWS_EACH * CELLS || window >= windows()) return axes.rows();
  const int along_w = geometry.Q / WINDOW_S, along_h = geometry.P / WINDOW_R;
  const int along_d = geometry.Z / WINDOW_T, line = window / along_w, plane = line / along_h;
  const int q = window % along_w * WINDOW_S + cell % WINDOW_S;
  const int p = line % along_h * WINDOW_R + cell / WINDOW_S % WINDOW_R;
  const int z = plane % along_d * WINDOW_T + cell / WINDOW_S / WINDOW_R;
  return ((plane / along_d * geometry.Z + z) * geometry.P + p) * geometry.Q + q;
}

// ---- terms ---------------------------------------------------------------------------------------

// A term of the sum, in the order of w: a tap, and a channel of the group.
struct Term {
  Tap tap;
  int channel;
};
__device__ __forceinline__ int terms() {
  return geometry.T * geometry.R * geometry.S * group_C();
}
// Terms past the last have a tap so far out that no row meets a cell.
__device__ __forceinline__ Term term_at(int number, const Axes& axes) {
  if (number >= terms()) return {{0, -(1 << 30), 0, 0, 0}, 0};
  const int tap = number / group_C(), line = tap / geometry.S;
  return {tap_at(line / geometry.R, line % geometry.R, tap % geometry.S, axes),
          number % group_C()};
}

struct Tables {
  Place places[ROWS];        // where the windows of the convolution begin, for each row
  Term terms[SLAB * DEPTH];  // those of this slab
};

// ---- loading -------------------------------------------------------------------------------------

__device__ __forceinline__ void copy_element(float* to, const float* from, bool inside) {
  cp_async_4(to, from, inside);
}
__device__ __forceinline__ void copy_element(double* to, const double* from, bool inside) {
  cp_async_8(to, from, inside);
}

// A stage of both operands; `begin` is the number of its first term, `stage` its place in the slab.
__device__ __forceinline__ void load(A& a, B& b, const REAL* x, const REAL* w,
                                     const Tables& tables, const Block& block, const Axes& axes,
                                     int begin, int stage) {
  a.template fill<THREADS>([&](REAL* to, int i, int number) {
    const Place place = tables.places[i];
    const Term* of_chunk = tables.terms + stage * DEPTH + number;
    const auto at = [&](const Term& term) {
      const long long cell = place.cell + term.tap.cell;
      return x + cell * geometry.C + block.group * group_C() + term.channel;
    };
    if (group_C() % CHUNK == 0) {  // a chunk is of one tap
      copy_chunk(to, at(*of_chunk), meets(place, of_chunk->tap, axes) ? CHUNK : 0, true);
      return;
    }
    for (int element = 0; element < CHUNK; element++) {
      // Each eight threads begin at another element, so that a warp's 32 lie in 32 banks.
      const int e = (element + threadIdx.x / 8) % CHUNK;
      const bool inside = meets(place, of_chunk[e].tap, axes);
      copy_element(to + e, inside ? at(of_chunk[e]) : x, inside);
    }
  });
  b.template fill<THREADS>([&](REAL* to, int i, int number) {
    const int k = block.column_tile * COLUMNS + i, first = begin + number;
    const REAL* from = w + (long long)(block.group * group_K() + k) * terms() + first;
    copy_chunk(to, from, k < group_K() ? terms() - first : 0, terms() % CHUNK == 0);
  });
}

// ---- the kernel ----------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
    conv3d_relu_max_pool_fprop(const REAL* x, const REAL* w, const REAL* bias, REAL* y,
                               unsigned char* argmax) {
  __shared__ A a[2];
  __shared__ B b[2];
  __shared__ Tables tables;
  const Axes axes = fprop_axes();
  const Block block = block_at(blockIdx.x, tiles(windows(), WINDOWS_EACH * ROW_PARTS),
                               tiles(group_K(), COLUMNS));
  for (int i = threadIdx.x; i < ROWS; i += THREADS) {
    tables.places[i] = place_of(output_cell(block.row_tile, i, axes), axes);
  }

  REAL totals[ROWS_EACH][COLUMNS_EACH] = {}, sums[ROWS_EACH][COLUMNS_EACH] = {};
  for (int begin = 0; begin < terms(); begin += SLAB * DEPTH) {
    __syncthreads();  // others may still read the last stage of the slab before, and its terms
    for (int i = threadIdx.x; i < SLAB * DEPTH; i += THREADS) {
      tables.terms[i] = term_at(begin + i, axes);
    }
    __syncthreads();  // the tables are written before a load looks into them

    const int stages = min(SLAB, tiles(terms() - begin, DEPTH));
    load(a[0], b[0], x, w, tables, block, axes, begin, 0);
    cp_async_commit();
    for (int stage = 0; stage < stages; stage++) {
      cp_async_wait<0>();
      // Every thread's part of this stage has landed, and nobody reads the one before any more,
      // which the next load overwrites.
      __syncthreads();
      const int now = stage % 2, next = 1 - now;
      if (stage + 1 < stages) {
        load(a[next], b[next], x, w, tables, block, axes, begin + (stage + 1) * DEPTH, stage + 1);
        cp_async_commit();
      }
      multiply<1>(a[now], b[now], sums);
    }
#pragma unroll
    for (int i = 0; i < ROWS_EACH; i++) {
#pragma unroll
      for (int j = 0; j < COLUMNS_EACH; j++) add_slab(totals[i][j], sums[i][j]);
    }
  }

#pragma unroll
  for (int j = 0; j < COLUMNS_EACH; j++) {
    const int column = block.column_tile * COLUMNS + B::row(column_part(), j);
    if (column >= group_K()) continue;
    const int k = block.group * group_K() + column;
    const REAL of_k = bias != nullptr ? bias[k] : REAL(0);
#pragma unroll
    for (int i = 0; i < WINDOWS_EACH; i++) {
      const int window = window_of(block.row_tile, row_part(), i);
      if (window >= windows()) continue;
      REAL best = 0;
      int at = 0;
#pragma unroll
      for (int cell = 0; cell < CELLS; cell++) {
        const REAL value = totals[i * CELLS + cell][j] + of_k;
        const REAL rectified = value < REAL(0) ? REAL(0) : value;  // NaN stays
        // The first of equals wins, and NaN over all: so does max_pool3d.
        if (cell > 0 && !(rectified > best) && rectified == rectified) continue;
        best = rectified;
        at = cell;
      }
      y[(long long)window * geometry.K + k] = best;
      argmax[(long long)window * geometry.K + k] = (unsigned char)at;
    }
  }
}
