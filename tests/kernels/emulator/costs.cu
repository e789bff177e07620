// Kernels whose accesses cost a known number of wavefronts or sectors, each in the line marked `$`.
#include "../../../kernels/common.cuh"
#include "../../../kernels/ptx.cuh"

#define KERNEL extern "C" __global__ void

// A warp reads 4-byte words `stride` apart: from shared memory...
KERNEL shared_words(float* out, int stride) {
  __shared__ float s[32 * 33];
  for (int i = threadIdx.x; i < 32 * 33; i += 32) s[i] = i;
  __syncwarp();
  out[threadIdx.x] = s[threadIdx.x * stride];  // $ shared_words
}

// ...and from global memory, `offset` elements past a multiple of 256 bytes.
KERNEL global_words(const float* x, float* out, int stride, int offset) {
  out[threadIdx.x] = x[threadIdx.x * stride + offset];  // $ global_words
}

KERNEL shared_vectors(float* out, int stride) {
  __shared__ __align__(16) float s[32 * 8];
  for (int i = threadIdx.x; i < 32 * 8; i += 32) s[i] = i;
  __syncwarp();
  out[threadIdx.x] = load4(&s[threadIdx.x * stride]).x;  // $ shared_vectors
}

KERNEL shared_doubles(double* out) {
  __shared__ double s[64];
  s[threadIdx.x] = threadIdx.x;  // $ shared_doubles
  out[threadIdx.x] = 0.0;
}

KERNEL shared_bytes(float* out) {
  __shared__ unsigned char s[64];
  s[threadIdx.x] = 1;  // $ shared_bytes
  out[threadIdx.x] = 0.0f;
}

KERNEL global_vectors(const float* x, float* out) {
  out[threadIdx.x] = load4(x + threadIdx.x * 4).x;  // $ global_vectors
}

KERNEL global_bytes(const unsigned char* x, float* out) {
  out[threadIdx.x] = x[threadIdx.x];  // $ global_bytes
}

// Half of the lanes, in a loop whose turns each make a request.
KERNEL half_the_lanes(const float* x, float* out, int turns) {
  float sum = 0.0f;
  if (threadIdx.x % 2) {
    for (int i = 0; i < turns; i++) sum += x[i * 32 + threadIdx.x];  // $ half_the_lanes
  }
  out[threadIdx.x] = sum;
}

// Rows of 16 bytes, `pitch` bytes apart, as ldmatrix takes them.
KERNEL matrix_rows(unsigned* out, int pitch) {
  __shared__ __align__(16) unsigned char s[32 * 144];
  for (int i = threadIdx.x; i < 32 * 144 / 4; i += 32) reinterpret_cast<int*>(s)[i] = i;
  __syncwarp();
  unsigned part[4];
  ldmatrix_x4(part, s + threadIdx.x * pitch);  // $ matrix_rows
  out[threadIdx.x] = part[0];
}

// Both ends of an asynchronous copy.
KERNEL copies(const float* x, float* out, int pitch) {
  __shared__ __align__(16) float s[32 * 8];
  cp_async_16(&s[threadIdx.x * pitch], x + threadIdx.x * 4);  // $ copies
  cp_async_commit();
  cp_async_wait<0>();
  out[threadIdx.x] = s[threadIdx.x * pitch];
}

// Atomics are not counted; every warp of every block is.
KERNEL warps_and_blocks(float* x) {
  x[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;  // $ warps_and_blocks
  atomicAdd(x, 0.0f);
}
