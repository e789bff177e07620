// The transforms of Winograd's F(2x2x2, 3x3x3), and the tiles that they are applied to.
//
// Along one axis, two outputs of a filter of three taps take four products instead of six
// (Winograd, "Arithmetic Complexity of Computations", 1980):
//
//    y0 = d0 g0 + d1 g1 + d2 g2      m0 = (d0 - d2) g0
//    y1 = d1 g0 + d2 g1 + d3 g2      m1 = (d1 + d2) (g0 + g1 + g2) / 2      y0 = m0 + m1 + m2
//                                    m2 = (d2 - d1) (g0 - g1 + g2) / 2      y1 = m1 - m2 - m3
//                                    m3 = (d1 - d3) g2
//
// or, with three matrices and an element-wise product, y = A^T [(G g) . (B^T d)]:
//
//           1  0 -1  0               1    0    0
//    B^T =  0  1  1  0        G =   1/2  1/2  1/2        A^T =  1  1  1  0
//           0 -1  1  0              1/2 -1/2  1/2               0  1 -1 -1
//           0  1  0 -1               0    0    1
//
// In three dimensions each matrix is applied along w, h and d in turn (Lavin and Gray, "Fast
// Algorithms for Convolutional Neural Networks", CVPR 2016). What is linear in g has for gradient
// the transposed matrices the other way: gg = G^T [(A gy) . (B^T d)].
#pragma once
#include "geometry.cuh"
#include "product.cuh"

constexpr int FREQUENCIES = 64, TRANSFORM_THREADS = 128;

// ---- the transforms along one axis -------------------------------------------------------------

