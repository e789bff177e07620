// Pooling with four channels a thread.
//
// What changed since naive.cu, and why it helps: a thread takes four neighbouring channels, so that
// numbers move 128 bits at a time and offsets of one byte 32 at a time. That is a quarter of the
// loads and stores, and of the index arithmetic, for the same bytes; and each thread has four
// loads' worth on the way, which hides more of the memory's latency.
//
// Windows that do not overlap read each number once. Where they do, the windows that share a cell
// are neighbouring threads', and all but the first find it in the cache.
#include "vectors.cuh"
#include "windows.cuh"

// y[n,z,p,q,c], argmax = max and its offset over t,r,s of x[n,d,h,w,c].
extern "C" __global__ void pool3d_max_fprop_four_channels(const REAL* x, REAL* y,
                                                          Offset* argmax) {
  const Place window = place_in_y(4);
  if (window.n >= geometry.N) return;
  REAL best[4] = {};
  int at[4] = {-1, -1, -1, -1};
  visit_cells(window, [&](const Place& cell, int offset) {
    REAL values[4];
    load_four(x + at_x(cell), values);
#pragma unroll
    for (int c = 0; c < 4; c++) {
      if (at[c] >= 0 && !is_larger(values[c], best[c])) continue;
      best[c] = values[c];
      at[c] = offset;
    }
  });
  store_four(y + at_y(window), best);
  store_four(argmax + at_y(window), at);
}

// gx[n,d,h,w,c] = sum over the windows z,p,q whose maximum stood there of gy[n,z,p,q,c].
extern "C" __global__ void pool3d_max_dgrad_four_channels(const REAL* gy, const Offset* argmax,
                                                          REAL* gx) {
  const Place cell = place_in_x(4);
  if (cell.n >= geometry.N) return;
  REAL sums[4] = {};
  visit_windows(cell, [&](const Place& window, int offset) {
    int at[4];
    REAL values[4];
    load_four(argmax + at_y(window), at);
    load_four(gy + at_y(window), values);
#pragma unroll
    for (int c = 0; c < 4; c++) sums[c] += at[c] == offset ? values[c] : REAL(0);
  });
  store_four(gx + at_x(cell), sums);
}

// y[n,z,p,q,c] = x at argmax: four cells, each of one channel. The channels that share a sector
// are asked for in four loads, where naive.cu has one.
extern "C" __global__ void pool3d_max_gather_four_channels(const REAL* x, const Offset* argmax,
                                                           REAL* y) {
  const Place window = place_in_y(4);
  if (window.n >= geometry.N) return;
  int at[4];
  REAL values[4];
  load_four(argmax + at_y(window), at);
#pragma unroll
  for (int c = 0; c < 4; c++) values[c] = x[at_x(cell_at(window, at[c])) + c];
  store_four(y + at_y(window), values);
}

// y[n,z,p,q,c] = sum over t,r,s of x[n,d,h,w,c], divided.
extern "C" __global__ void pool3d_avg_fprop_four_channels(const REAL* x, REAL* y, REAL divisor,
                                                          int padding_counts) {
  const Place window = place_in_y(4);
  if (window.n >= geometry.N) return;
  REAL sums[4] = {};
  visit_cells(window, [&](const Place& cell, int) {
    REAL values[4];
    load_four(x + at_x(cell), values);
#pragma unroll
    for (int c = 0; c < 4; c++) sums[c] += values[c];
  });
  const REAL by = divisor_of(window, divisor, padding_counts);
#pragma unroll
  for (int c = 0; c < 4; c++) sums[c] /= by;
  store_four(y + at_y(window), sums);
}

// gx[n,d,h,w,c] = sum over the windows z,p,q that have the cell of gy[n,z,p,q,c], divided.
extern "C" __global__ void pool3d_avg_dgrad_four_channels(const REAL* gy, REAL* gx, REAL divisor,
                                                          int padding_counts) {
  const Place cell = place_in_x(4);
  if (cell.n >= geometry.N) return;
  REAL sums[4] = {};
  visit_windows(cell, [&](const Place& window, int) {
    REAL values[4];
    load_four(gy + at_y(window), values);
    const REAL by = divisor_of(window, divisor, padding_counts);
#pragma unroll
    for (int c = 0; c < 4; c++) sums[c] += values[c] / by;
  });
  store_four(gx + at_x(cell), sums);
}
