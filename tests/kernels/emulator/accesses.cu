// Kernels with one fault each. The comment `! kind` marks the line that a finding must name, and
// `!! kind` the line of its other end.
#include "../../../kernels/common.cuh"
#include "../../../kernels/ptx.cuh"

#define KERNEL extern "C" __global__ void

// ---- races ------------------------------------------------------------------------------------

KERNEL no_barrier(float* x) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];       // !! no_barrier
  x[threadIdx.x] = s[threadIdx.x ^ 32];  // ! no_barrier
}

// The barrier stands after the writes, but none before the next round of them.
KERNEL one_barrier_of_two(float* x, int rounds) {
  __shared__ float s[64];
  float sum = 0.0f;
  for (int i = 0; i < rounds; i++) {
    s[threadIdx.x] = sum + threadIdx.x;  // ! one_barrier_of_two
    __syncthreads();
    sum += s[63 - threadIdx.x];  // !! one_barrier_of_two
  }
  x[threadIdx.x] = sum;
}

KERNEL no_syncwarp(float* x) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];  // !! no_syncwarp
  x[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 0);
  x[threadIdx.x] += s[threadIdx.x ^ 1];  // ! no_syncwarp
}

// Half of the warp meets, and reads what the other half has written.
KERNEL half_a_syncwarp(float* x) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];  // !! half_a_syncwarp
  if (threadIdx.x < 16)
    __syncwarp(0x0000ffffu);
  else
    __syncwarp(0xffff0000u);
  x[threadIdx.x] = s[threadIdx.x ^ 16];  // ! half_a_syncwarp
}

// As it was written for GPUs whose lanes ran in step.
KERNEL volatile_reduction(float* x) {
  __shared__ volatile float s[32];
  s[threadIdx.x] = x[threadIdx.x];  // !! volatile_reduction
  if (threadIdx.x >= 16) return;
  x[threadIdx.x] = s[threadIdx.x] + s[threadIdx.x + 16];  // ! volatile_reduction
}

KERNEL in_global_memory(float* x) {
  x[threadIdx.x] = 1.0f;                    // !! in_global_memory
  x[threadIdx.x + 64] = x[threadIdx.x ^ 32];  // ! in_global_memory
}

KERNEL blocks_write(float* x) {
  x[threadIdx.x] = blockIdx.x;  // ! blocks_write
}

KERNEL blocks_read_and_write(float* x) {
  if (blockIdx.x == 1)
    x[threadIdx.x] = 1.0f;  // ! blocks_read_and_write
  else
    x[(blockIdx.x + 1) * 64 + threadIdx.x] = x[threadIdx.x];  // !! blocks_read_and_write
}

// Two blocks read, then one of them writes: the other's reading must not be forgotten.
KERNEL reader_forgotten(float* x) {
  float v = x[0];  // !! reader_forgotten
  __syncthreads();
  if (blockIdx.x == 1 && threadIdx.x == 0) x[0] = v + 1.0f;  // ! reader_forgotten
}

KERNEL atomic_and_plain(int* x) {
  atomicAdd(x, 1);           // !! atomic_and_plain
  x[threadIdx.x + 1] = x[0];  // ! atomic_and_plain
}

KERNEL bytes(unsigned char* x) {
  __shared__ unsigned char s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  s[threadIdx.x / 2] = 1;  // ! bytes
}

// The last block to finish sums what the others left, but nobody made it visible.
__device__ unsigned finished;
KERNEL no_fence(const float* x, float* parts, float* sum) {
  parts[blockIdx.x] = x[blockIdx.x];  // !! no_fence
  if (atomicAdd(&finished, 1u) != gridDim.x - 1) return;
  float total = 0.0f;
  for (int i = 0; i < gridDim.x; i++) total += parts[i];  // ! no_fence
  *sum = total;
  atomicExch(&finished, 0u);
}

