// The two operands of a matrix product, a stage at a time, in shared memory.
//
// A stage holds DEPTH terms of the sum for each row (or each column) of the product. They come
// from global memory in chunks of 128 bits, and are read in chunks by the threads that multiply.
// What a chunk is depends on what lies side by side in memory: terms, or rows (columns).
#pragma once
#include "../chunk.cuh"
#include "blocks.cuh"

constexpr int DEPTH = 4 * CHUNK;  // terms of a stage, 64 bytes

// COUNT rows (or columns), dealt out to PARTS threads, where terms lie side by side, as channels
// do. A chunk is four terms of one row. Two lines have all 32 banks, and each pair of lines has its
// chunks in another order: so the same chunk of eight neighbouring lines lies in all banks, too.
template <int COUNT, int PARTS> struct __align__(16) Along {
  REAL line[COUNT][DEPTH];

  // Where a row's term lies.
  __device__ __forceinline__ REAL* at(int row, int term) {
    return &line[row][place(row, term / CHUNK) + term % CHUNK];
  }
  static __device__ __forceinline__ int place(int row, int chunk) {
    return (chunk ^ row / 2 % (DEPTH / CHUNK)) * CHUNK;
  }
  // Calls copy(to, row, first term) for this thread's share of the chunks. Four threads share a
  // line.
  template <int THREADS, class Copy> __device__ __forceinline__ void fill(Copy copy) {
    static_assert(THREADS / 4 % 8 == 0, "a thread's chunks stand at one place in their lines");
    const unsigned thread = opaque(threadIdx.x);
    const int first = thread / 4, chunk = thread % 4, to = place(first, chunk);
#pragma unroll
    for (int more = 0; more < COUNT; more += THREADS / 4) {
      if (more + THREADS / 4 > COUNT && first + more >= COUNT) break;
      copy(&line[first + more][to], first + more, chunk * CHUNK);
    }
  }
  // Thread `part` has rows part, part + PARTS ...; this is the j-th of them.
  static __device__ __forceinline__ int row(int part, int j) { return part + PARTS * j; }
  // The j-th chunk of its rows times the CHUNK terms from q * CHUNK on, and what is in it.
  __device__ __forceinline__ const REAL* chunk(int part, int q, int j) const {
    static_assert(PARTS % 8 == 0, "all rows of a part have their chunks in one order");
    return &line[row(part, j)][place(part, q)];
  }
  static constexpr __device__ int row_in(int j, int) { return j; }
  static constexpr __device__ int term_in(int, int element) { return element; }
};

// The same where rows (or columns) lie side by side: a chunk is one term of four rows.
template <int COUNT, int PARTS> struct __align__(16) Across {
  REAL line[DEPTH][COUNT];

  template <int THREADS, class Copy> __device__ __forceinline__ void fill(Copy copy) {
    constexpr int CHUNKS = COUNT / CHUNK, LINES = THREADS / CHUNKS;
    static_assert(THREADS % CHUNKS == 0, "a thread stays in its rows");
    const unsigned at = opaque(threadIdx.x);
    const int first = at / CHUNKS, row = at % CHUNKS * CHUNK;
#pragma unroll
    for (int more = 0; more < DEPTH; more += LINES) {
      if (more + LINES > DEPTH && first + more >= DEPTH) break;
      copy(&line[first + more][row], row, first + more);
    }
  }
  // Thread `part` has one chunk in each PARTS * CHUNK rows.
  static __device__ __forceinline__ int row(int part, int j) {
    return (j / CHUNK * PARTS + part) * CHUNK + j % CHUNK;
  }
  __device__ __forceinline__ const REAL* chunk(int part, int q, int j) const {
    return &line[q * CHUNK + j % CHUNK][row(part, j / CHUNK * CHUNK)];
  }
  static constexpr __device__ int row_in(int j, int element) {
    return j / CHUNK * CHUNK + element;
  }
  static constexpr __device__ int term_in(int j, int) { return j % CHUNK; }
};
