// Kernels that each use one thing the emulator offers; test_features.py has what they should give.
#include "../../../kernels/common.cuh"
#include "../../../kernels/ptx.cuh"

#define ALL 0xffffffffu

// ---- grids, blocks, memory --------------------------------------------------------------------

extern "C" __global__ void indices(int* out) {
  int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  int threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] = 1000000 * threadIdx.z + 100000 * threadIdx.y +
                                  1000 * threadIdx.x + 100 * blockIdx.z + 10 * blockIdx.y +
                                  blockIdx.x;
}

// Turns a 16 x 16 tile through shared memory, static and dynamic at once.
extern "C" __global__ void transpose(const float* x, float* y, int width) {
  __shared__ float tile[16][17];
  extern __shared__ float offsets[];
  int column = blockIdx.x * 16 + threadIdx.x, row = blockIdx.y * 16 + threadIdx.y;
  tile[threadIdx.y][threadIdx.x] = x[row * width + column];
  if (threadIdx.y == 0) offsets[threadIdx.x] = 1000.0f * threadIdx.x;
  __syncthreads();  // the tile is complete
  int to = (blockIdx.x * 16 + threadIdx.y) * width + blockIdx.y * 16 + threadIdx.x;
  y[to] = tile[threadIdx.x][threadIdx.y] + offsets[threadIdx.x];
}

// Every fourth element of a shared array, never written in this block, though the last one was.
extern "C" __global__ void unwritten(float* out) {
  __shared__ float s[32];
  if (threadIdx.x % 4) s[threadIdx.x] = 1.0f;
  out[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x];
  s[threadIdx.x] = 2.0f;
}

struct Sizes {
  int n;
  double factor;
};
__constant__ Sizes sizes;
__constant__ float weights[3] = {1, 2, 3};
__device__ unsigned long long total = 5;

extern "C" __global__ void variables(double* out) {
  if (threadIdx.x < sizes.n) out[threadIdx.x] = sizes.factor * weights[threadIdx.x];
  atomicAdd(&total, 2);
}

