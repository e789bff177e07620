// The tile of a matrix product that a block works out on tensor cores: the short number formats,
// the two operands in shared memory, and the fragments of them that a warp holds.
//
// A fragment is 16 rows (or columns) by 32 bytes of terms: four matrices of eight rows by a chunk
// of 16 bytes, a register each. Lane 4 g + t has 32 bits of every matrix, the t-th of row g. `mma`
// takes rows as ABCD and columns, eight at a time, as AB or CD:
//
//     rows    terms 0   terms 1          columns    terms 0   terms 1
//     0-7        A         C             0-7           A         B
//     8-15       B         D             8-15          C         D
#pragma once
#include "../ptx.cuh"
#include "blocks.cuh"

#ifndef TILE_COLUMNS  // 32, 64 or 128; the launcher takes fewer where there are few columns
#define TILE_COLUMNS 128
#endif

constexpr int ROWS = 128, COLUMNS = TILE_COLUMNS;
constexpr int WARP_ROWS = 64, WARP_COLUMNS = 32, WARPS_ACROSS = COLUMNS / WARP_COLUMNS;
constexpr int THREADS = 32 * (ROWS / WARP_ROWS) * WARPS_ACROSS;  // 256, 128 or 64

// ---- the number formats -------------------------------------------------------------------------

// A float32 that keeps 10 bits of its fraction, and all of its 32 bits in memory.
struct Tf32 {
  unsigned bits;
  // What one or two numbers are in 32 bits.
  static __device__ __forceinline__ unsigned word(const float* values) {
    return to_tf32(values[0]);
  }
  static __device__ __forceinline__ void multiply(float (&sums)[4], const unsigned (&a)[4],
                                                  const unsigned* b) {
    mma_tf32_16x8x8(sums, a, b);
  }
};
// The upper half of a float32, with 7 bits of its fraction.
struct Bf16 {
  unsigned short bits;
  static __device__ __forceinline__ unsigned word(const float* values) {
    return pack_bf16x2(values[0], values[1]);
  }
  static __device__ __forceinline__ void multiply(float (&sums)[4], const unsigned (&a)[4],
                                                  const unsigned* b) {
    mma_bf16_16x8x16(sums, a, b);
  }
};

template <class Number> constexpr int CHUNK = 16 / sizeof(Number);     // numbers of 128 bits
template <class Number> constexpr int DEPTH = 4 * CHUNK<Number>;       // terms of a stage
constexpr int STEPS = 2;                                               // fragments along a stage

// ---- the operands in shared memory --------------------------------------------------------------

enum class Side { ROWS, COLUMNS };  // which of the two orders a fragment has

// Of lane 8 n + i: how far from the fragment's first row, and from its first chunk, is row i of its
// n-th matrix.
template <Side SIDE> __device__ __forceinline__ int lane_row() {
  const int lane = threadIdx.x % 32;
  return lane % 8 + (SIDE == Side::ROWS ? lane / 8 % 2 : lane / 16) * 8;
}
template <Side SIDE> __device__ __forceinline__ int lane_chunk() {
  const int lane = threadIdx.x % 32;
  return SIDE == Side::ROWS ? lane / 16 : lane / 8 % 2;
}

// Where four threads copy the chunks of a line, the line of this thread: the next four take the one
// four further on.
__device__ __forceinline__ int line_of_four() {
  const int at = threadIdx.x;
  return at / 32 * 8 + at / 4 % 2 * 4 + at / 8 % 4;
}

// COUNT rows (or columns) where terms lie side by side, as channels do. Lines are a chunk longer
// than needed: so the same chunk of eight neighbouring lines, which ldmatrix reads at once, lies in
// 32 different banks, and so do two whole lines four apart, which eight threads write.
template <class Number, int COUNT> struct __align__(16) Along {
  Number line[COUNT][DEPTH<Number> + CHUNK<Number>];

  // Calls copy(to, row, first term) for this thread's share of the chunks.
  template <class Copy> __device__ __forceinline__ void fill(Copy copy) {
    const int first = line_of_four(), term = threadIdx.x % 4 * CHUNK<Number>;
#pragma unroll
    for (int more = 0; more < COUNT; more += THREADS / 4) {
      copy(&line[first + more][term], first + more, term);
    }
  }
  // The fragment of the rows from `first` on: lane 8 n + i points to row i of the n-th matrix.
  template <Side SIDE>
  __device__ __forceinline__ void read(unsigned (&out)[4], int first, int step) const {
    const int row = first + lane_row<SIDE>(), chunk = 2 * step + lane_chunk<SIDE>();
    ldmatrix_x4(out, &line[row][chunk * CHUNK<Number>]);
  }
};

