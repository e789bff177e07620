// Kernels that each do one thing wrong. test_faults.py finds the line by its comment.
#include "../../../kernels/common.cuh"
#include "../../../kernels/ptx.cuh"

#define ALL 0xffffffffu

extern "C" __global__ void some_skip_the_barrier(float* x) {
  if (threadIdx.x < 40) __syncthreads();  // fault: some_skip_the_barrier
  x[threadIdx.x] = 1;
}
extern "C" __global__ void two_barriers(float* x) {
  if (threadIdx.x < 32)
    __syncthreads();  // fault: two_barriers, one
  else
    __syncthreads();  // fault: two_barriers, other
}
extern "C" __global__ void two_shuffles(float* x) {
  float v = x[threadIdx.x];
  if (threadIdx.x % 32 < 16)
    v += __shfl_xor_sync(ALL, v, 1);  // fault: two_shuffles, one
  else
    v += __shfl_xor_sync(ALL, v, 2);  // fault: two_shuffles, other
  x[threadIdx.x] = v;
}
// clang-format off
extern "C" __global__ void barriers_in_a_line(float* x) {
  if (threadIdx.x < 32) __syncthreads(); else __syncthreads();  // fault: barriers_in_a_line
}
extern "C" __global__ void shuffles_in_a_line(float* x) {
  const float v = x[threadIdx.x];
  x[threadIdx.x] = threadIdx.x % 2 ? __shfl_xor_sync(ALL, v, 1) : __shfl_xor_sync(ALL, v, 2);  // fault: shuffles_in_a_line
}
// clang-format on
extern "C" __global__ void two_masks(float* x) {
  unsigned mask = threadIdx.x % 32 < 16 ? 0x0000ffffu : ALL;
  x[threadIdx.x] = __any_sync(mask, 1);  // fault: two_masks, one
  __syncwarp();  // fault: two_masks, other
}
extern "C" __global__ void not_named(float* x) {
  x[threadIdx.x] = __shfl_sync(0x7fffffffu, x[threadIdx.x], 0);  // fault: not_named
}
extern "C" __global__ void lanes_at_the_barrier(float* x) {
  if (threadIdx.x % 2)
    __syncthreads();  // fault: lanes_at_the_barrier, other
  else
    __syncwarp();  // fault: lanes_at_the_barrier, one
}
extern "C" __global__ void half_a_warp_multiplies(float* x) {
  unsigned a[4] = {}, b[2] = {};
  float d[4] = {};
  if (threadIdx.x % 32 >= 16) return;
  mma_tf32_16x8x8(d, a, b);  // fault: half_a_warp_multiplies
  x[threadIdx.x] = d[0];
}
__device__ unsigned arrivals;
extern "C" __global__ void not_cooperative(float* x) {
  grid_sync(&arrivals);  // fault: not_cooperative
}
extern "C" __global__ void a_block_ends_early(float* x) {
  if (blockIdx.x != 2) grid_sync(&arrivals);  // fault: a_block_ends_early
}
extern "C" __global__ void barriers_of_two_kinds(float* x) {
  if (threadIdx.x < 32)
    grid_sync(&arrivals);  // fault: barriers_of_two_kinds, one
  else
    __syncthreads();  // fault: barriers_of_two_kinds, other
}

extern "C" __global__ void odd_load(float* x) {
  x[0] = load4(x + 4 * threadIdx.x + 1).x;  // fault: odd_load
}
extern "C" __global__ void odd_store(double* x) {
  store2(x + 1, make_double2(0, 0));  // fault: odd_store
}
extern "C" __global__ void odd_array(float* x) {
  __shared__ float s[64];  // aligned to 4 bytes only
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();  // s is written
  x[threadIdx.x] = load4(s).x;  // fault: odd_array
}
extern "C" __global__ void odd_copy(float* x) {
  __shared__ __align__(16) float s[64];
  cp_async_16(s, x + 2);  // fault: odd_copy
}
extern "C" __global__ void odd_row(float* x) {
  __shared__ __align__(16) unsigned short s[8 * 12];
  unsigned d;
  ldmatrix_x1(&d, s + threadIdx.x % 8 * 12);  // fault: odd_row
}
extern "C" __global__ void copy_from_shared(float* x) {
  __shared__ __align__(16) float s[64];
  cp_async_16(x, s);  // fault: copy_from_shared
}

extern "C" __global__ void too_many_arrays(float* x) {
  __shared__ float s[10000];
  __shared__ float t[3000];  // fault: too_many_arrays
  x[0] = s[0] + t[0];
}
extern "C" __global__ void too_much_dynamic(float* x) {
  extern __shared__ float s[];  // fault: too_much_dynamic
  x[0] = s[0];
}

extern "C" __global__ void nowhere(float* x) {
  long long far = 1ll << 60;
  x[threadIdx.x == 3 ? far : 0] = 1;  // fault: nowhere
}
extern "C" __global__ void by_zero(int* x) {
  x[threadIdx.x] = 7 / x[threadIdx.x];  // fault: by_zero
}
extern "C" __global__ void deep(volatile int* x) {  // fault: deep
  volatile int local[50000];
  for (int i = 0; i < 50000; i++) local[i] = x[i % 64];
  x[0] = local[x[0]];
}

extern "C" __global__ void asserts(float* x) {
  assert(threadIdx.x < 30);  // fault: asserts
}
extern "C" __global__ void traps(float* x) {
  if (threadIdx.x == 33) __trap();  // fault: traps
}

extern "C" __global__ void right(float* x) {
  __shared__ float s[512];
  s[threadIdx.x] = 1;
  __syncthreads();  // s is written
  x[threadIdx.x] = s[511 - threadIdx.x];
}
