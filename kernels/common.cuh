// What kernels of every operation use: vector loads and stores, and the barrier of the grid.
//
// Under the emulator the same names come from its own headers.
#pragma once

#ifdef __CUDACC__

// ---- vector loads and stores ------------------------------------------------------------------
// 128 bits, the most that one instruction moves (four doubles take two). The address must be a
// multiple of 16 bytes (load2 and store2 of floats: 8).

struct __align__(16) Double4 {
  double x, y, z, w;
};

__device__ __forceinline__ float2 load2(const float* p) {
  return *reinterpret_cast<const float2*>(p);
}
__device__ __forceinline__ double2 load2(const double* p) {
  return *reinterpret_cast<const double2*>(p);
}
__device__ __forceinline__ float4 load4(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
__device__ __forceinline__ Double4 load4(const double* p) {
  const double2 low = load2(p), high = load2(p + 2);
  return {low.x, low.y, high.x, high.y};
}
// Stores are to global memory, and PTX: the compiler splits those of C++ where it sees fit.
__device__ __forceinline__ void store2(float* p, float2 v) {
  asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(p), "f"(v.x), "f"(v.y) : "memory");
}
__device__ __forceinline__ void store2(double* p, double2 v) {
  asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(p), "d"(v.x), "d"(v.y) : "memory");
}
__device__ __forceinline__ void store4(float* p, float4 v) {
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(v.x), "f"(v.y), "f"(v.z),
               "f"(v.w)
               : "memory");
}
__device__ __forceinline__ void store4(double* p, Double4 v) {
  store2(p, make_double2(v.x, v.y));
  store2(p + 2, make_double2(v.z, v.w));
}

// ---- the barrier of the grid ------------------------------------------------------------------
// All threads of all blocks meet. The launch must be cooperative, so that all blocks are on the
// GPU at once. Each barrier adds 2^31 to a counter: every block 1, but the first, which adds the
// rest. So the top bit turns over when the last block arrives, however many there are, and the
// bits below it are 0 again. Each launch is given a counter of its own, 0 at first: two at once in
// different streams would count each other's blocks.

__device__ __forceinline__ void grid_sync(unsigned* arrivals) {
  constexpr unsigned TOP = 1u << 31;
  __threadfence();
  __syncthreads();  // all threads of the block have arrived, and what they wrote can be seen
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
    const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
    const bool first = blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0;
    const unsigned before = atomicAdd(arrivals, first ? TOP - (blocks - 1) : 1u);
    while (((atomicAdd(arrivals, 0u) ^ before) & TOP) == 0) {
    }
    __threadfence();
  }
  __syncthreads();  // the others of the block wait for the one that has seen it open
}

#endif
