// The two operands of a matrix product, a stage at a time, in shared memory.
//
// A stage holds DEPTH terms of the sum for each row (or each column) of the product. They come
// from global memory in chunks of 128 bits, and are read in chunks by the threads that multiply.
// What a chunk is depends on what lies side by side in memory: terms, or rows (columns).
#pragma once
#include "../common.cuh"
#include "../ptx.cuh"
#include "blocks.cuh"

constexpr int CHUNK = 16 / sizeof(REAL);  // elements of 128 bits
constexpr int DEPTH = 4 * CHUNK;          // terms of a stage, 64 bytes

__device__ __forceinline__ void load_chunk(const float* from, float (&to)[4]) {
  const float4 chunk = load4(from);
  to[0] = chunk.x, to[1] = chunk.y, to[2] = chunk.z, to[3] = chunk.w;
}
__device__ __forceinline__ void load_chunk(const double* from, double (&to)[2]) {
  const double2 chunk = load2(from);
  to[0] = chunk.x, to[1] = chunk.y;
}

// A chunk on its way into shared memory: the first `count` elements from `from`, zeros for the
// rest. Where channels come in whole chunks it is all or nothing, and asynchronous; else each
// eight threads begin at another element, so that a warp's 32 lie in 32 banks.
__device__ __forceinline__ void copy_chunk(REAL* to, const REAL* from, int count, bool whole) {
  if (whole) {
    cp_async_16(to, from, count > 0);
    return;
  }
  for (int element = 0; element < CHUNK; element++) {
    const int i = (element + threadIdx.x / 8) % CHUNK;
    to[i] = i < count ? from[i] : REAL(0);
  }
}

// COUNT rows (or columns), dealt out to PARTS threads, where terms lie side by side, as channels
// do. A chunk is four terms of one row. Lines are a chunk longer than needed: so the same chunk of
// eight neighbouring lines lies in 32 different banks, and so do two whole lines four apart.
template <int COUNT, int PARTS> struct __align__(16) Along {
  REAL line[COUNT][DEPTH + CHUNK];

  // Calls copy(to, row, first term) for this thread's share of the chunks. Four threads share a
  // line, and the next four take the line four further on.
  template <int THREADS, class Copy> __device__ __forceinline__ void fill(Copy copy) {
    const unsigned at = opaque(threadIdx.x);
    const int first = at / 32 * 8 + at / 4 % 2 * 4 + at / 8 % 4;
    const int term = at % 4 * CHUNK;
#pragma unroll
    for (int more = 0; more < COUNT; more += THREADS / 4) {
      if (more + THREADS / 4 > COUNT && first + more >= COUNT) break;
      copy(&line[first + more][term], first + more, term);
    }
  }
  // Thread `part` has rows part, part + PARTS ...; this is the j-th of them.
  static __device__ __forceinline__ int row(int part, int j) { return part + PARTS * j; }
  // The j-th chunk of its rows times the CHUNK terms from q * CHUNK on, and what is in it.
  __device__ __forceinline__ const REAL* chunk(int part, int q, int j) const {
    return &line[row(part, j)][q * CHUNK];
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
