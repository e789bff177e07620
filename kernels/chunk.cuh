// Chunks of 128 bits: how matrix products bring their operands in, and read them.
#pragma once
#include "common.cuh"
#include "ptx.cuh"
#include "real.cuh"

constexpr int CHUNK = 16 / sizeof(REAL);  // elements of 128 bits

__device__ __forceinline__ void load_chunk(const float* from, float (&to)[4]) {
  const float4 chunk = load4(from);
  to[0] = chunk.x, to[1] = chunk.y, to[2] = chunk.z, to[3] = chunk.w;
}
__device__ __forceinline__ void load_chunk(const double* from, double (&to)[2]) {
  const double2 chunk = load2(from);
  to[0] = chunk.x, to[1] = chunk.y;
}

// A chunk on its way into shared memory: the first `count` elements from `from`, zeros for the
// rest. Where lines come in whole chunks it is all or nothing, and asynchronous; else each eight
// threads begin at another element, so that a warp's 32 lie in 32 banks.
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