// Thread 0 gives the sign for a block whose other threads may still be writing.
__device__ unsigned arrived;
KERNEL fence_before_barrier(float* parts, float* sum) {
  parts[blockIdx.x * 64 + threadIdx.x] = 1.0f;  // !! fence_before_barrier
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(&arrived, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  sum[threadIdx.x] = parts[threadIdx.x % gridDim.x * 64 + 63];  // ! fence_before_barrier
  if (threadIdx.x == 0) atomicExch(&arrived, 0u);
}

KERNEL no_grid_sync(float* x) {
  x[blockIdx.x * 32 + threadIdx.x] = 1.0f;  // !! no_grid_sync
  __syncthreads();
  const int other = (1 - blockIdx.x) * 32 + threadIdx.x;
  x[64 + other] = x[other];  // ! no_grid_sync
}

KERNEL ldmatrix_without_barrier(unsigned* out) {
  __shared__ __align__(16) unsigned tile[8][4];
  tile[threadIdx.x / 4][threadIdx.x % 4] = threadIdx.x;  // !! ldmatrix_without_barrier
  unsigned part;
  ldmatrix_x1(&part, tile[threadIdx.x % 8]);  // ! ldmatrix_without_barrier
  out[threadIdx.x] = part;
}

// ---- out of bounds ----------------------------------------------------------------------------

KERNEL past_the_end(const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const float v = i <= n ? x[i] : 0.0f;  // ! past_the_end
  if (i < n) y[i] = v;
}

KERNEL before_the_start(float* x) {
  if (threadIdx.x > 0) return;
  const int i = static_cast<int>(threadIdx.x) - 3;
  x[i] = 1.0f;  // ! before_the_start
}

KERNEL into_the_next_array(float* x) {
  __shared__ float a[32], b[32];
  a[threadIdx.x] = b[threadIdx.x] = 0.0f;
  __syncwarp();
  a[threadIdx.x + 1] = 1.0f;  // ! into_the_next_array
  __syncwarp();
  x[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
}

KERNEL next_to_it(float* y, int reads) {
  y[threadIdx.x + 1] = 1.0f;  // ! next_to_it
  __syncthreads();
  if (reads) y[threadIdx.x] += 1.0f;
}

KERNEL past_dynamic(float* x) {
  extern __shared__ float s[];
  s[threadIdx.x] = x[threadIdx.x];  // ! past_dynamic
}

KERNEL partly_outside(float* x, int n) {
  const float4 v = load4(x + n - 2);  // ! partly_outside
  x[0] = v.x;
}

KERNEL far_away(float* x, long long distance) {
  x[distance] = 1.0f;  // ! far_away
}

KERNEL no_array(float* x) {
  *x = 1.0f;  // ! no_array
}

__constant__ float table[4];
KERNEL writes_a_constant(float* x) {
  table[threadIdx.x] = x[threadIdx.x];  // ! writes_a_constant
}

// ---- what nobody wrote ------------------------------------------------------------------------

KERNEL shared_unwritten(float* x) {
  __shared__ float s[64];
  if (threadIdx.x < 60) s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];  // ! shared_unwritten
}

KERNEL of_the_block_before(float* x) {
  __shared__ float s[32];
  if (blockIdx.x == 0) s[threadIdx.x] = 1.0f;
  x[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x];  // ! of_the_block_before
}

KERNEL halves(float* y) {
  y[blockIdx.x * 32 + threadIdx.x] /= 2.0f;  // ! halves
}

KERNEL adds_to_nothing(float* y, int n) {
  if (threadIdx.x < n) y[threadIdx.x] = 0.0f;
  y[threadIdx.x] += 1.0f;  // ! adds_to_nothing
}

// ---- where threads meet -----------------------------------------------------------------------

KERNEL divergent_barrier(float* x) {
  if (threadIdx.x < 16)
    __syncthreads();  // !! divergent_barrier
  else
    __syncthreads();  // ! divergent_barrier
  x[threadIdx.x] = 1.0f;
}

KERNEL leaves_early(float* x) {
  if (threadIdx.x == 40) return;
  __syncthreads();  // ! leaves_early
  x[threadIdx.x] = 1.0f;
}

KERNEL divergent_shuffle(float* x) {
  float v = x[threadIdx.x];
  if (threadIdx.x < 16) v = __shfl_sync(0xffffffffu, v, 0);  // ! divergent_shuffle
  __syncthreads();  // !! divergent_shuffle
  x[threadIdx.x] = v;
}

KERNEL barriers_in_one_line(float* x) {
  // clang-format off
  if (threadIdx.x < 16) __syncthreads(); else __syncthreads();  // ! barriers_in_one_line
  // clang-format on
  x[threadIdx.x] = 1.0f;
}

KERNEL shuffle_from_one_that_left(float* x) {
  if (threadIdx.x >= 24) return;
  float v = x[threadIdx.x];
  v = __shfl_xor_sync(0xffffffffu, v, 8);  // ! shuffle_from_one_that_left
  x[threadIdx.x] = v;
}

KERNEL shuffle_from_no_thread(float* x, float* sums) {
  float sum = x[threadIdx.x];  // the second warp has 8 lanes
  for (int step = 16; step > 0; step /= 2)
    sum += __shfl_down_sync(0xffffffffu, sum, step);  // ! shuffle_from_no_thread
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
}

KERNEL shuffle_from_one_not_named(float* x) {
  float v = x[threadIdx.x];
  if (threadIdx.x < 16) v = __shfl_sync(0x0000ffffu, v, 20);  // ! shuffle_from_one_not_named
  x[threadIdx.x] = v;
}

// ---- alignment --------------------------------------------------------------------------------

KERNEL misaligned_load4(float* x) {
  const float4 v = load4(x + threadIdx.x);  // ! misaligned_load4
  x[0] = v.x;
}

KERNEL misaligned_cast(float* x, float* y) {
  const float4 v = *reinterpret_cast<const float4*>(x + threadIdx.x);  // ! misaligned_cast
  y[threadIdx.x] = v.x + v.w;
}

// ---- asynchronous copies ----------------------------------------------------------------------

KERNEL no_wait(const float* x, float* y) {
  __shared__ __align__(16) float s[64];
  cp_async_4(&s[threadIdx.x], &x[threadIdx.x]);  // !! no_wait
  cp_async_commit();
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];  // ! no_wait
}

