// Right kernels that a careless checker would find fault with.
#include "../../../kernels/common.cuh"
#include "../../../kernels/ptx.cuh"

#define KERNEL extern "C" __global__ void

// The last warp goes on alone, ordered by __syncwarp; the block need not be whole warps.
KERNEL block_sum(const float* x, float* sums) {
  __shared__ float s[256];
  const int i = threadIdx.x;
  s[i] = i < blockDim.x ? x[blockIdx.x * blockDim.x + i] : 0.0f;
  if (i + blockDim.x < 256) s[i + blockDim.x] = 0.0f;  // blocks of at least 128 threads
  __syncthreads();
  for (int step = 128; step >= 32; step /= 2) {
    if (i < step) s[i] += s[i + step];
    __syncthreads();
  }
  if (i >= 32) return;
  for (int step = 16; step > 0; step /= 2) {
    const float other = i < step ? s[i + step] : 0.0f;
    __syncwarp();
    if (i < step) s[i] += other;
    __syncwarp();
  }
  if (i == 0) sums[blockIdx.x] = s[0];
}

// Parts of a warp meet by themselves, then all of it.
KERNEL halves_meet(float* x) {
  __shared__ float s[32];
  const unsigned half = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  s[threadIdx.x] = x[threadIdx.x];
  __syncwarp(half);
  const float neighbour = s[threadIdx.x ^ 1];
  __syncwarp(half);
  s[threadIdx.x] = neighbour;
  __syncwarp();
  x[threadIdx.x] = s[threadIdx.x ^ 16];
}

// Votes, matches and sums go by the lanes that are left; a shuffle may ask one of these.
KERNEL those_that_are_left(int* x) {
  const int lane = threadIdx.x;
  if (lane >= 20) return;
  const unsigned all = 0xffffffffu;
  int right = __ballot_sync(all, 1) == 0x000fffffu;
  right += __all_sync(all, lane < 20) + !__any_sync(all, lane >= 20);
  right += __popc(__match_any_sync(all, lane / 10)) == 10;
  right += __reduce_add_sync(all, lane) == 190;
  right += __shfl_sync(all, lane, 19 - lane) == 19 - lane;
  x[lane] = right;
}

// Pairs meet, then fours: what a lane learns from its pair it passes on.
KERNEL pairs_then_fours(float* x) {
  __shared__ float s[32];
  const int lane = threadIdx.x;
  s[lane] = x[lane];
  __syncwarp(3u << (lane & ~1));
  const float pair = s[lane ^ 1];
  __syncwarp(15u << (lane & ~3));
  x[lane] = pair + s[lane ^ 2] + s[lane ^ 3];
}

// Two stages of asynchronous copies; a partial last tile is padded with zeros.
KERNEL pipeline(const float* x, float* y, int n) {
  __shared__ __align__(16) float s[2][256];
  const int tiles = (n + 255) / 256, i = threadIdx.x * 4;
  auto load = [&](int tile) {
    const int at = tile * 256 + i;
    cp_async_16(&s[tile % 2][i], x + (at < n ? at : 0), at < n);
    cp_async_commit();
  };
  load(0);
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      load(tile + 1);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();  // every thread has waited for its part of the tile
    for (int j = 0; j < 4; j++) {
      const int at = tile * 256 + 255 - (i + j);
      if (at < n) y[at] = s[tile % 2][255 - (i + j)];
    }
    __syncthreads();  // the tile has been read before the next copy into it
  }
}

// A sum split over blocks, in two launches.
KERNEL split(const float* x, float* parts, int n) {
  float sum = 0.0f;
  for (int i = blockIdx.x; i < n; i += gridDim.x) sum += x[i];
  parts[blockIdx.x] = sum;
}
KERNEL join(const float* parts, float* y, int count) {
  float sum = 0.0f;
  for (int i = 0; i < count; i++) sum += parts[i];
  *y = sum;
}

