// Which cells of x a window has, and which windows a cell of x is in, axis by axis.
//
// Window z has in tap t the cell d = z * stride + t * dilation - padding, where that is inside.
#pragma once
#include "geometry.cuh"

struct Axis {
  int cells, windows, taps, stride, padding, dilation;

  // How far it is from a window's first tap to its last.
  __device__ __forceinline__ int reach() const { return (taps - 1) * dilation; }
  // The cell of a window's first tap, which may lie in the padding.
  __device__ __forceinline__ int start(int window) const { return window * stride - padding; }
  // Does a window have this cell? No question where no window reaches out of x.
  __device__ __forceinline__ bool inside(int cell) const {
    const bool all = padding == 0 && (windows - 1) * stride + reach() < cells;
    return all || unsigned(cell) < unsigned(cells);
  }
  // The windows that may have a cell: from the first to before the end. With a dilation they step
  // over some cells, and then `tap_of` is -1.
  __device__ __forceinline__ int first_window(int cell) const {
    const int from = cell + padding - reach();
    return from <= 0 ? 0 : (from + stride - 1) / stride;
  }
  __device__ __forceinline__ int end_window(int cell) const {
    return min(windows, (cell + padding) / stride + 1);
  }
  __device__ __forceinline__ int tap_of(int cell, int window) const {
    const int from = cell - start(window);
    return from % dilation == 0 ? from / dilation : -1;
  }
  // The cells that a mean divides by. What overhangs beyond the padding never counts.
  __device__ __forceinline__ int count(int window, bool padding_counts) const {
    const int from = start(window);
    if (padding_counts) return min(from + taps, cells + padding) - from;
    return min(from + taps, cells) - max(from, 0);
  }
};

__device__ __forceinline__ Axis axis_d() {
  const auto& g = geometry;
  return {g.D, g.Z, g.T, g.stride_d, g.padding_d, g.dilation_d};
}
__device__ __forceinline__ Axis axis_h() {
  const auto& g = geometry;
  return {g.H, g.P, g.R, g.stride_h, g.padding_h, g.dilation_h};
}
__device__ __forceinline__ Axis axis_w() {
  const auto& g = geometry;
  return {g.W, g.Q, g.S, g.stride_w, g.padding_w, g.dilation_w};
}

// A channel of a cell of x, or of a window.
struct Place {
  int n, d, h, w, c;
};

// Calls visit(cell of x, offset in the window) for the cells inside of a window, in their order.
template <class Visit>
__device__ __forceinline__ void visit_cells(const Place& window, Visit visit) {
  const Axis of_d = axis_d(), of_h = axis_h(), of_w = axis_w();
  for (int t = 0; t < of_d.taps; t++) {
    const int d = of_d.start(window.d) + t * of_d.dilation;
    if (!of_d.inside(d)) continue;
    for (int r = 0; r < of_h.taps; r++) {
      const int h = of_h.start(window.h) + r * of_h.dilation;
      if (!of_h.inside(h)) continue;
      for (int s = 0; s < of_w.taps; s++) {
        const int w = of_w.start(window.w) + s * of_w.dilation;
        if (of_w.inside(w)) {
          visit(Place{window.n, d, h, w, window.c}, (t * of_h.taps + r) * of_w.taps + s);
        }
      }
    }
  }
}
// The cell of x at an offset in a window.
__device__ __forceinline__ Place cell_at(const Place& window, int offset) {
  const int t = offset / geometry.S / geometry.R, r = offset / geometry.S % geometry.R;
  const int s = offset % geometry.S;
  return {window.n, axis_d().start(window.d) + t * geometry.dilation_d,
          axis_h().start(window.h) + r * geometry.dilation_h,
          axis_w().start(window.w) + s * geometry.dilation_w, window.c};
}

// Calls visit(window, offset of the cell in it) for the windows that have a cell, in their order.
template <class Visit>
__device__ __forceinline__ void visit_windows(const Place& cell, Visit visit) {
  const Axis of_d = axis_d(), of_h = axis_h(), of_w = axis_w();
  for (int z = of_d.first_window(cell.d); z < of_d.end_window(cell.d); z++) {
    const int t = of_d.tap_of(cell.d, z);
    if (t < 0) continue;
    for (int p = of_h.first_window(cell.h); p < of_h.end_window(cell.h); p++) {
      const int r = of_h.tap_of(cell.h, p);
      if (r < 0) continue;
      for (int q = of_w.first_window(cell.w); q < of_w.end_window(cell.w); q++) {
        const int s = of_w.tap_of(cell.w, q);
        if (s < 0) continue;
        visit(Place{cell.n, z, p, q, cell.c}, (t * of_h.taps + r) * of_w.taps + s);
      }
    }
  }
}

// What the sum over a window is divided by: the divisor given, or where that is 0, its cells.
__device__ __forceinline__ REAL divisor_of(const Place& window, REAL given, int padding_counts) {
  if (given != REAL(0)) return given;
  return REAL(axis_d().count(window.d, padding_counts != 0)) *
         REAL(axis_h().count(window.h, padding_counts != 0)) *
         REAL(axis_w().count(window.w, padding_counts != 0));
}

// ---- memory --------------------------------------------------------------------------------------

// Takes the last index off a flat one: `of` is the size of that axis.
__device__ __forceinline__ int last_index(long long& flat, int of) {
  const int index = int(flat % of);
  flat /= of;
  return index;
}
// What this thread has, of an array of so many cells: `channels` channels from the c-th on. Beyond
// the last cell, n is N or more.
__device__ __forceinline__ Place place_of_thread(int size_d, int size_h, int size_w,
                                                 int channels) {
  long long rest = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  Place place;
  place.c = last_index(rest, geometry.C / channels) * channels;
  place.w = last_index(rest, size_w);
  place.h = last_index(rest, size_h);
  place.d = last_index(rest, size_d);
  place.n = int(rest);
  return place;
}
__device__ __forceinline__ Place place_in_x(int channels) {
  return place_of_thread(geometry.D, geometry.H, geometry.W, channels);
}
__device__ __forceinline__ Place place_in_y(int channels) {
  return place_of_thread(geometry.Z, geometry.P, geometry.Q, channels);
}

// Where a place is in memory.
__device__ __forceinline__ long long at_x(const Place& at) {
  const auto& g = geometry;
  return ((((long long)at.n * g.D + at.d) * g.H + at.h) * g.W + at.w) * g.C + at.c;
}
__device__ __forceinline__ long long at_y(const Place& at) {
  const auto& g = geometry;
  return ((((long long)at.n * g.Z + at.d) * g.P + at.h) * g.Q + at.w) * g.C + at.c;
}

// The first of equal maxima wins; NaN beats every number, and the last NaN every other.
__device__ __forceinline__ bool is_larger(REAL cell, REAL best) {
  return cell > best || cell != cell;
}
