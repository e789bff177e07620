// Kernels whose results tell who went first, one where nobody can, a plain one to check, and some
// that never end.

// Without the barrier that belongs here, a warp reads what the other may not have written.
extern "C" __global__ void who_is_first(float* out) {
  __shared__ float s[2];
  int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) {
    s[warp] = warp;
    out[2 * blockIdx.x + warp] = s[1 - warp];
  }
}

extern "C" __global__ void blocks_in_order(int* order) {
  order[blockIdx.x] = atomicAdd(&order[4], 1);
}

extern "C" __global__ void halves(const float* never_written, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = never_written[i] / 2;
}

// A shuffle in each warp, and a turn of the block: in any order the same.
extern "C" __global__ void meets_in_both_ways(const float* x, float* y) {
  __shared__ float s[70];
  const int i = threadIdx.x;
  s[i] = __shfl_xor_sync(0xffffffffu, x[blockIdx.x * 70 + i], i < 64 ? 21 : 1);
  __syncthreads();  // s is written
  y[blockIdx.x * 70 + i] = s[69 - i];
}

// ---- what never ends ---------------------------------------------------------------------------

// The first block takes long enough for the others to be handed to other OS threads.
extern "C" __global__ void spins(volatile float* x) {
  for (int i = 0; i < 100000 && blockIdx.x == 0; i++) x[2] = x[3];  // stop: spins, at first
  if (threadIdx.x == 0 && blockIdx.x > 0)
    while (x[1] == 0) x[2] = x[1];  // stop: spins
  if (blockIdx.x > 0) x[1] = 1;
}
extern "C" __global__ void spins_alone(volatile float* x) {
  if (threadIdx.x < 40) __syncthreads();  // wait: spins_alone
  while (x[1] == 0) x[2] = x[1];  // stop: spins_alone
}
extern "C" __global__ void meets_for_ever(volatile float* x) {
  while (true) {      // stop: meets_for_ever
    __syncthreads();  // stop: meets_for_ever
    x[2] = x[1];      // stop: meets_for_ever
  }
}