template <class T, int N>
__global__ void scale(T* x, T factor, int n) {
  __shared__ T last;
  int first = (blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (threadIdx.x == 0) last = factor;
  __syncthreads();  // the factor is there
#pragma unroll
  for (int i = 0; i < N; i++)
    if (first + i < n) x[first + i] *= last;
}

extern "C" __global__ void vectors(const float* x, const double* xd, float* y, double* yd) {
  int i = threadIdx.x;
  float4 four = load4(x + 4 * i);
  float2 two = load2(x + 2 * i);
  store4(y + 4 * i, make_float4(four.w, four.z, four.y, four.x));
  store2(y + 4 * blockDim.x + 2 * i, make_float2(two.y, two.x));
  Double4 wide = load4(xd + 4 * i);
  store4(yd + 4 * i, Double4{wide.w, wide.z, wide.y, wide.x});
  double2 pair = load2(xd + 2 * i);
  store2(yd + 4 * blockDim.x + 2 * i, make_double2(pair.y, pair.x));
}

extern "C" __global__ void layouts(int* out) {
  int i = 0;
#define LAYOUT(T) out[i++] = sizeof(T), out[i++] = alignof(T);
  LAYOUT(char4) LAYOUT(uchar4) LAYOUT(short2) LAYOUT(ushort4) LAYOUT(int2) LAYOUT(int3)
  LAYOUT(int4) LAYOUT(uint2) LAYOUT(uint4) LAYOUT(float1) LAYOUT(float2) LAYOUT(float3)
  LAYOUT(float4) LAYOUT(double2) LAYOUT(longlong2) LAYOUT(dim3)
}

// ---- warps ------------------------------------------------------------------------------------

extern "C" __global__ void shuffles(const int* x, int* out) {
  int lane = threadIdx.x, v = x[lane];
  out[0 * 32 + lane] = __shfl_sync(ALL, v, 5);
  out[1 * 32 + lane] = __shfl_sync(ALL, v, 3, 8);
  out[2 * 32 + lane] = __shfl_up_sync(ALL, v, 2);
  out[3 * 32 + lane] = __shfl_up_sync(ALL, v, 3, 16);
  out[4 * 32 + lane] = __shfl_down_sync(ALL, v, 1);
  out[5 * 32 + lane] = __shfl_down_sync(ALL, v, 2, 4);
  out[6 * 32 + lane] = __shfl_xor_sync(ALL, v, 21);
  out[7 * 32 + lane] = __shfl_xor_sync(ALL, v, 3, 8);
  out[8 * 32 + lane] = static_cast<int>(__shfl_xor_sync(ALL, 0.5 * v, 1) * 2);
  // Two halves that go apart, each with its own mask.
  unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  int sum = v;
  if (lane < 16) {
    for (int d = 8; d; d /= 2) sum += __shfl_xor_sync(half, sum, d);
  } else {
    __syncwarp(half);
    for (int d = 8; d; d /= 2) sum -= __shfl_xor_sync(half, sum, d);
  }
  out[9 * 32 + lane] = sum;
}

extern "C" __global__ void votes(const int* x, unsigned* out) {
  int lane = threadIdx.x, v = x[lane];
  out[0 * 32 + lane] = __ballot_sync(ALL, v % 2);
  out[1 * 32 + lane] = __any_sync(ALL, v == 7);
  out[2 * 32 + lane] = __all_sync(ALL, v < 100);
  out[3 * 32 + lane] = __all_sync(ALL, v == 7);
  out[4 * 32 + lane] = __match_any_sync(ALL, v % 5);
  int same;
  out[5 * 32 + lane] = __match_all_sync(ALL, v % 5, &same) + same;
  out[6 * 32 + lane] = __match_all_sync(ALL, 0 * v, &same) + same;
  out[7 * 32 + lane] = __reduce_add_sync(ALL, v);
  out[8 * 32 + lane] = __reduce_max_sync(ALL, v) * 1000 + __reduce_min_sync(ALL, v);
  out[9 * 32 + lane] = __reduce_xor_sync(ALL, static_cast<unsigned>(v));
  unsigned few = 0;
  if (lane % 3 == 0) {
    few = __activemask();
    few = __ballot_sync(few, v % 2);
  }
  out[10 * 32 + lane] = few;
  out[11 * 32 + lane] = __ballot_sync(ALL, 1);
}

// The lanes past the end leave; those that stay do without them. Blocks may be short of a warp.
extern "C" __global__ void leavers(unsigned* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = __ballot_sync(ALL, 1);
}

extern "C" __global__ void predicates(const int* x, int* out) {
  int v = x[threadIdx.x];
  out[3 * threadIdx.x] = __syncthreads_count(v > 10);
  out[3 * threadIdx.x + 1] = __syncthreads_and(v > 10);
  out[3 * threadIdx.x + 2] = __syncthreads_or(v > 10);
}

// ---- atomics ----------------------------------------------------------------------------------

extern "C" __global__ void atomics(int* i, unsigned* u, unsigned long long* l, float* f,
                                   double* d) {
  int n = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&i[0], n), atomicSub(&i[1], n), atomicMin(&i[2], -n), atomicMax(&i[3], n);
  atomicExch(&i[4], 7), atomicCAS(&i[5], 0, 9), atomicAnd(&i[6], ~n), atomicOr(&i[7], n);
  atomicXor(&i[8], n);
  atomicInc(&u[0], 9), atomicDec(&u[1], 9), atomicMax(&u[2], n), atomicAdd(&u[3], 1);
  atomicAdd(&l[0], 1ull << 33), atomicMax(&l[1], n), atomicOr(&l[2], 1ull << n % 64);
  atomicAdd(&f[0], 0.5f), atomicExch(&f[1], 3.0f);
  atomicAdd(&d[0], 0.25);
  // What was there before: each thread gets another ticket.
  atomicAdd(&u[4 + atomicAdd(&u[3 + 256 + 1], 1)], 1);
}

// ---- asynchronous copies ----------------------------------------------------------------------

