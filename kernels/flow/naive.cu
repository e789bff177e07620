// The iterations of TV-L1 by their formulas: a thread for each pixel, two launches an iteration.
//
// The first step of the ladder, which the other is measured by. The first launch writes u, and
// reads p of the pixels to the left and above; the second writes p, and reads u of those to the
// right and below. Neither writes what another thread reads, so both work in place. Everything
// passes through global memory: 12 numbers a pixel in the first launch, 10 in the second.
#include "tvl1.cuh"

// u of both axes, from p: N 2 2 H W, of each of u's planes along x and y.
extern "C" __global__ void flow_primal_naive(REAL* u, const REAL* p, const REAL* linear, REAL limit,
                                             REAL theta, int H, int W) {
  const Size size = {H, W};
  const Pixel pixel = pixel_of_thread();
  if (!size.has(pixel)) return;
  const int n = pixel.image, at = size.at(pixel.y, pixel.x);
  const Constants by = {limit, theta, 0};
  const Linear l = {linear[size.plane(n, 4, 0) + at], linear[size.plane(n, 4, 1) + at],
                    linear[size.plane(n, 4, 2) + at], linear[size.plane(n, 4, 3) + at]};
  REAL& ux = u[size.plane(n, 2, 0) + at];
  REAL& uy = u[size.plane(n, 2, 1) + at];
  const REAL step = step_of(l, ux, uy, by);
  const auto before = [&](int i, int back) { return p[size.plane(n, 4, i) + at - back]; };
  const bool has_left = pixel.x > 0, has_above = pixel.y > 0;
  ux = primal(ux, step, l.gx, before(0, 0), has_left ? before(0, 1) : REAL(0), before(1, 0),
              has_above ? before(1, W) : REAL(0), by);
  uy = primal(uy, step, l.gy, before(2, 0), has_left ? before(2, 1) : REAL(0), before(3, 0),
              has_above ? before(3, W) : REAL(0), by);
}

// p, from u. An image here is one of the flow's two planes.
extern "C" __global__ void flow_dual_naive(const REAL* u, REAL* p, REAL rate, int H, int W) {
  const Size size = {H, W};
  const Pixel pixel = pixel_of_thread();
  if (!size.has(pixel)) return;
  const int at = size.at(pixel.y, pixel.x);
  u += size.plane(pixel.image, 1, 0);
  const REAL here = u[at];
  const REAL right = pixel.x + 1 < W ? u[at + 1] - here : REAL(0);
  const REAL down = pixel.y + 1 < H ? u[at + W] - here : REAL(0);
  dual(right, down, p[size.plane(pixel.image, 2, 0) + at], p[size.plane(pixel.image, 2, 1) + at],
       {0, 0, rate});
}