KERNEL waits_for_the_wrong_group(const float* x, float* y, int n) {
  __shared__ __align__(16) float s[2][32];
  cp_async_4(&s[0][threadIdx.x], &x[threadIdx.x]);
  cp_async_commit();
  for (int i = 1; i < n; i++) {
    cp_async_4(&s[i % 2][threadIdx.x], &x[i * 32 + threadIdx.x]);  // !! waits_for_the_wrong_group
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    y[i * 32 + threadIdx.x] = s[i % 2][31 - threadIdx.x];  // ! waits_for_the_wrong_group
    __syncthreads();
  }
}

KERNEL wait_without_barrier(const float* x, float* y) {
  __shared__ __align__(16) float s[64];
  cp_async_4(&s[threadIdx.x], &x[threadIdx.x]);  // !! wait_without_barrier
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = s[63 - threadIdx.x];  // ! wait_without_barrier
}

KERNEL written_in_flight(const float* x, float* y) {
  __shared__ __align__(16) float s[32];
  cp_async_4(&s[threadIdx.x], &x[threadIdx.x]);  // !! written_in_flight
  cp_async_commit();
  s[threadIdx.x] = 0.0f;  // ! written_in_flight
  cp_async_wait<0>();
  y[threadIdx.x] = s[threadIdx.x];
}

KERNEL source_changed(float* x, float* y) {
  __shared__ __align__(16) float s[32];
  cp_async_4(&s[threadIdx.x], &x[threadIdx.x]);  // ! source_changed
  cp_async_commit();
  x[threadIdx.x] = 0.0f;  // !! source_changed
  cp_async_wait<0>();
  y[threadIdx.x] = s[threadIdx.x];
}

KERNEL copy_past_the_end(const float* x, float* y) {
  __shared__ __align__(16) float s[128];
  cp_async_16(&s[threadIdx.x * 4], &x[threadIdx.x * 4]);  // ! copy_past_the_end
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = s[threadIdx.x * 4];
}
