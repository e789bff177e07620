// Pooling by its formula: a thread for each element of the result, and a loop over what it takes.
//
// The first step, which the others are measured by. Channels lie side by side in memory, and
// neighbouring threads take neighbouring channels: a warp reads whole sectors. The backward passes
// are gathers: a cell asks the windows that have it, so that no two threads write to one place and
// sums have a fixed order.
#include "windows.cuh"

// y[n,z,p,q,c], argmax = max and its offset over t,r,s of x[n,d,h,w,c].
extern "C" __global__ void pool3d_max_fprop_naive(const REAL* x, REAL* y, Offset* argmax) {
  const Place window = place_in_y(1);
  if (window.n >= geometry.N) return;
  REAL best = 0;
  int at = -1;
  visit_cells(window, [&](const Place& cell, int offset) {
    const REAL value = x[at_x(cell)];
    if (at < 0 || is_larger(value, best)) {  // the first as it is: all may be -inf
      best = value;
      at = offset;
    }
  });
  y[at_y(window)] = best;
  argmax[at_y(window)] = Offset(at);
}

// gx[n,d,h,w,c] = sum over the windows z,p,q whose maximum stood there of gy[n,z,p,q,c].
extern "C" __global__ void pool3d_max_dgrad_naive(const REAL* gy, const Offset* argmax, REAL* gx) {
  const Place cell = place_in_x(1);
  if (cell.n >= geometry.N) return;
  REAL sum = 0;
  visit_windows(cell, [&](const Place& window, int offset) {
    if (argmax[at_y(window)] == offset) sum += gy[at_y(window)];
  });
  gx[at_x(cell)] = sum;
}

// y[n,z,p,q,c] = x at argmax.
extern "C" __global__ void pool3d_max_gather_naive(const REAL* x, const Offset* argmax, REAL* y) {
  const Place window = place_in_y(1);
  if (window.n >= geometry.N) return;
  y[at_y(window)] = x[at_x(cell_at(window, argmax[at_y(window)]))];
}

// y[n,z,p,q,c] = sum over t,r,s of x[n,d,h,w,c], divided.
extern "C" __global__ void pool3d_avg_fprop_naive(const REAL* x, REAL* y, REAL divisor,
                                                  int padding_counts) {
  const Place window = place_in_y(1);
  if (window.n >= geometry.N) return;
  REAL sum = 0;
  visit_cells(window, [&](const Place& cell, int) { sum += x[at_x(cell)]; });
  y[at_y(window)] = sum / divisor_of(window, divisor, padding_counts);
}

// gx[n,d,h,w,c] = sum over the windows z,p,q that have the cell of gy[n,z,p,q,c], divided.
extern "C" __global__ void pool3d_avg_dgrad_naive(const REAL* gy, REAL* gx, REAL divisor,
                                                  int padding_counts) {
  const Place cell = place_in_x(1);
  if (cell.n >= geometry.N) return;
  REAL sum = 0;
  visit_windows(cell, [&](const Place& window, int) {
    sum += gy[at_y(window)] / divisor_of(window, divisor, padding_counts);
  });
  gx[at_x(cell)] = sum;
}
