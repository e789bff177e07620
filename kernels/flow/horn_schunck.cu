// Horn and Schunck's method: a thread for each pixel, a launch for each iteration.
//
// The one to learn from. Each pixel of the next flow is made of the neighbours in this one, by
// Jacobi's method: so a launch reads one array and writes another, and no thread waits for another.
// The numbers that the iterations do not change are worked out once, by the first kernel.
#include "pixels.cuh"

// linear[n] = four planes: the derivatives of the mean of both images along x and y, the change
// from the first to the second, and 1 / (alpha^2 + |gradient|^2).
extern "C" __global__ void flow_horn_schunck_linear(const REAL* first, const REAL* second,
                                                    REAL* linear, REAL alpha_squared, int H,
                                                    int W) {
  const Size size = {H, W};
  const Pixel pixel = pixel_of_thread();
  if (!size.has(pixel)) return;
  first += size.plane(pixel.image, 1, 0);
  second += size.plane(pixel.image, 1, 0);
  const auto mean = [&](int at) { return (first[at] + second[at]) / 2; };
  const REAL gx = derivative(size, pixel.y, pixel.x, 0, 1, mean);
  const REAL gy = derivative(size, pixel.y, pixel.x, 1, 0, mean);
  const int at = size.at(pixel.y, pixel.x);
  linear[size.plane(pixel.image, 4, 0) + at] = gx;
  linear[size.plane(pixel.image, 4, 1) + at] = gy;
  linear[size.plane(pixel.image, 4, 2) + at] = second[at] - first[at];
  linear[size.plane(pixel.image, 4, 3) + at] = 1 / (alpha_squared + gx * gx + gy * gy);
}

// The mean of the eight neighbours: those beside a pixel count 1/6, the others 1/12.
__device__ __forceinline__ REAL mean_around(const Size& size, const REAL* u, int y, int x) {
  const auto at = [&](int dy, int dx) { return u[size.nearest(y + dy, x + dx)]; };
  return (at(-1, 0) + at(1, 0) + at(0, -1) + at(0, 1)) / 6 +
         (at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)) / 12;
}

// One iteration: next = mean - gradient (gradient . mean + change) / (alpha^2 + |gradient|^2).
extern "C" __global__ void flow_horn_schunck_iterate(const REAL* u, const REAL* linear, REAL* next,
                                                     int H, int W) {
  const Size size = {H, W};
  const Pixel pixel = pixel_of_thread();
  if (!size.has(pixel)) return;
  const int at = size.at(pixel.y, pixel.x);
  const long long along_x = size.plane(pixel.image, 2, 0), along_y = size.plane(pixel.image, 2, 1);
  const REAL mean_x = mean_around(size, u + along_x, pixel.y, pixel.x);
  const REAL mean_y = mean_around(size, u + along_y, pixel.y, pixel.x);
  const REAL gx = linear[size.plane(pixel.image, 4, 0) + at];
  const REAL gy = linear[size.plane(pixel.image, 4, 1) + at];
  const REAL change = linear[size.plane(pixel.image, 4, 2) + at];
  const REAL pull =
      (gx * mean_x + gy * mean_y + change) * linear[size.plane(pixel.image, 4, 3) + at];
  next[along_x + at] = mean_x - gx * pull;
  next[along_y + at] = mean_y - gy * pull;
}
