// The first layer: convolution of clips of bytes, with three channels side by side (N D H W 3).
//
// What changed since implicit_gemm.cu, and why it helps:
// - The clip stays uint8 in memory, and each byte becomes (x / 255 - mean) / std on its way into
//   shared memory: a quarter of the traffic, and no copy of the clip in floats.
// - A stage has as many taps as its 16 terms hold, five; in the implicit GEMM it has one, and 13 of
//   its 16 channels would be zeros.
//
// A cell in the padding is zero, not (0 - mean) / std. There is no dgrad: nobody asks for the
// gradient of a clip.
//
//               rows           columns    sum over
//    fprop      n z p q        k          t r s, c     x gathered, w
//    wgrad      t r s, c       k          n z p q      x gathered, gy
#include "../common.cuh"
#include "geometry.cuh"
#include "product.cuh"
#include "slices.cuh"
#include "windows.cuh"

constexpr int CHANNELS = 3;

// (x / 255 - mean) / std as x * scale + shift.
struct Normalisation {
  REAL scale[CHANNELS], shift[CHANNELS];
};
// A byte, normalised; negative where there is none: in the padding, and past the last tap.
__device__ __forceinline__ REAL normalised(int byte, REAL scale, REAL shift) {
  return byte < 0 ? REAL(0) : REAL(byte) * scale + shift;
}

__device__ __forceinline__ int taps() { return geometry.T * geometry.R * geometry.S; }
__device__ __forceinline__ Tap tap_number(int number, const Axes& axes) {
  const int line = number / geometry.S;
  return tap_at(line / geometry.R, line % geometry.R, number % geometry.S, axes);
}

// Gathering: a thread stays in its row of the operand, and takes every LINES-th line.
using Rows = Across<ROWS, ROW_PARTS>;
constexpr int LINES = THREADS / ROWS;
static_assert(THREADS % ROWS == 0, "a thread stays in its row");

#define ENTRY extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)

// ---- fprop --------------------------------------------------------------------------------------

constexpr int TAPS = DEPTH / CHANNELS, TERMS = TAPS * CHANNELS;  // of a stage

__device__ __forceinline__ void copy_one(float* to, const float* from, bool inside) {
  cp_async_4(to, from, inside);
}
__device__ __forceinline__ void copy_one(double* to, const double* from, bool inside) {
  cp_async_8(to, from, inside);
}

