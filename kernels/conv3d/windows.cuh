// Which cells an output cell meets: the index arithmetic that the three passes share.
//
// fprop and wgrad look from y at x: output z meets in tap t the input d = z * stride + t * dilation
// - padding. dgrad looks from gx at gy, so it solves that for z, and only whole numbers count. For
// cells d with the same remainder by the stride, a phase, the same taps give whole numbers, and
// then z = origin + u - j * step for the u-th cell of the phase and the j-th of its taps: again a
// correlation, of stride 1. No product with a zero between strides is ever made.
#pragma once
#include "geometry.cuh"

struct Axis {
  int cells;                   // how many output cells there are (dgrad: in this phase)
  int first_cell, cell_step;   // the u-th of them is number first_cell + u * cell_step
  int size;                    // how many input cells there are
  int origin, origin_step;     // tap 0 of the u-th meets input cell origin + u * origin_step
  int taps, step;              // tap j meets the cell j * step further on
  int first_tap, tap_step;     // tap j is number first_tap + j * tap_step of the filter
};

struct Axes {
  Axis d, h, w;
  __device__ __forceinline__ int rows() const {
    return geometry.N * d.cells * h.cells * w.cells;
  }
  __device__ __forceinline__ int taps() const { return d.taps * h.taps * w.taps; }
};

__device__ __forceinline__ Axis fprop_axis(int size, int outputs, int taps, int stride,
                                           int padding, int dilation) {
  return {outputs, 0, 1, size, -padding, stride, taps, dilation, 0, 1};
}

__device__ __forceinline__ Axes fprop_axes() {
  const auto& g = geometry;
  return {fprop_axis(g.D, g.Z, g.T, g.stride_d, g.padding_d, g.dilation_d),
          fprop_axis(g.H, g.P, g.R, g.stride_h, g.padding_h, g.dilation_h),
          fprop_axis(g.W, g.Q, g.S, g.stride_w, g.padding_w, g.dilation_w)};
}

__device__ constexpr int greatest_common_divisor(int a, int b) {
  while (b != 0) {
    const int rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

__device__ __forceinline__ Axis dgrad_axis(int size, int outputs, int taps, int stride,
                                           int padding, int dilation, int phase) {
  const int common = greatest_common_divisor(stride, dilation);
  const int period = stride / common;  // every so many taps meet this phase
  int first = 0;
  while (first < period && (phase + padding - first * dilation) % stride != 0) first++;
  const bool met = first < period && first < taps;
  const int cells = phase < size ? (size - phase + stride - 1) / stride : 0;
  return {cells, phase, stride, outputs, (phase + padding - first * dilation) / stride, 1,
          met ? (taps - first + period - 1) / period : 0, -dilation / common, first, period};
}

// The phases of dgrad, of all three axes together, and one of them.
__device__ __forceinline__ int phases() {
  return geometry.stride_d * geometry.stride_h * geometry.stride_w;
}
__device__ __forceinline__ Axes dgrad_axes(int phase) {
  const auto& g = geometry;
  const int of_w = phase % g.stride_w, rest = phase / g.stride_w;
  const int of_h = rest % g.stride_h, of_d = rest / g.stride_h;
  return {dgrad_axis(g.D, g.Z, g.T, g.stride_d, g.padding_d, g.dilation_d, of_d),
          dgrad_axis(g.H, g.P, g.R, g.stride_h, g.padding_h, g.dilation_h, of_h),
          dgrad_axis(g.W, g.Q, g.S, g.stride_w, g.padding_w, g.dilation_w, of_w)};
}

// Where the window of an output cell begins: the cell that tap (0, 0, 0) meets, which may lie
// outside of the input, and its number in the order N D H W.
struct __align__(16) Place {
  int cell, d, h, w;
};

// Some output cell `row`, counted in the order N Z P Q of the axes' cells.
struct Row {
  int n, z, p, q;
};
__device__ __forceinline__ Row row_at(int row, const Axes& axes) {
  Row at;
  at.q = row % axes.w.cells;
  row /= axes.w.cells;
  at.p = row % axes.h.cells;
  row /= axes.h.cells;
  at.z = row % axes.d.cells;
  at.n = row / axes.d.cells;
  return at;
}

// Rows past the last have a window so far out that no tap meets a cell.
__device__ __forceinline__ Place place_of(int row, const Axes& axes) {
  if (row >= axes.rows()) return {0, -(1 << 30), 0, 0};
  const Row at = row_at(row, axes);
  const int d = axes.d.origin + at.z * axes.d.origin_step;
  const int h = axes.h.origin + at.p * axes.h.origin_step;
  const int w = axes.w.origin + at.q * axes.w.origin_step;
  return {((at.n * axes.d.size + d) * axes.h.size + h) * axes.w.size + w, d, h, w};
}

// The number of that output cell in the order of the whole array (for dgrad: N D H W).
__device__ __forceinline__ int cell_of(int row, const Axes& axes, int size_d, int size_h,
                                       int size_w) {
  const Row at = row_at(row, axes);
  const int d = axes.d.first_cell + at.z * axes.d.cell_step;
  const int h = axes.h.first_cell + at.p * axes.h.cell_step;
  const int w = axes.w.first_cell + at.q * axes.w.cell_step;
  return ((at.n * size_d + d) * size_h + h) * size_w + w;
}

// One tap: how far from a window's place its cell lies, and its number in the filter.
struct Tap {
  int cell, d, h, w;
  int filter;
};
__device__ __forceinline__ Tap tap_at(int t, int r, int s, const Axes& axes) {
  const int d = t * axes.d.step, h = r * axes.h.step, w = s * axes.w.step;
  const int of_t = axes.d.first_tap + t * axes.d.tap_step;
  const int of_r = axes.h.first_tap + r * axes.h.tap_step;
  const int of_s = axes.w.first_tap + s * axes.w.tap_step;
  return {(d * axes.h.size + h) * axes.w.size + w, d, h, w,
          (of_t * geometry.R + of_r) * geometry.S + of_s};
}
__device__ __forceinline__ bool meets(const Place& place, const Tap& tap, const Axes& axes) {
  return (unsigned(place.d + tap.d) < unsigned(axes.d.size)) &
         (unsigned(place.h + tap.h) < unsigned(axes.h.size)) &
         (unsigned(place.w + tap.w) < unsigned(axes.w.size));
}