// Sums the rows of x (rows x 128): while a row is summed, the next one is on its way.
extern "C" __global__ void pipeline(const float* x, float* out, int rows) {
  __shared__ __align__(16) float stage[2][128];
  const int i = threadIdx.x * 4;
  float sum[4] = {};
  cp_async_16(&stage[0][i], x + i);
  cp_async_commit();
  for (int row = 0; row < rows; row++) {
    bool more = row + 1 < rows;
    cp_async_16(&stage[(row + 1) % 2][i], more ? x + (row + 1) * 128 + i : x, more);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();  // the row has landed, for all
    for (int k = 0; k < 4; k++) sum[k] += stage[row % 2][(i + k * 4) % 128];
    __syncthreads();  // all have read the row that the next copy writes over
  }
  cp_async_wait<0>();
  __syncthreads();  // the last copies, of zeros, have landed
  for (int k = 0; k < 4; k++) sum[k] += stage[rows % 2][i];
  for (int k = 0; k < 4; k++) out[i + k] = sum[k];
}

extern "C" __global__ void impatient(const float* x, float* out) {
  __shared__ float s[32];
  __shared__ __align__(8) double t[32];
  cp_async_4(&s[threadIdx.x], x + threadIdx.x);
  cp_async_commit();
  out[threadIdx.x] = s[threadIdx.x];  // too early
  cp_async_wait<0>();
  out[32 + threadIdx.x] = s[threadIdx.x];
  cp_async_8(&t[threadIdx.x], t, false);  // of zeros, so any source will do
  cp_async_commit();
  cp_async_wait<0>();
  out[64 + threadIdx.x] = static_cast<float>(t[threadIdx.x]);
}

// ---- tensor cores -----------------------------------------------------------------------------

extern "C" __global__ void matrices(const unsigned short* x, unsigned* out) {
  __shared__ __align__(16) unsigned short s[4][8][8];
  int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) (&s[0][0][0])[i] = x[i];
  __syncwarp();
  const void* row = &s[lane / 8][lane % 8][0];
  unsigned d[4];
  unsigned* to = out + lane * 14;
  ldmatrix_x4(d, row);
  for (int i = 0; i < 4; i++) *to++ = d[i];
  ldmatrix_x4_trans(d, row);
  for (int i = 0; i < 4; i++) *to++ = d[i];
  ldmatrix_x2(d, lane < 16 ? row : nullptr);
  for (int i = 0; i < 2; i++) *to++ = d[i];
  ldmatrix_x2_trans(d, lane < 16 ? row : nullptr);
  for (int i = 0; i < 2; i++) *to++ = d[i];
  ldmatrix_x1(d, row);
  *to++ = d[0];
  ldmatrix_x1_trans(d, row);
  *to++ = d[0];
}

// D += A B, with A 16 x 8 or 16 x 16 and B 8 x 8 or 16 x 8, by the layouts of the PTX manual.
extern "C" __global__ void product_tf32(const float* A, const float* B, float* D) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned a[4], b[2];
  float d[4];
  for (int r = 0; r < 4; r++) a[r] = to_tf32(A[(g + r % 2 * 8) * 8 + t + r / 2 * 4]);
  for (int r = 0; r < 2; r++) b[r] = to_tf32(B[(t + r * 4) * 8 + g]);
  for (int r = 0; r < 4; r++) d[r] = D[(g + r / 2 * 8) * 8 + t * 2 + r % 2];
  mma_tf32_16x8x8(d, a, b);
  for (int r = 0; r < 4; r++) D[(g + r / 2 * 8) * 8 + t * 2 + r % 2] = d[r];
}
template <bool BF16>
__global__ void product_16(const float* A, const float* B, float* D) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned a[4], b[2];
  float d[4];
  for (int r = 0; r < 4; r++) {
    const float* p = A + (g + r % 2 * 8) * 16 + t * 2 + r / 2 * 8;
    a[r] = BF16 ? pack_bf16x2(p[0], p[1]) : pack_f16x2(p[0], p[1]);
  }
  for (int r = 0; r < 2; r++) {
    const float* p = B + (t * 2 + r * 8) * 8 + g;
    b[r] = BF16 ? pack_bf16x2(p[0], p[8]) : pack_f16x2(p[0], p[8]);
  }
  for (int r = 0; r < 4; r++) d[r] = D[(g + r / 2 * 8) * 8 + t * 2 + r % 2];
  if (BF16)
    mma_bf16_16x8x16(d, a, b);
  else
    mma_f16_16x8x16(d, a, b);
  for (int r = 0; r < 4; r++) D[(g + r / 2 * 8) * 8 + t * 2 + r % 2] = d[r];
}
extern "C" __global__ void roundings(const float* x, unsigned* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = to_tf32(x[i]);
  out[n + i] = pack_bf16x2(x[i], 1.0f);
  out[2 * n + i] = pack_f16x2(1.0f, x[i]);
}