ENTRY conv3d_uint8_fprop(const unsigned char* x, const REAL* w, REAL scale0, REAL scale1,
                         REAL scale2, REAL shift0, REAL shift1, REAL shift2, const REAL* bias,
                         int relu, REAL* y, REAL* lost) {
  using Columns = Along<COLUMNS, COLUMN_PARTS>;
  __shared__ Rows a[2];
  __shared__ Columns b[2];
  const Normalisation by = {{scale0, scale1, scale2}, {shift0, shift1, shift2}};
  const Axes axes = fprop_axes();
  const int column_tiles = tiles(geometry.K, COLUMNS);
  const int row0 = blockIdx.x / column_tiles * ROWS, column0 = blockIdx.x % column_tiles * COLUMNS;
  __shared__ Place places[ROWS];  // where windows begin
  for (int i = threadIdx.x; i < ROWS; i += THREADS) places[i] = place_of(row0 + i, axes);
  __syncthreads();  // the places are written before windows are looked into

  const auto gather = [&](Rows& rows, int stage) {
    const int row = opaque(threadIdx.x) % ROWS, line = opaque(threadIdx.x) / ROWS;
    const Place place = places[row];
    int bytes[TAPS][CHANNELS];  // all on their way before the first is needed
#pragma unroll
    for (int i = 0; i < TAPS; i += LINES) {
      const int number = stage * TAPS + i + line;
      const Tap tap = tap_number(number, axes);
      const bool inside = (i + line < TAPS) & (number < taps()) & meets(place, tap, axes);
      const unsigned char* from = x + (long long)(place.cell + tap.cell) * CHANNELS;
#pragma unroll
      for (int c = 0; c < CHANNELS; c++) bytes[i][c] = inside ? from[c] : -1;
    }
#pragma unroll
    for (int i = 0; i < TAPS; i += LINES) {
      if (i + line >= TAPS) break;
#pragma unroll
      for (int c = 0; c < CHANNELS; c++) {
        REAL* to = &rows.line[(i + line) * CHANNELS + c][row];
        *to = normalised(bytes[i][c], by.scale[c], by.shift[c]);
      }
    }
  };
  // The filter is a matrix K by taps and channels, whose lines need not begin at whole chunks.
  const auto copy_filter = [&](Columns& columns, int stage) {
    const int terms = taps() * CHANNELS;
    for (int i = opaque(threadIdx.x); i < COLUMNS * DEPTH; i += THREADS) {
      const int k = column0 + i / DEPTH, of_stage = i % DEPTH, term = stage * TERMS + of_stage;
      copy_one(columns.at(i / DEPTH, of_stage), w + (long long)k * terms + term,
               (k < geometry.K) & (of_stage < TERMS) & (term < terms));
    }
    cp_async_commit();
  };

  // What a stage has beyond its taps is zero, and stays so.
  for (int term = TERMS + threadIdx.x / ROWS; term < DEPTH; term += LINES) {
    a[0].line[term][threadIdx.x % ROWS] = a[1].line[term][threadIdx.x % ROWS] = 0;
  }
  const int stages = tiles(taps(), TAPS);
  copy_filter(b[0], 0);
  gather(a[0], 0);
  // The sum is cut into slabs, as in implicit_gemm.cu: a filter of 3 x 3 x 3 taps has one.
  for (int begin = 0; begin < stages; begin += SLAB) {
    REAL sums[ROWS_EACH][COLUMNS_EACH] = {};
    for (int stage = begin; stage < min(stages, begin + SLAB); stage++) {
      cp_async_wait<0>();
      // Every thread's part of this stage is there, and nobody reads the one before any more, which
      // is overwritten next.
      __syncthreads();
      const int now = stage % 2;
      if (stage + 1 < stages) {
        copy_filter(b[1 - now], stage + 1);
        gather(a[1 - now], stage + 1);
      }
      multiply(a[now], b[now], sums);
    }

    const bool last = begin + SLAB >= stages;
    const Finish finish = {bias, relu != 0};
    // Where outputs are is worked out now, and held in no register before.
    const unsigned block = opaque(blockIdx.x);
    const int first_row = block / column_tiles * ROWS, first_k = block % column_tiles * COLUMNS;
#pragma unroll
    for (int j = 0; j < COLUMNS_EACH; j++) {
      const int k = first_k + Columns::row(column_part(), j);
#pragma unroll
      for (int i = 0; i < ROWS_EACH; i++) {
        const int at = first_row + Rows::row(row_part(), i);
        if (k >= geometry.K || at >= axes.rows()) continue;
        const long long to = (long long)at * geometry.K + k;
        const REAL value = add_slab(sums[i][j], y + to, lost + to, begin == 0, last);
        y[to] = last ? finish(value, k) : value;
      }
    }
  }
}

// ---- wgrad --------------------------------------------------------------------------------------

