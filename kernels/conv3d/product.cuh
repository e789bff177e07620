// The tile of a matrix product that a block works out, and how its threads share it.
//
// A thread sums 8 x 8 elements in registers (4 x 4 in float64): 16 numbers from shared memory feed
// 64 multiply-adds.
#pragma once
#include "operands.cuh"

#ifndef TILE_COLUMNS  // 8, 16 or 32 chunks; the launcher takes fewer where there are few columns
#define TILE_COLUMNS (512 / sizeof(REAL))
#endif
#ifndef TILE_ROWS  // 32 chunks; the launcher takes 64 beside 16 of columns
#define TILE_ROWS (512 / sizeof(REAL))
#endif

// A warp is 4 x 8 threads: eight neighbours read eight different chunks of the columns' operand,
// 128 bytes and each bank once, and the same chunk of the rows' operand.
constexpr int COLUMNS = TILE_COLUMNS, ROWS = TILE_ROWS;
constexpr int ROWS_EACH = 2 * CHUNK, ROW_PARTS = ROWS / ROWS_EACH;
constexpr int COLUMNS_EACH = COLUMNS < 16 * CHUNK ? CHUNK : 2 * CHUNK;
constexpr int COLUMN_PARTS = COLUMNS / COLUMNS_EACH;
constexpr int THREADS = ROW_PARTS * COLUMN_PARTS;  // 256, or 128

// Stages of a slab, an even number: so many are summed up before they are added to the total, which
// keeps what rounding takes from it (sum.cuh). So only within a slab do errors grow: its worst of a
// million sums of n products of unit variance is off by less than 1.7e-6 sqrt(n), for any n.
constexpr int SLAB = 96 / DEPTH;
static_assert(COLUMN_PARTS % 8 == 0, "a warp is eight threads wide");

__device__ __forceinline__ int row_part() {
  return threadIdx.x / 32 / (COLUMN_PARTS / 8) * 4 + threadIdx.x % 32 / 8;
}
__device__ __forceinline__ int column_part() {
  return threadIdx.x / 32 % (COLUMN_PARTS / 8) * 8 + threadIdx.x % 8;
}

// Adds the products of one stage: each thread its rows with its columns. UNROLL of the four chunks
// are unrolled: all, unless the compiler, loading far ahead, would run out of registers.
template <int UNROLL = DEPTH / CHUNK, class A, class B>
__device__ __forceinline__ void multiply(const A& a, const B& b,
                                         REAL (&sums)[ROWS_EACH][COLUMNS_EACH]) {
#pragma unroll UNROLL
  for (int q = 0; q < DEPTH / CHUNK; q++) {
    REAL row[ROWS_EACH][CHUNK], chunk[CHUNK];
#pragma unroll
    for (int j = 0; j < ROWS_EACH; j++) {
      load_chunk(a.chunk(row_part(), q, j), chunk);
#pragma unroll
      for (int e = 0; e < CHUNK; e++) row[A::row_in(j, e)][A::term_in(j, e)] = chunk[e];
    }
#pragma unroll
    for (int j = 0; j < COLUMNS_EACH; j++) {
      load_chunk(b.chunk(column_part(), q, j), chunk);
#pragma unroll
      for (int e = 0; e < CHUNK; e++) {
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++) {
          sums[i][B::row_in(j, e)] += row[i][B::term_in(j, e)] * chunk[e];
        }
      }
    }
  }
}
