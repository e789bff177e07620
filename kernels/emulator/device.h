// CUDA C++ as a C++17 compiler needs it: included before the text of a kernel file.
//
// Qualifiers that only place code or data become nothing; `threadIdx` and its kin are variables
// that the runtime sets before it lets a thread run; everything in which threads meet is a call
// into the runtime (runtime.h). `__shared__` is not here: a declaration needs more than a macro
// can do, so source.py rewrites it.
#pragma once
#include <math.h>
#include <cfloat>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))

// ---- vector types -----------------------------------------------------------------------------
// Aligned as CUDA aligns them: to the size of the whole, but for those of three and of 32 bytes.

#define EMULATOR_VECTOR(T, name, bytes)                                                      \
  struct name##1 { T x; };                                                                   \
  struct __align__(2 * (bytes)) name##2 { T x, y; };                                         \
  struct name##3 { T x, y, z; };                                                             \
  struct __align__(4 * (bytes) < 16 ? 4 * (bytes) : 16) name##4 { T x, y, z, w; };           \
  EMULATOR_OWN inline name##1 make_##name##1(T x) { return {x}; }                            \
  EMULATOR_OWN inline name##2 make_##name##2(T x, T y) { return {x, y}; }                    \
  EMULATOR_OWN inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }            \
  EMULATOR_OWN inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTOR(signed char, char, 1)
EMULATOR_VECTOR(unsigned char, uchar, 1)
EMULATOR_VECTOR(short, short, 2)
EMULATOR_VECTOR(unsigned short, ushort, 2)
EMULATOR_VECTOR(int, int, 4)
EMULATOR_VECTOR(unsigned, uint, 4)
EMULATOR_VECTOR(float, float, 4)
EMULATOR_VECTOR(long long, longlong, 8)
EMULATOR_VECTOR(unsigned long long, ulonglong, 8)
EMULATOR_VECTOR(double, double, 8)
#undef EMULATOR_VECTOR

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// ---- who and where ----------------------------------------------------------------------------

#define threadIdx (::emulator::thread_index)
#define blockIdx (::emulator::block_index)
#define blockDim (::emulator::block_size)
#define gridDim (::emulator::grid_size)
#define warpSize 32

namespace emulator {
[[noreturn]] EMULATOR_OWN inline void assertion_failed(const char* condition,
                                                       Site site = Site::here()) {
  fail("assertion failed", site, "%s does not hold", condition);
}
}  // namespace emulator

// ---- where threads meet -----------------------------------------------------------------------

EMULATOR_OWN inline void __syncthreads(emulator::Site site = emulator::Site::here()) {
  emulator::block_barrier(site);
}
// As __syncthreads, and tells each thread how many of the block gave a true `predicate`...
EMULATOR_OWN inline int __syncthreads_count(int predicate,
                                            emulator::Site site = emulator::Site::here()) {
  return emulator::block_barrier_count(predicate != 0, site);
}
// ...whether all did...
EMULATOR_OWN inline int __syncthreads_and(int predicate,
                                          emulator::Site site = emulator::Site::here()) {
  return emulator::block_barrier_count(predicate == 0, site) == 0;
}
// ...whether any did.
EMULATOR_OWN inline int __syncthreads_or(int predicate,
                                         emulator::Site site = emulator::Site::here()) {
  return emulator::block_barrier_count(predicate != 0, site) != 0;
}
// All threads of all blocks meet; the launch must be cooperative. (On a GPU: common.cuh, which
// counts the blocks in `arrivals`.)
EMULATOR_OWN inline void grid_sync([[maybe_unused]] unsigned* arrivals,
                                   emulator::Site site = emulator::Site::here()) {
  emulator::grid_barrier(site);
}
EMULATOR_OWN inline void __threadfence() { emulator::memory_fence(true); }
EMULATOR_OWN inline void __threadfence_system() { emulator::memory_fence(true); }
EMULATOR_OWN inline void __threadfence_block() { emulator::memory_fence(false); }

// ---- what ends a launch -----------------------------------------------------------------------

#undef assert
#define assert(condition) \
  ((condition) ? static_cast<void>(0) : ::emulator::assertion_failed(#condition))
EMULATOR_OWN inline void __trap(emulator::Site site = emulator::Site::here()) {
  emulator::fail("trap", site, "it stops the kernel with __trap()");
}

#include "warp.h"
#include "memory.h"
#include "intrinsics.h"
#include "tensor_core.h"
#include "export.h"