// Sums are cut into slices, and these into slabs, as in implicit_gemm.cu; gw is one array K by
// terms for each slice.
ENTRY conv3d_uint8_wgrad(const REAL* gy, const unsigned char* x, REAL scale0, REAL scale1,
                         REAL scale2, REAL shift0, REAL shift1, REAL shift2, REAL* gw,
                         REAL* lost) {
  using Columns = Across<COLUMNS, COLUMN_PARTS>;
  __shared__ Rows a[2];
  __shared__ Columns b[2];
  __shared__ Place places[SLAB * DEPTH];  // of the output cells of a slab
  const Axes axes = fprop_axes();
  const int terms = taps() * CHANNELS;
  const int row_tiles = tiles(terms, ROWS), column_tiles = tiles(geometry.K, COLUMNS);
  const Block block = block_at(blockIdx.x, row_tiles, column_tiles);
  const int row0 = block.row_tile * ROWS, column0 = block.column_tile * COLUMNS;

  const int gathered = row0 + threadIdx.x % ROWS, channel = gathered % CHANNELS;
  Tap tap = tap_number(gathered / CHANNELS, axes);
  if (gathered >= terms) tap.d = -(1 << 30);  // so far out that it meets no cell
  const REAL scale = channel == 0 ? scale0 : channel == 1 ? scale1 : scale2;
  const REAL shift = channel == 0 ? shift0 : channel == 1 ? shift1 : shift2;
  const auto gather = [&](Rows& rows, int stage) {
    int bytes[DEPTH / LINES];  // all on their way before the first is needed
#pragma unroll
    for (int i = 0; i < DEPTH / LINES; i++) {
      const Place place = places[stage % SLAB * DEPTH + threadIdx.x / ROWS + LINES * i];
      const unsigned char* from = x + (long long)(place.cell + tap.cell) * CHANNELS;
      bytes[i] = meets(place, tap, axes) ? from[channel] : -1;
    }
#pragma unroll
    for (int i = 0; i < DEPTH / LINES; i++) {
      rows.line[threadIdx.x / ROWS + LINES * i][threadIdx.x % ROWS] =
          normalised(bytes[i], scale, shift);
    }
  };
  const auto copy_gradient = [&](Columns& columns, int stage) {
    columns.template fill<THREADS>([&](REAL* to, int i, int line) {
      const int cell = stage * DEPTH + line, k = column0 + i;
      copy_chunk(to, gy + (long long)cell * geometry.K + k,
                 cell < axes.rows() ? geometry.K - k : 0, geometry.K % CHUNK == 0);
    });
    cp_async_commit();
  };

  const int stages = tiles(axes.rows(), DEPTH);
  const Slabs slabs(tiles(stages, SLAB), block);
  for (int slab = slabs.begin; slab < slabs.end; slab++) {
    const int first = slab * SLAB, last = min(stages, first + SLAB);
    __syncthreads();  // others may still look at the places of the slab before
    for (int i = threadIdx.x; i < SLAB * DEPTH; i += THREADS) {
      places[i] = place_of(first * DEPTH + i, axes);
    }
    __syncthreads();  // the places are written before windows are looked into
    REAL sums[ROWS_EACH][COLUMNS_EACH] = {};
    copy_gradient(b[0], first);
    gather(a[0], first);
    for (int stage = first; stage < last; stage++) {
      cp_async_wait<0>();
      // Every thread's part of this stage is there, and nobody reads the one before any more,
      // which is overwritten next.
      __syncthreads();
      const int now = stage % 2;
      if (stage + 1 < last) {
        copy_gradient(b[1 - now], stage + 1);
        gather(a[1 - now], stage + 1);
      }
      multiply(a[now], b[now], sums);
    }
    // Where outputs are is worked out now, and held in no register before.
    const Block again = block_at(opaque(blockIdx.x), row_tiles, column_tiles);
    const Slabs all(tiles(stages, SLAB), again);
    const bool first_slab = slab == all.begin, last_slab = slab + 1 == all.end;
#pragma unroll
    for (int j = 0; j < COLUMNS_EACH; j++) {
      const int k = again.column_tile * COLUMNS + Columns::row(column_part(), j);
#pragma unroll
      for (int i = 0; i < ROWS_EACH; i++) {
        const int row = again.row_tile * ROWS + Rows::row(row_part(), i);
        if (k >= geometry.K || row >= terms) continue;
        const long long to = ((long long)again.slice * geometry.K + k) * terms + row;
        gw[to] = add_slab(sums[i][j], gw + to, lost + to, first_slab, last_slab);
      }
    }
  }
}
