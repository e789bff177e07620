// Kernels with known properties, for the tests of what is said of compiled kernels.

#define GLOBAL extern "C" __global__ void

// ---- registers -------------------------------------------------------------------------------

// 96 sums that all live through the loop: they fit into 255 registers, but not into 32.
#define MANY_SUMS                                                     \
  float sums[96];                                                     \
  for (int i = 0; i < 96; i++) sums[i] = x[i];                        \
  for (int k = 0; k < n; k++) {                                       \
    const float v = x[96 + k];                                        \
    for (int i = 0; i < 96; i++) sums[i] = sums[i] * v + x[k * 96 + i]; \
  }                                                                   \
  for (int i = 0; i < 96; i++) y[i * 1024 + threadIdx.x] = sums[i];

GLOBAL __launch_bounds__(128) many_registers(const float* x, float* y, int n) { MANY_SUMS }
GLOBAL __launch_bounds__(1024, 2) spilled(const float* x, float* y, int n) { MANY_SUMS }

// An array indexed by a variable lies in local memory, but is no spill.
GLOBAL __launch_bounds__(128) indexed(const int* at, float* y, int n) {
  float table[64];
  for (int i = 0; i < 64; i++) table[i] = y[i];
  for (int k = 0; k < n; k++) table[at[k] % 64] += 1;
  y[threadIdx.x] = table[at[n] % 64];
}

GLOBAL shared_memory(float* y) {
  __shared__ float tile[8][128];
  tile[threadIdx.y][threadIdx.x] = y[threadIdx.x];
  __syncthreads();  // every thread has written its cell
  y[threadIdx.x] = tile[threadIdx.x % 8][threadIdx.x / 8];
}

// ---- divisions -------------------------------------------------------------------------------

GLOBAL divided_32(const int* x, int* y, int n) {
  int sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) {
    sum += x[i] / x[i + n];  // the division
  }
  y[threadIdx.x] = sum;
}
GLOBAL remainder_32(const unsigned* x, unsigned* y, int n) {
  unsigned sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) sum += x[i] % x[i + n];
  y[threadIdx.x] = sum;
}
GLOBAL divided_64(const long long* x, long long* y, int n) {
  long long sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) sum += x[i] / x[i + n];
  y[threadIdx.x] = sum;
}
GLOBAL divided_by_constant(const int* x, int* y, int n) {
  int sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) sum += x[i] / 7 + x[i] % 1000;
  y[threadIdx.x] = sum;
}
GLOBAL divided_floats(const float* x, float* y, int n) {
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) sum += x[i] / x[i + n] + i;  // converts an integer, too
  y[threadIdx.x] = sum;
}
GLOBAL divided_before(const int* x, float* y, int n) {
  const int first = x[0] / x[1];  // not in the loop
  float sum = 0;
#pragma unroll 1
  for (int i = first; i < n; i++) sum = sum * y[i] + y[i + n];
  y[threadIdx.x] = sum;
}

// ---- widths of loads -------------------------------------------------------------------------

template <class Vector> __device__ __forceinline__ float total(Vector v);
template <> __device__ __forceinline__ float total(float v) { return v; }
template <> __device__ __forceinline__ float total(float2 v) { return v.x * v.y; }
template <> __device__ __forceinline__ float total(float4 v) { return v.x * v.y + v.z * v.w; }
template <> __device__ __forceinline__ float total(unsigned char v) { return v; }

template <class Vector> __device__ __forceinline__ void load(const Vector* x, float* y, int n) {
  float sum = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += 256) sum += total(x[i]);
  y[threadIdx.x] = sum;
}
GLOBAL loads_8(const unsigned char* x, float* y, int n) { load(x, y, n); }
GLOBAL loads_32(const float* x, float* y, int n) { load(x, y, n); }
GLOBAL loads_64(const float2* x, float* y, int n) { load(x, y, n); }
GLOBAL loads_128(const float4* x, float* y, int n) { load(x, y, n); }

// ---- loops -----------------------------------------------------------------------------------

