// Convolution from tiles in shared memory: neighbouring windows overlap, so a block fetches what
// its windows cover once, and its threads share it.
//
// What changed since naive.cu, and why it helps: a block works on a box of neighbouring cells, and
// brings the part of x under all their windows (the halo), and the part of w, into shared memory,
// some channels at a time. Each is read from global memory once for the whole block; a 3x3x3
// filter then reads it 27 times from shared memory, where that is cheap.
//
//     cells of y   . . . .        4 windows of 3 overlap:
//     under them  . . . . . .     6 cells of x instead of 12
#include "blocks.cuh"
#include "geometry.cuh"
#include "slices.cuh"
#include "sum.cuh"

constexpr int THREADS = 256;

struct Index {
  int d, h, w;
  __device__ __forceinline__ int product() const { return d * h * w; }
};

// `tiles` for any `count`.
__device__ __forceinline__ int divide_up(int count, int size) {
  return count > 0 ? tiles(count, size) : -(-count / size);
}

__device__ __forceinline__ Index size_x() { return {geometry.D, geometry.H, geometry.W}; }
__device__ __forceinline__ Index size_w() { return {geometry.T, geometry.R, geometry.S}; }
__device__ __forceinline__ Index size_y() { return {geometry.Z, geometry.P, geometry.Q}; }

// A box of cells of an array N D H W C, in shared memory with `channels` of its channels, those
// from `first` on. Cells and channels outside of the array are zero.
struct Patch {
  int n;
  Index origin, extent;

  __device__ __forceinline__ void load(REAL* to, int channels, const REAL* from, Index size,
                                       int all_channels, int first, int last) const {
    for (int i = threadIdx.x; i < extent.product() * channels; i += THREADS) {
      const int c = first + i % channels, w = i / channels % extent.w + origin.w;
      const int line = i / channels / extent.w;
      const int h = line % extent.h + origin.h, d = line / extent.h + origin.d;
      const bool inside = unsigned(d) < unsigned(size.d) && unsigned(h) < unsigned(size.h) &&
                          unsigned(w) < unsigned(size.w) && c < last;
      const long long cell = (((long long)n * size.d + d) * size.h + h) * size.w + w;
      to[i] = inside ? from[cell * all_channels + c] : REAL(0);
    }
  }
  // The place of a cell, counted from the origin.
  __device__ __forceinline__ int at(int d, int h, int w) const {
    return (d * extent.h + h) * extent.w + w;
  }
};

// An array of `size` cells falls into boxes of `box` cells; this is number `at`.
__device__ __forceinline__ Patch box_at(int at, Index box, Index size) {
  const int along_w = tiles(size.w, box.w), along_h = tiles(size.h, box.h);
  const int along_d = tiles(size.d, box.d), line = at / along_w, plane = line / along_h;
  return {plane / along_d,
          {plane % along_d * box.d, line % along_h * box.h, at % along_w * box.w},
          box};
}
__device__ __forceinline__ int boxes(Index box, Index size) {
  return geometry.N * tiles(size.d, box.d) * tiles(size.h, box.h) * tiles(size.w, box.w);
}