// The same in one launch: the last block to finish adds up.
__device__ unsigned finished;
KERNEL last_block(const float* x, float* parts, float* sum) {
  __shared__ float s[64];
  __shared__ bool last;
  s[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  __syncthreads();
  parts[blockIdx.x * 64 + threadIdx.x] = s[63 - threadIdx.x];
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(&finished, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  float total = 0.0f;
  for (int i = threadIdx.x; i < gridDim.x * 64; i += 64) total += parts[i];
  sum[threadIdx.x] = total;
  if (threadIdx.x == 0) finished = 0;
}

KERNEL histogram(const int* x, int* counts, int n) {
  __shared__ int s[10];
  if (threadIdx.x < 10) s[threadIdx.x] = 0;
  __syncthreads();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&s[x[i]], 1);
  __syncthreads();
  if (threadIdx.x < 10) atomicAdd(&counts[threadIdx.x], s[threadIdx.x]);
}

// Blocks exchange through global memory, again and again.
KERNEL exchange(unsigned* arrivals, float* x, int rounds) {
  const int mine = blockIdx.x * blockDim.x + threadIdx.x, count = gridDim.x * blockDim.x;
  for (int i = 0; i < rounds; i++) {
    const float next = x[(mine + 40) % count];
    grid_sync(arrivals);  // all have read
    x[mine] = next;
    grid_sync(arrivals);  // all have written
  }
}

// Neighbours write neighbouring bytes, and halves of a word, and later read whole words.
KERNEL small_elements(unsigned char* x, unsigned short* h, unsigned* sums) {
  __shared__ __align__(4) unsigned char bytes[64];
  __shared__ __align__(4) unsigned short halves[64];
  bytes[threadIdx.x] = x[threadIdx.x];
  halves[threadIdx.x] = h[threadIdx.x];
  __syncthreads();
  if (threadIdx.x < 16) {
    sums[threadIdx.x] = reinterpret_cast<unsigned*>(bytes)[threadIdx.x] +
                        reinterpret_cast<unsigned*>(halves)[threadIdx.x];
  }
  __syncthreads();
  bytes[63 - threadIdx.x] = halves[threadIdx.x] & 0xff;
  x[63 - threadIdx.x] = bytes[63 - threadIdx.x];
  h[threadIdx.x] = 7;
}

// Local arrays are each thread's own, however they are indexed; constants may be read by all.
__constant__ int order[8];
__device__ const float weights[4] = {1.0f, 2.0f, 4.0f, 8.0f};
KERNEL local_arrays(const int* x, float* y) {
  float local[8];
  for (int i = 0; i < 8; i++) local[order[i]] = x[threadIdx.x * 8 + i];
  float sum = 0.0f;
  for (int i = 0; i < 8; i++) sum += local[7 - i] * weights[i % 4];
  y[threadIdx.x] = sum;
}

// Everybody reads a flag that one thread may set, both as volatile.
KERNEL volatile_flag(volatile int* flag, int* seen) {
  if (threadIdx.x == 0) *flag = 1;
  seen[blockIdx.x * blockDim.x + threadIdx.x] = *flag >= 0;
}

// Threads that have nothing to do leave before any barrier, whole blocks at a time.
KERNEL idle_blocks(float* x, int blocks) {
  __shared__ float s[48];
  if (blockIdx.x >= blocks) return;
  s[threadIdx.x] = x[blockIdx.x * 48 + threadIdx.x];
  __syncthreads();
  x[blockIdx.x * 48 + threadIdx.x] = s[47 - threadIdx.x];
}

// Dynamic shared memory, carved into two arrays.
KERNEL carved(float* x, int n) {
  extern __shared__ __align__(16) unsigned char memory[];
  float* first = reinterpret_cast<float*>(memory);
  double* second = reinterpret_cast<double*>(memory + n * sizeof(float));
  first[threadIdx.x] = x[threadIdx.x];
  second[threadIdx.x] = 2.0 * x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = first[n - 1 - threadIdx.x] + static_cast<float>(second[threadIdx.x ^ 1]);
}

// A tile for the tensor cores: written by all, read by rows, between barriers.
KERNEL tile_rows(unsigned* out) {
  __shared__ __align__(16) unsigned tile[8][4];
  for (int i = 0; i < 2; i++) {
    tile[threadIdx.x / 4][threadIdx.x % 4] = threadIdx.x + i;
    __syncwarp();
    unsigned part;
    ldmatrix_x1(&part, tile[threadIdx.x % 8]);
    __syncwarp();
    out[threadIdx.x] = part;
  }
}

// ---- a program of random accesses, read from a table --------------------------------------------
// A step of the table is, for all threads, an access to one word (`does`: 0 none, 1 read, 2 write),
// or a meeting: of the block (kind 1), of the warp (2), or of the parts of the warp given by a mask
// (3).
KERNEL random_program(const int* kinds, const unsigned* masks, const int* does, int steps,
                      float* global_word, int in_shared, float* out) {
  __shared__ float shared_word;
  if (threadIdx.x == 0) shared_word = 0.0f;
  __syncthreads();
  const int count = gridDim.x * blockDim.x, me = blockIdx.x * blockDim.x + threadIdx.x;
  float seen = 0.0f;
  for (int i = 0; i < steps; i++) {
    float* word = in_shared ? &shared_word : global_word;
    const int access = does[i * count + me];
    const unsigned mask = masks[i];
    if (kinds[i] == 1) __syncthreads();
    if (kinds[i] == 2) __syncwarp();
    if (kinds[i] == 3) __syncwarp(mask >> threadIdx.x % 32 & 1 ? mask : ~mask);
    if (kinds[i] != 0) continue;
    if (access == 1) seen += *word;
    if (access == 2) *word = seen;
  }
  out[me] = seen;
}