// The same where rows (or columns) lie side by side: a line is a term. Lines are longer by eight
// numbers, to the same end: eight rows are read at once, by eight terms of bf16 or four of TF32.
template <class Number, int COUNT> struct __align__(16) Across {
  static constexpr int CHUNKS = COUNT / CHUNK<Number>, LINES = THREADS / CHUNKS;
  Number line[DEPTH<Number>][COUNT + 8];

  template <class Copy> __device__ __forceinline__ void fill(Copy copy) {
    static_assert(THREADS % CHUNKS == 0 && DEPTH<Number> % LINES == 0, "all threads get as much");
    const unsigned at = opaque(threadIdx.x);  // no register is left to hold what follows from it
    const int first = CHUNKS == 4 ? line_of_four() : at / CHUNKS;
    const int row = at % CHUNKS * CHUNK<Number>;
#pragma unroll
    for (int more = 0; more < DEPTH<Number>; more += LINES) {
      copy(&line[first + more][row], row, first + more);
    }
  }
  template <Side SIDE>
  __device__ __forceinline__ void read(unsigned (&out)[4], int first, int step) const {
    read<SIDE>(line, out, first, step);
  }
  // ldmatrix transposes numbers of 16 bits: lane 8 n + i points to term i of the n-th matrix.
  template <Side SIDE, int WIDTH>
  static __device__ __forceinline__ void read(const Bf16 (*line)[WIDTH], unsigned (&out)[4],
                                              int first, int step) {
    const int term = (2 * step + lane_chunk<SIDE>()) * 8 + threadIdx.x % 8;
    ldmatrix_x4_trans(out, &line[term][first + lane_row<SIDE>() - threadIdx.x % 8]);
  }
  // It cannot those of 32 bits, which each lane loads one by one.
  template <Side SIDE, int WIDTH>
  static __device__ __forceinline__ void read(const Tf32 (*line)[WIDTH], unsigned (&out)[4],
                                              int first, int step) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
      const int eight = SIDE == Side::ROWS ? r % 2 : r / 2;
      const int chunk = 2 * step + (SIDE == Side::ROWS ? r / 2 : r % 2);
      out[r] = line[chunk * 4 + threadIdx.x % 4][first + eight * 8 + threadIdx.x % 32 / 4].bits;
    }
  }
};

// ---- the product --------------------------------------------------------------------------------

// The warp's part of the tile, and of the lane's sums[i][j][r]: the rows of the i-th fragment and
// the columns of the j-th half fragment, as mma hands them out.
__device__ __forceinline__ int warp_row() {
  return threadIdx.x / 32 / WARPS_ACROSS * WARP_ROWS;
}
__device__ __forceinline__ int warp_column() {
  return threadIdx.x / 32 % WARPS_ACROSS * WARP_COLUMNS;
}
__device__ __forceinline__ int row_of(int i, int r) {
  return warp_row() + 16 * i + threadIdx.x % 32 / 4 + 8 * (r >> 1);
}
__device__ __forceinline__ int column_of(int j, int r) {
  return warp_column() + 8 * j + threadIdx.x % 4 * 2 + (r & 1);
}

using Sums = float[WARP_ROWS / 16][WARP_COLUMNS / 8][4];

// Adds the products of one stage: a fragment read from shared memory is multiplied with several.
template <class Number, class A, class B>
__device__ __forceinline__ void multiply(const A& a, const B& b, Sums& sums) {
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    unsigned of_rows[WARP_ROWS / 16][4], of_columns[WARP_COLUMNS / 16][4];
#pragma unroll
    for (int i = 0; i < WARP_ROWS / 16; i++) {
      a.template read<Side::ROWS>(of_rows[i], warp_row() + 16 * i, step);
    }
#pragma unroll
    for (int j = 0; j < WARP_COLUMNS / 16; j++) {
      b.template read<Side::COLUMNS>(of_columns[j], warp_column() + 16 * j, step);
    }
#pragma unroll
    for (int i = 0; i < WARP_ROWS / 16; i++) {
#pragma unroll
      for (int j = 0; j < WARP_COLUMNS / 8; j++) {
        Number::multiply(sums[i][j], of_rows[i], &of_columns[j / 2][j % 2 * 2]);
      }
    }
  }
}