// What the windows of a box of y cover of x.
__device__ __forceinline__ Patch under(const Patch& box) {
  const auto& g = geometry;
  return {box.n,
          {box.origin.d * g.stride_d - g.padding_d, box.origin.h * g.stride_h - g.padding_h,
           box.origin.w * g.stride_w - g.padding_w},
          {(box.extent.d - 1) * g.stride_d + (g.T - 1) * g.dilation_d + 1,
           (box.extent.h - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1,
           (box.extent.w - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1}};
}

// The cells of y whose windows cover any of a box of x, along one axis: from `first`, so many.
struct Range {
  int first, count;
};
__device__ __forceinline__ Range meeting(int origin, int cells, int taps, int stride, int padding,
                                         int dilation) {
  const int reach = (taps - 1) * dilation;
  return {divide_up(origin + padding - reach, stride), (cells - 1 + reach) / stride + 1};
}
__device__ __forceinline__ Patch over(const Patch& box) {
  const auto& g = geometry;
  const Index from = box.origin, cells = box.extent;
  const Range d = meeting(from.d, cells.d, g.T, g.stride_d, g.padding_d, g.dilation_d);
  const Range h = meeting(from.h, cells.h, g.R, g.stride_h, g.padding_h, g.dilation_h);
  const Range w = meeting(from.w, cells.w, g.S, g.stride_w, g.padding_w, g.dilation_w);
  return {box.n, {d.first, h.first, w.first}, {d.count, h.count, w.count}};
}

// ---- fprop and dgrad: a block has 16 cells and 16 channels of the output, a thread one of each --

constexpr Index BOX = {2, 2, 4};
constexpr int CHANNELS = 16, PITCH = CHANNELS + 1;  // the odd pitch spreads a column over the banks

struct Outputs {
  Patch box;
  int group, first, channel;  // of the block's channels the first, and this thread's
  Index cell;                 // this thread's, counted from the box's origin
};
__device__ __forceinline__ Outputs outputs_at(Index size, int channels_of_group) {
  const int along = tiles(channels_of_group, CHANNELS), at = blockIdx.x / along;
  const int cell = threadIdx.x / CHANNELS, first = blockIdx.x % along * CHANNELS;
  return {box_at(at / geometry.groups, BOX, size),
          at % geometry.groups,
          first,
          first + int(threadIdx.x % CHANNELS),
          {cell / (BOX.h * BOX.w), cell / BOX.w % BOX.h, cell % BOX.w}};
}
// Where in the output this thread's element is, or -1.
__device__ __forceinline__ long long place_of(const Outputs& outputs, Index size, int channels) {
  const Index start = outputs.box.origin, cell = outputs.cell;
  const int d = start.d + cell.d, h = start.h + cell.h, w = start.w + cell.w;
  if (d >= size.d || h >= size.h || w >= size.w || outputs.channel >= channels) return -1;
  const long long number = (((long long)outputs.box.n * size.d + d) * size.h + h) * size.w + w;
  return number * channels * geometry.groups + outputs.group * channels + outputs.channel;
}

// `chunk` channels are summed over at a time: as many as shared memory holds.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    conv3d_fprop_tiled(const REAL* x, const REAL* w, const REAL* bias, int relu, REAL* y,
                       int chunk) {
  extern __shared__ REAL shared[];
  const Outputs outputs = outputs_at(size_y(), group_K());
  const Patch patch = under(outputs.box);
  const int C = group_C(), first_c = outputs.group * C, taps = size_w().product();
  REAL *halo = shared, *filters = shared + patch.extent.product() * chunk;
  Sum sum;
  for (int c = 0; c < C; c += chunk) {
    __syncthreads();  // others may still read the channels before
    patch.load(halo, chunk, x, size_x(), geometry.C, first_c + c, first_c + C);
    for (int i = threadIdx.x; i < CHANNELS * taps * chunk; i += THREADS) {
      const int k = outputs.first + i / (taps * chunk), tap = i / chunk % taps;
      const bool inside = k < group_K() && c + i % chunk < C;
      const long long row = (long long)(outputs.group * group_K() + k) * taps + tap;
      filters[i % (taps * chunk) * PITCH + i / (taps * chunk)] =
          inside ? w[row * C + c + i % chunk] : REAL(0);
    }
    __syncthreads();  // both parts have come in
    const REAL* filter = filters + threadIdx.x % CHANNELS;
    for (int t = 0; t < geometry.T; t++) {
      const int d = outputs.cell.d * geometry.stride_d + t * geometry.dilation_d;
      for (int r = 0; r < geometry.R; r++) {
        const int h = outputs.cell.h * geometry.stride_h + r * geometry.dilation_h;
        REAL part = 0;
        for (int s = 0; s < geometry.S; s++) {
          const int v = outputs.cell.w * geometry.stride_w + s * geometry.dilation_w;
          const REAL* cell = halo + patch.at(d, h, v) * chunk;
          for (int i = 0; i < chunk; i++, filter += PITCH) part += cell[i] * *filter;
        }
        sum.add(part);
      }
    }
  }
  const long long to = place_of(outputs, size_y(), group_K());
  const int k = outputs.group * group_K() + outputs.channel;
  if (to >= 0) y[to] = Finish{bias, relu != 0}(sum.value, k);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3)
    conv3d_dgrad_tiled(const REAL* gy, const REAL* w, REAL* gx, int chunk) {
  extern __shared__ REAL shared[];
  const auto& g = geometry;
  const Outputs outputs = outputs_at(size_x(), group_C());
  const Patch patch = over(outputs.box);
  const int K = group_K(), first_k = outputs.group * K, taps = size_w().product();
  const int d = outputs.box.origin.d + outputs.cell.d + g.padding_d;
  const int h = outputs.box.origin.h + outputs.cell.h + g.padding_h;
  const int v = outputs.box.origin.w + outputs.cell.w + g.padding_w;
  REAL *halo = shared, *filters = shared + patch.extent.product() * chunk;
  Sum sum;
  for (int k = 0; k < K; k += chunk) {
    __syncthreads();  // others may still read the channels before
    patch.load(halo, chunk, gy, size_y(), g.K, first_k + k, first_k + K);
    for (int i = threadIdx.x; i < chunk * taps * CHANNELS; i += THREADS) {
      const int c = outputs.first + i % CHANNELS, tap = i / CHANNELS % taps;
      const int of_chunk = i / CHANNELS / taps;
      const bool inside = c < group_C() && k + of_chunk < K;
      const long long row = (long long)(first_k + k + of_chunk) * taps + tap;
      filters[(tap * chunk + of_chunk) * PITCH + i % CHANNELS] =
          inside ? w[row * group_C() + c] : REAL(0);
    }
    __syncthreads();  // both parts have come in
    for (int t = 0; t < g.T; t++) {
      // Only where the stride divides it does a window of y meet this cell in this tap.
      const int from_d = d - t * g.dilation_d, z = from_d / g.stride_d - patch.origin.d;
      if (from_d % g.stride_d != 0) continue;
      for (int r = 0; r < g.R; r++) {
        const int from_h = h - r * g.dilation_h, p = from_h / g.stride_h - patch.origin.h;
        if (from_h % g.stride_h != 0) continue;
        REAL part = 0;
        for (int s = 0; s < g.S; s++) {
          const int from_w = v - s * g.dilation_w, q = from_w / g.stride_w - patch.origin.w;
          if (from_w % g.stride_w != 0) continue;
          const REAL* cell = halo + patch.at(z, p, q) * chunk;
          const REAL* filter =
              filters + ((t * g.R + r) * g.S + s) * chunk * PITCH + threadIdx.x % CHANNELS;
          for (int i = 0; i < chunk; i++) part += cell[i] * filter[i * PITCH];
        }
        sum.add(part);
      }
    }
  }
  const long long to = place_of(outputs, size_x(), group_C());
  if (to >= 0) gx[to] = sum.value;
}

// ---- wgrad: a block has 16 taps, 4 channels of x and 4 of gy, a thread one of each --------------

constexpr int OF_X = 4, OF_Y = 4, TAPS = THREADS / OF_X / OF_Y;

// The sum runs over boxes of y, `box` cells each; gw is one array for each slice of them.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    conv3d_wgrad_tiled(const REAL* gy, const REAL* x, REAL* gw, int box_d, int box_h,
                       int box_w) {
  extern __shared__ REAL shared[];
  const Index cells = {box_d, box_h, box_w};
  const auto& g = geometry;
  const int C = group_C(), K = group_K(), taps = size_w().product();
  const int along_c = tiles(C, OF_X), along_k = tiles(K, OF_Y), along_t = tiles(taps, TAPS);
  const int first_c = blockIdx.x % along_c * OF_X, after_c = blockIdx.x / along_c;
  const int first_k = after_c % along_k * OF_Y, after_k = after_c / along_k;
  const int first_tap = after_k % along_t * TAPS, after_t = after_k / along_t;
  const int group = after_t % g.groups, slice = after_t / g.groups;
  const int slices = gridDim.x / (unsigned(along_c) * along_k * along_t * g.groups);
  const int all = boxes(cells, size_y());
  const int begin = int((long long)all * slice / slices);
  const int end = int((long long)all * (slice + 1) / slices);

  const int c = threadIdx.x % OF_X, k = threadIdx.x / OF_X % OF_Y;
  const int tap = first_tap + threadIdx.x / (OF_X * OF_Y);
  const int t = tap / g.S / g.R * g.dilation_d, r = tap / g.S % g.R * g.dilation_h;
  const int s = tap % g.S * g.dilation_w;
  REAL *gradients = shared, *halo = shared + cells.product() * OF_Y;
  Sum sum;
  for (int number = begin; number < end; number++) {
    const Patch box = box_at(number, cells, size_y()), patch = under(box);
    __syncthreads();  // others may still read the box before
    box.load(gradients, OF_Y, gy, size_y(), g.K, group * K + first_k, group * K + K);
    patch.load(halo, OF_X, x, size_x(), g.C, group * C + first_c, group * C + C);
    __syncthreads();  // both parts have come in
    if (tap >= taps) continue;
    REAL part = 0;
    const REAL* gradient = gradients + k;
    for (int z = 0; z < cells.d; z++) {
      for (int p = 0; p < cells.h; p++) {
        for (int q = 0; q < cells.w; q++, gradient += OF_Y) {
          const int at = patch.at(z * g.stride_d + t, p * g.stride_h + r, q * g.stride_w + s);
          part += *gradient * halo[at * OF_X + c];
        }
      }
    }
    sum.add(part);
  }
  if (tap >= taps || first_c + c >= C || first_k + k >= K) return;
  const long long size = (long long)g.K * taps * C;
  const long long row = (long long)(group * K + first_k + k) * taps + tap;
  gw[slice * size + row * C + first_c + c] = sum.value;
}
