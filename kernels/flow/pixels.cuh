// What the kernels of optical flow share: the pixel of a thread, and how its neighbours are read.
//
// Images are planes in memory, N C H W: neighbouring threads take neighbouring pixels of a row, and
// blockIdx.z counts images.
#pragma once
#include "../real.cuh"

struct Pixel {
  int image, y, x;
};

__device__ __forceinline__ Pixel pixel_of_thread() {
  return {int(blockIdx.z), int(blockIdx.y * blockDim.y + threadIdx.y),
          int(blockIdx.x * blockDim.x + threadIdx.x)};
}

struct Size {
  int H, W;

  __device__ __forceinline__ bool has(const Pixel& pixel) const {
    return pixel.y < H && pixel.x < W;
  }
  // Where plane i begins, of an array with so many planes for each image.
  __device__ __forceinline__ long long plane(int image, int planes, int i) const {
    return ((long long)image * planes + i) * H * W;
  }
  __device__ __forceinline__ int at(int y, int x) const { return y * W + x; }
  // The same, where pixels beyond the border are those at the border.
  __device__ __forceinline__ int nearest(int y, int x) const {
    return at(min(max(y, 0), H - 1), min(max(x, 0), W - 1));
  }
};

// ---- weighted sums of neighbours ----------------------------------------------------------------
// DERIVATIVE and SMOOTHING are lists of an odd number of weights. The launcher gives those of
// pyramid.py; these shorter ones let the files compile alone, for profilers and other tools.
#ifndef DERIVATIVE
#define DERIVATIVE -0.5, 0, 0.5
#endif
#ifndef SMOOTHING
#define SMOOTHING 0.25, 0.5, 0.25
#endif
__device__ constexpr REAL derivative_taps[] = {DERIVATIVE};
__device__ constexpr REAL smoothing_taps[] = {SMOOTHING};
constexpr int DERIVATIVE_RADIUS = sizeof(derivative_taps) / sizeof(REAL) / 2;
constexpr int SMOOTHING_RADIUS = sizeof(smoothing_taps) / sizeof(REAL) / 2;

// The derivative along x (dx = 1, dy = 0) or y of what `value(index)` is.
template <class Value>
__device__ __forceinline__ REAL derivative(const Size& size, int y, int x, int dy, int dx,
                                           Value value) {
  REAL sum = 0;
#pragma unroll
  for (int i = -DERIVATIVE_RADIUS; i <= DERIVATIVE_RADIUS; i++) {
    if (i == 0) continue;  // its weight is 0
    sum += derivative_taps[i + DERIVATIVE_RADIUS] * value(size.nearest(y + i * dy, x + i * dx));
  }
  return sum;
}