struct OfInput {  // B^T
  static constexpr int FROM = 4, TO = 4;
  static __device__ __forceinline__ void apply(const REAL (&d)[4], REAL (&v)[4]) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[1] - d[3];
  }
};
struct OfFilter {  // G
  static constexpr int FROM = 3, TO = 4;
  static __device__ __forceinline__ void apply(const REAL (&g)[3], REAL (&u)[4]) {
    const REAL outer = (g[0] + g[2]) / 2, middle = g[1] / 2;
    u[0] = g[0];
    u[1] = outer + middle;
    u[2] = outer - middle;
    u[3] = g[2];
  }
};
struct OfProducts {  // A^T
  static constexpr int FROM = 4, TO = 2;
  static __device__ __forceinline__ void apply(const REAL (&m)[4], REAL (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
};
struct OfOutputGradient {  // A
  static constexpr int FROM = 2, TO = 4;
  static __device__ __forceinline__ void apply(const REAL (&gy)[2], REAL (&gm)[4]) {
    gm[0] = gy[0];
    gm[1] = gy[0] + gy[1];
    gm[2] = gy[0] - gy[1];
    gm[3] = -gy[1];
  }
};
struct OfFilterProducts {  // G^T
  static constexpr int FROM = 4, TO = 3;
  static __device__ __forceinline__ void apply(const REAL (&gu)[4], REAL (&gw)[3]) {
    const REAL sum = (gu[1] + gu[2]) / 2;
    gw[0] = gu[0] + sum;
    gw[1] = (gu[1] - gu[2]) / 2;
    gw[2] = sum + gu[3];
  }
};

// A transform along w, then h, then d. All in registers: every loop is unrolled.
template <class Axis, int F = Axis::FROM, int T = Axis::TO>
__device__ __forceinline__ void transform(const REAL (&in)[F][F][F], REAL (&out)[T][T][T]) {
  REAL after_w[F][F][T], after_h[F][T][T], from[F], to[T];
#pragma unroll
  for (int d = 0; d < F; d++) {
#pragma unroll
    for (int h = 0; h < F; h++) Axis::apply(in[d][h], after_w[d][h]);
#pragma unroll
    for (int w = 0; w < T; w++) {
#pragma unroll
      for (int h = 0; h < F; h++) from[h] = after_w[d][h][w];
      Axis::apply(from, to);
#pragma unroll
      for (int h = 0; h < T; h++) after_h[d][h][w] = to[h];
    }
  }
#pragma unroll
  for (int h = 0; h < T; h++) {
#pragma unroll
    for (int w = 0; w < T; w++) {
#pragma unroll
      for (int d = 0; d < F; d++) from[d] = after_h[d][h][w];
      Axis::apply(from, to);
#pragma unroll
      for (int d = 0; d < T; d++) out[d][h][w] = to[d];
    }
  }
}

// Calls `each(element, d, h, w)` for all elements of a cube; every loop is unrolled.
template <int E, class Each>
__device__ __forceinline__ void for_cube(REAL (&cube)[E][E][E], Each each) {
#pragma unroll
  for (int d = 0; d < E; d++) {
#pragma unroll
    for (int h = 0; h < E; h++) {
#pragma unroll
      for (int w = 0; w < E; w++) each(cube[d][h][w], d, h, w);
    }
  }
}

// ---- where a tile lies -------------------------------------------------------------------------

// One axis of the correlation that a pass is: output z meets the inputs z + origin + 0, 1, 2.
struct Span {
  int outputs, inputs, origin;
  __device__ __forceinline__ int tiles_along() const { return tiles(outputs, 2); }
};
struct Spans {
  Span d, h, w;
};
template <bool FPROP> __device__ __forceinline__ Spans spans() {
  const auto& g = geometry;
  if (FPROP) return {{g.Z, g.D, -g.padding_d}, {g.P, g.H, -g.padding_h}, {g.Q, g.W, -g.padding_w}};
  return {{g.D, g.Z, g.padding_d - 2}, {g.H, g.P, g.padding_h - 2}, {g.W, g.Q, g.padding_w - 2}};
}

struct Cell {
  int n, d, h, w;
};
// The first of a tile's eight outputs.
__device__ __forceinline__ Cell first_output(int tile, const Spans& of) {
  Cell cell;
  cell.w = tile % of.w.tiles_along() * 2;
  tile /= of.w.tiles_along();
  cell.h = tile % of.h.tiles_along() * 2;
  tile /= of.h.tiles_along();
  cell.d = tile % of.d.tiles_along() * 2;
  cell.n = tile / of.d.tiles_along();
  return cell;
}

// A volume N D H W C, of which a cube of cells of one channel is read. Outside it is zero.
struct Volume {
  const REAL* cells;
  int D, H, W, C;
  template <int E>
  __device__ __forceinline__ void read(const Cell& first, int channel,
                                       REAL (&cube)[E][E][E]) const {
    for_cube(cube, [&](REAL& value, int i, int j, int l) {
      const int d = first.d + i, h = first.h + j, w = first.w + l;
      const bool inside = (unsigned(d) < unsigned(D)) & (unsigned(h) < unsigned(H)) &
                          (unsigned(w) < unsigned(W));
      const long long cell = (((long long)first.n * D + d) * H + h) * W + w;
      value = inside ? cells[cell * C + channel] : REAL(0);
    });
  }
};

// Channels of a group, with zeros up to a whole chunk.
__device__ __forceinline__ int padded(int channels) { return tiles(channels, CHUNK) * CHUNK; }

// What a thread of a transform works on: one channel of a group, of one tile (or one filter).
// Neighbouring threads have neighbouring channels: warps read and write whole lines.
struct Item {
  int channel, group;
  long long rest;
  __device__ __forceinline__ explicit Item(int channels) {
    rest = (long long)blockIdx.x * TRANSFORM_THREADS + threadIdx.x;
    channel = int(rest % channels);
    rest /= channels;
    group = int(rest % geometry.groups);
    rest /= geometry.groups;
  }
};

// Element (row, column) of this group's matrix of each frequency; matrices have `columns` padded.
struct Batches {
  long long first, step;
  __device__ __forceinline__ Batches(int group, long long row, int column, long long rows,
                                     int columns) {
    first = (group * rows + row) * columns + column;
    step = geometry.groups * rows * columns;
  }
  __device__ __forceinline__ long long operator()(int d, int h, int w) const {
    return first + (d * 16 + h * 4 + w) * step;
  }
};
