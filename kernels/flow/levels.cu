// What TV-L1 does between its iterations, alike at every step of the ladder: a thread for a pixel.
#include "pixels.cuh"

// Every second pixel of a smoothed image: the next level of the pyramid.
extern "C" __global__ void flow_halve(const REAL* image, REAL* half, int H, int W) {
  const Size size = {H, W}, halved = {(H + 1) / 2, (W + 1) / 2};
  const Pixel pixel = pixel_of_thread();
  if (!halved.has(pixel)) return;
  image += size.plane(pixel.image, 1, 0);
  REAL sum = 0;
  for (int j = -SMOOTHING_RADIUS; j <= SMOOTHING_RADIUS; j++) {
    REAL row = 0;
#pragma unroll
    for (int i = -SMOOTHING_RADIUS; i <= SMOOTHING_RADIUS; i++) {
      row += smoothing_taps[i + SMOOTHING_RADIUS] *
             image[size.nearest(2 * pixel.y + j, 2 * pixel.x + i)];
    }
    sum += smoothing_taps[j + SMOOTHING_RADIUS] * row;
  }
  half[halved.plane(pixel.image, 1, 0) + halved.at(pixel.y, pixel.x)] = sum;
}

// A flow of (H + 1) / 2 by (W + 1) / 2 at H by W: pixel 2 x is what x was, those in between are
// interpolated, and displacements are twice as long. An image here is one of the flow's two planes.
extern "C" __global__ void flow_enlarge(const REAL* u, REAL* larger, int H, int W) {
  const Size size = {H, W}, halved = {(H + 1) / 2, (W + 1) / 2};
  const Pixel pixel = pixel_of_thread();
  if (!size.has(pixel)) return;
  u += halved.plane(pixel.image, 1, 0);
  const int y = pixel.y / 2, x = pixel.x / 2, below = y + pixel.y % 2, right = x + pixel.x % 2;
  const REAL here = (u[halved.at(y, x)] + u[halved.nearest(below, x)]) / 2;
  const REAL after = (u[halved.nearest(y, right)] + u[halved.nearest(below, right)]) / 2;
  larger[size.plane(pixel.image, 1, 0) + size.at(pixel.y, pixel.x)] = here + after;
}

// planes[n] = three planes: the image, and its derivatives along x and y.
extern "C" __global__ void flow_gradient(const REAL* image, REAL* planes, int H, int W) {
  const Size size = {H, W};
  const Pixel pixel = pixel_of_thread();
  if (!size.has(pixel)) return;
  image += size.plane(pixel.image, 1, 0);
  const auto value = [&](int at) { return image[at]; };
  const int at = size.at(pixel.y, pixel.x);
  planes[size.plane(pixel.image, 3, 0) + at] = image[at];
  planes[size.plane(pixel.image, 3, 1) + at] = derivative(size, pixel.y, pixel.x, 0, 1, value);
  planes[size.plane(pixel.image, 3, 2) + at] = derivative(size, pixel.y, pixel.x, 1, 0, value);
}

// The weights of the four neighbours of a point, t beyond the second (Keys 1981, a = -1/2).
__device__ __forceinline__ void cubic_weights(REAL t, REAL (&w)[4]) {
  w[0] = t * (t * (2 - t) - 1) / 2;
  w[1] = (t * t * (3 * t - 5) + 2) / 2;
  w[2] = t * (t * (4 - 3 * t) + 1) / 2;
  w[3] = t * t * (t - 1) / 2;
}

// linear[n] = four planes: rho where u is 0, the gradient along x and y, and 1 / |gradient|^2 (0
// where it is flat), all of the second image where the flow u points, by cubic convolution.
extern "C" __global__ void flow_linearise(const REAL* first, const REAL* planes, const REAL* u,
                                          REAL* linear, int H, int W) {
  const Size size = {H, W};
  const Pixel pixel = pixel_of_thread();
  if (!size.has(pixel)) return;
  const int at = size.at(pixel.y, pixel.x);
  const REAL ux = u[size.plane(pixel.image, 2, 0) + at], uy = u[size.plane(pixel.image, 2, 1) + at];
  // Whole pixels and fractions apart: in a wide image pixel.x + ux would round the fraction.
  const REAL whole_x = floor(ux), whole_y = floor(uy);
  const int left = pixel.x + int(whole_x), above = pixel.y + int(whole_y);
  REAL wx[4], wy[4], found[3] = {};
  cubic_weights(ux - whole_x, wx);
  cubic_weights(uy - whole_y, wy);
#pragma unroll
  for (int j = 0; j < 4; j++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int from = size.nearest(above - 1 + j, left - 1 + i);
      const REAL w = wy[j] * wx[i];
#pragma unroll
      for (int k = 0; k < 3; k++) found[k] += w * planes[size.plane(pixel.image, 3, k) + from];
    }
  }
  const REAL gx = found[1], gy = found[2], square = gx * gx + gy * gy;
  const REAL seen = first[size.plane(pixel.image, 1, 0) + at];
  linear[size.plane(pixel.image, 4, 0) + at] = found[0] - gx * ux - gy * uy - seen;
  linear[size.plane(pixel.image, 4, 1) + at] = gx;
  linear[size.plane(pixel.image, 4, 2) + at] = gy;
  linear[size.plane(pixel.image, 4, 3) + at] = square > REAL(1e-10) ? 1 / square : REAL(0);
}

// ---- the median of nine -------------------------------------------------------------------------

__device__ __forceinline__ void sort(REAL& a, REAL& b) {
  const REAL low = min(a, b);
  b = max(a, b);
  a = low;
}
__device__ __forceinline__ void sort(REAL& a, REAL& b, REAL& c) {
  sort(a, b);
  sort(b, c);
  sort(a, b);
}

// The median of each 3x3 neighbourhood: of the largest of the columns' least, the middle of their
// middles, and the least of their largest. An image here is one of the flow's two planes.
extern "C" __global__ void flow_median(const REAL* u, REAL* filtered, int H, int W) {
  const Size size = {H, W};
  const Pixel pixel = pixel_of_thread();
  if (!size.has(pixel)) return;
  u += size.plane(pixel.image, 1, 0);
  REAL low[3], middle[3], high[3];
#pragma unroll
  for (int i = 0; i < 3; i++) {
    low[i] = u[size.nearest(pixel.y - 1, pixel.x - 1 + i)];
    middle[i] = u[size.nearest(pixel.y, pixel.x - 1 + i)];
    high[i] = u[size.nearest(pixel.y + 1, pixel.x - 1 + i)];
    sort(low[i], middle[i], high[i]);
  }
  sort(middle[0], middle[1], middle[2]);
  REAL a = max(max(low[0], low[1]), low[2]), b = middle[1];
  REAL c = min(min(high[0], high[1]), high[2]);
  sort(a, b, c);
  filtered[size.plane(pixel.image, 1, 0) + size.at(pixel.y, pixel.x)] = b;
}
