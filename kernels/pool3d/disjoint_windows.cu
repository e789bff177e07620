// Gradients of pooling whose windows do not overlap: a thread for each window.
//
// What changed since four_channels.cu, and why it helps: there a thread had a cell of x, and each
// of a window's cells read the window's gradient again. Here a thread has a window, reads its
// gradient (and argmax) once, and writes all its cells. It also writes the zeros of the cells
// around that no window has: x falls into boxes of one stride each, a window to a box.
#include "vectors.cuh"
#include "windows.cuh"

// The boxes along an axis: at the end there may be some without a window.
__device__ __forceinline__ int boxes(const Axis& axis) {
  return (axis.cells + axis.padding + axis.stride - 1) / axis.stride;
}
__device__ __forceinline__ Place box_of_thread() {
  return place_of_thread(boxes(axis_d()), boxes(axis_h()), boxes(axis_w()), 4);
}
__device__ __forceinline__ bool has_window(const Place& box) {
  return box.d < geometry.Z && box.h < geometry.P && box.w < geometry.Q;
}
// The tap that the i-th cell of a box is to its window, or -1.
__device__ __forceinline__ int tap_at(const Axis& axis, int i) {
  return i % axis.dilation == 0 && i / axis.dilation < axis.taps ? i / axis.dilation : -1;
}

// Calls visit(cell, offset) for the cells of x in a box; the offset is -1 where the window of the
// box, if it has one, does not have the cell.
template <class Visit> __device__ __forceinline__ void visit_box(const Place& box, Visit visit) {
  const Axis of_d = axis_d(), of_h = axis_h(), of_w = axis_w();
  for (int i = 0; i < of_d.stride; i++) {
    const int d = of_d.start(box.d) + i, t = tap_at(of_d, i);
    if (unsigned(d) >= unsigned(of_d.cells)) continue;
    for (int j = 0; j < of_h.stride; j++) {
      const int h = of_h.start(box.h) + j, r = tap_at(of_h, j);
      if (unsigned(h) >= unsigned(of_h.cells)) continue;
      for (int k = 0; k < of_w.stride; k++) {
        const int w = of_w.start(box.w) + k, s = tap_at(of_w, k);
        if (unsigned(w) >= unsigned(of_w.cells)) continue;
        const bool has = t >= 0 && r >= 0 && s >= 0;
        visit(Place{box.n, d, h, w, box.c}, has ? (t * of_h.taps + r) * of_w.taps + s : -1);
      }
    }
  }
}

// gx[n,d,h,w,c] = gy[n,z,p,q,c] of its window if the maximum stood there, else 0.
extern "C" __global__ void pool3d_max_dgrad_disjoint_windows(const REAL* gy, const Offset* argmax,
                                                             REAL* gx) {
  const Place box = box_of_thread();
  if (box.n >= geometry.N) return;
  int at[4] = {-2, -2, -2, -2};  // no offset, and not the -1 of a cell without a window
  REAL values[4] = {};
  if (has_window(box)) {
    load_four(argmax + at_y(box), at);
    load_four(gy + at_y(box), values);
  }
  visit_box(box, [&](const Place& cell, int offset) {
    REAL chosen[4];
#pragma unroll
    for (int c = 0; c < 4; c++) chosen[c] = at[c] == offset ? values[c] : REAL(0);
    store_four(gx + at_x(cell), chosen);
  });
}

// gx[n,d,h,w,c] = gy[n,z,p,q,c] of its window, divided.
extern "C" __global__ void pool3d_avg_dgrad_disjoint_windows(const REAL* gy, REAL* gx,
                                                             REAL divisor, int padding_counts) {
  const Place box = box_of_thread();
  if (box.n >= geometry.N) return;
  REAL shares[4] = {};
  if (has_window(box)) {
    load_four(gy + at_y(box), shares);
    const REAL by = divisor_of(box, divisor, padding_counts);
#pragma unroll
    for (int c = 0; c < 4; c++) shares[c] /= by;
  }
  visit_box(box, [&](const Place& cell, int offset) {
    REAL chosen[4];
#pragma unroll
    for (int c = 0; c < 4; c++) chosen[c] = offset >= 0 ? shares[c] : REAL(0);
    store_four(gx + at_x(cell), chosen);
  });
}
