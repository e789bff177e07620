// The two halves of an iteration of TV-L1, of one pixel, as every step of the ladder computes them.
#pragma once
#include "pixels.cuh"

// What does not change from one iteration to the next.
struct Constants {
  REAL limit;  // lambda theta, the longest step of the data term in units of the gradient
  REAL theta;
  REAL rate;   // tau / theta
};
// The numbers of a pixel that flow_linearise has found.
struct Linear {
  REAL constant, gx, gy, inverse;
};

// How far along the gradient the data term pulls: to where rho is 0, but not beyond the limit.
__device__ __forceinline__ REAL step_of(const Linear& l, REAL ux, REAL uy, const Constants& by) {
  const REAL rho = l.constant + l.gx * ux + l.gy * uy;
  return max(-by.limit, min(by.limit, -rho * l.inverse));
}
// u + step * gradient + theta div (p, q), with p of the pixel to the left and q of the one above.
__device__ __forceinline__ REAL primal(REAL u, REAL step, REAL g, REAL p, REAL left, REAL q,
                                       REAL above, const Constants& by) {
  return u + step * g + by.theta * (p - left + q - above);
}
// (p, q) = ((p, q) + tau/theta grad u) / (1 + tau/theta |grad u|).
__device__ __forceinline__ void dual(REAL right, REAL down, REAL& p, REAL& q,
                                     const Constants& by) {
  const REAL scale = 1 / (1 + by.rate * sqrt(right * right + down * down));
  p = (p + by.rate * right) * scale;
  q = (q + by.rate * down) * scale;
}