// Eight multiply-adds in the inner loop, and one in the loop around it.
GLOBAL nested(const float* x, float* y, int n) {
  float outer = 0, inner = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) {
#pragma unroll 1
    for (int j = 0; j < n; j += 8) {
#pragma unroll
      for (int k = 0; k < 8; k++) inner = inner * y[k] + x[j + k];
    }
    outer = outer * inner + x[i];
  }
  y[threadIdx.x] = outer;
}
// Sixteen in the loop, and a small loop of copies inside it that multiplies nothing.
GLOBAL around_copies(const float* x, float* y, int n) {
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i += 16) {
#pragma unroll 1
    for (int j = 0; j < n; j++) y[i * n + j] = x[j];
    __syncthreads();  // the copies are there
#pragma unroll
    for (int k = 0; k < 16; k++) sum = sum * y[i + k] + x[i + k];
  }
  y[threadIdx.x] = sum;
}
// The compiler makes an unrolled loop and one for the rest.
GLOBAL with_remainder(const float* x, float* y, int n) {
  float sum = 0;
#pragma unroll 8
  for (int i = 0; i < n; i++) sum = sum * y[i] + x[i];
  y[threadIdx.x] = sum;
}
GLOBAL branching(const float* x, float* y, int n) {
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) {
    if (x[i] < 0) continue;
    if (x[i] > 5) {
      sum = __sinf(sum) * y[i];
      if (sum < 1) break;
    }
    sum = sum * y[i] + x[i];
  }
  y[threadIdx.x] = sum;
}
GLOBAL straight(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] * y[0] + 1; }

// ---- asynchronous copies ---------------------------------------------------------------------

__device__ __forceinline__ void copy_16(void* to, const void* from) {
  const unsigned shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ float multiply(const float* stage, float sum) {
#pragma unroll
  for (int k = 0; k < 16; k++) sum = sum * stage[k] + stage[k + 16];
  return sum;
}

// Waits for what it has just asked for: nothing is done meanwhile.
GLOBAL one_stage(const float4* x, float* y, int n) {
  __shared__ float4 stages[2][256];
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) {
    copy_16(&stages[0][threadIdx.x], x + i * 256 + threadIdx.x);
    commit();
    wait<0>();
    __syncthreads();  // the stage has landed
    sum = multiply(&stages[0][0].x, sum);
    __syncthreads();  // all are done with the stage
  }
  y[threadIdx.x] = sum;
}
// Asks for the next stage, works on this one, then waits for all.
GLOBAL two_stages(const float4* x, float* y, int n) {
  __shared__ float4 stages[2][256];
  float sum = 0;
  copy_16(&stages[0][threadIdx.x], x + threadIdx.x);
  commit();
#pragma unroll 1
  for (int i = 0; i < n; i++) {
    wait<0>();
    __syncthreads();  // this stage has landed, and all are done with the other
    copy_16(&stages[(i + 1) % 2][threadIdx.x], x + (i + 1) * 256 + threadIdx.x);
    commit();
    sum = multiply(&stages[i % 2][0].x, sum);
  }
  y[threadIdx.x] = sum;
}
// Two more are on their way while one is worked on.
GLOBAL three_stages(const float4* x, float* y, int n) {
  __shared__ float4 stages[4][256];
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; i++) {
    copy_16(&stages[i % 4][threadIdx.x], x + i * 256 + threadIdx.x);
    commit();
    wait<2>();
    __syncthreads();  // the stage of two rounds ago has landed
    sum = multiply(&stages[(i + 2) % 4][0].x, sum);
  }
  y[threadIdx.x] = sum;
}

// ---- tensor cores ----------------------------------------------------------------------------

#define PRODUCT(LOAD)                                                                          \
  __shared__ __align__(16) unsigned tile[32][4];                                               \
  float sum[4] = {};                                                                           \
  _Pragma("unroll 1") for (int i = 0; i < n; i++) {                                            \
    tile[threadIdx.x][i % 4] = x[i * 32 + threadIdx.x];                                        \
    __syncwarp();                                                                              \
    unsigned a[4];                                                                             \
    LOAD;                                                                                      \
    asm volatile(                                                                              \
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "                                 \
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"                                   \
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                               \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[0]), "r"(a[1]));                   \
  }                                                                                            \
  for (int i = 0; i < 4; i++) y[threadIdx.x * 4 + i] = sum[i];

GLOBAL __launch_bounds__(32) product_by_words(const unsigned* x, float* y, int n) {
  PRODUCT(for (int k = 0; k < 4; k++) a[k] = tile[(threadIdx.x + k) % 32][k])
}
GLOBAL __launch_bounds__(32) product_by_matrices(const unsigned* x, float* y, int n) {
  PRODUCT(asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                       : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                       : "r"(static_cast<unsigned>(__cvta_generic_to_shared(tile[threadIdx.x])))))
}

// ---- templates -------------------------------------------------------------------------------

template <class Real, int N> __global__ void __launch_bounds__(64) scaled(Real* x, Real a) {
#pragma unroll
  for (int i = 0; i < N; i++) x[threadIdx.x * N + i] *= a;
}