// ---- the whole grid ---------------------------------------------------------------------------

// Each block adds up what all have written, twice over: needs every block to arrive.
extern "C" __global__ void grid_sums(unsigned* arrivals, int* partial, int* out) {
  __shared__ int mine;
  if (threadIdx.x == 0) mine = 10 * blockIdx.x;
  __syncthreads();  // `mine` is set; each block has its own
  if (threadIdx.x == 1) partial[blockIdx.x] = mine + 1;
  grid_sync(arrivals);
  int sum = 0;
  for (int i = 0; i < gridDim.x; i++) sum += partial[i];
  grid_sync(arrivals);  // all have read the first round
  if (threadIdx.x == 0) partial[blockIdx.x] = sum + mine;
  grid_sync(arrivals);
  for (int i = 0; i < gridDim.x; i++) sum += partial[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// Long enough for several OS threads to take part: repeated prefix sums in shared memory.
extern "C" __global__ void busy(int* out, int rounds) {
  __shared__ int s[64];
  s[threadIdx.x] = blockIdx.x;
  for (int i = 0; i < rounds; i++) {
    __syncthreads();  // s is written
    int next = s[(threadIdx.x + 1) % 64] + 1;
    __syncthreads();  // s is read
    s[threadIdx.x] = next;
  }
  out[blockIdx.x * 64 + threadIdx.x] = s[threadIdx.x];
}

// ---- arithmetic -------------------------------------------------------------------------------

extern "C" __global__ void integers(const unsigned* x, const unsigned* y, unsigned* out, int n) {
  int i = threadIdx.x;
  unsigned a = x[i], b = y[i];
  int k = 0;
#define PUT(value) out[k++ * n + i] = static_cast<unsigned>(value);
  PUT(__popc(a)) PUT(__clz(a)) PUT(__ffs(a)) PUT(__brev(a)) PUT(__umulhi(a, b))
  PUT(__mulhi(int(a), int(b))) PUT(__byte_perm(a, b, 0x5410)) PUT(__funnelshift_l(a, b, 7))
  PUT(min(a, b)) PUT(max(int(a), int(b))) PUT(__popcll((unsigned long long)a << 32 | b))
  PUT(__float_as_uint(__uint_as_float(a & 0x7f7fffffu))) PUT(__umul24(a, b))
}

extern "C" __global__ void floats(const float* x, float* out, int n) {
  int i = threadIdx.x;
  float a = x[i];
  int k = 0;
#define PUTF(value) out[k++ * n + i] = value;
  PUTF(rsqrtf(a)) PUTF(__expf(a)) PUTF(__logf(a)) PUTF(fmaf(a, a, 1.0f)) PUTF(__fmaf_rn(a, a, a))
  PUTF(min(a, 1.5f)) PUTF(max(a, nanf(""))) PUTF(__saturatef(a)) PUTF(__fdividef(1.0f, a))
  PUTF(__float2int_rn(a)) PUTF(__float2int_rz(-a)) PUTF(sqrtf(a)) PUTF(tanhf(a)) PUTF(__ldg(x + i))
  PUTF(__fadd_rn(__fmul_rn(a, a), -1.0f))
}
