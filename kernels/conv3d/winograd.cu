// Convolution with fewer multiplications: Winograd's F(2x2x2, 3x3x3), for filters of 3 x 3 x 3 taps
// with stride 1 and dilation 1.
//
// What changed since implicit_gemm.cu, and why it helps:
// - Eight neighbouring outputs are worked out together, from the 4 x 4 x 4 inputs that they meet,
//   by 64 multiplications for each channel in place of 8 * 27 = 216.
// - What is multiplied are sums and differences of inputs and of taps. They are formed once and
//   kept in memory, so that the sum over channels is 64 plain matrix products.
//
// With the matrices of winograd.cuh, the passes are
//
//    fprop   y  = A^T [(G w) . (B^T x)]        summed over c, between [ and ]
//    dgrad   the same of gy, with w turned round and its k and c swapped, padded by 2 - padding
//    wgrad   gw = G^T [(A gy) . (B^T x)]       summed over tiles
//
// Their entries are halves and ones, yet rounding costs more than in the implicit GEMM, since a
// result is a sum of 64 others, or 27. So sums are cut finer: into stages, and slabs of 64 terms.
//
// What is between [ and ] has 64 frequencies. In memory, with the channels of a group padded by
// zeros to whole chunks, and tiles of 2 x 2 x 2 outputs counted in the order N D H W:
//
//    inputs   64, groups, tiles, inputs' channels
//    filter   64, groups, inputs' channels, outputs' channels
//    outputs  64, groups, tiles, outputs' channels
//
// Each pair of a frequency and a group is a batch: one matrix product. Where tiles would take too
// much memory, the launcher lets the kernels do `count` of them at a time, from `tile0` on.
#include "../common.cuh"
#include "slices.cuh"
#include "winograd.cuh"

#define TRANSFORM extern "C" __global__ void __launch_bounds__(TRANSFORM_THREADS)

// ---- the filter --------------------------------------------------------------------------------

// u = G w, for dgrad of w turned round. A row is an input's channel, a column an output's: threads
// write side by side what fprop reads far apart, for there is more to write.
template <bool FPROP>
__device__ __forceinline__ void filter_to_frequencies(const REAL* w, REAL* u) {
  const int inputs = padded(FPROP ? group_C() : group_K());
  const int outputs = padded(FPROP ? group_K() : group_C());
  const Item item(outputs);
  const int group = item.group, input = int(item.rest), output = item.channel;
  if (input >= inputs) return;
  const int k = FPROP ? output : input, c = FPROP ? input : output;
  const bool inside = k < group_K() && c < group_C();
  const REAL* taps = w + ((long long)(group * group_K() + k) * 27 * group_C() + c);
  REAL filter[3][3][3], frequencies[4][4][4];
  for_cube(filter, [&](REAL& value, int t, int r, int s) {
    const int tap = FPROP ? (t * 3 + r) * 3 + s : 26 - ((t * 3 + r) * 3 + s);
    value = inside ? taps[tap * group_C()] : REAL(0);
  });
  transform<OfFilter>(filter, frequencies);
  const Batches to(group, input, output, inputs, outputs);
  for_cube(frequencies, [&](REAL& value, int i, int j, int l) { u[to(i, j, l)] = value; });
}
TRANSFORM conv3d_fprop_winograd_filter(const REAL* w, REAL* u) {
  filter_to_frequencies<true>(w, u);
}
TRANSFORM conv3d_dgrad_winograd_filter(const REAL* w, REAL* u) {
  filter_to_frequencies<false>(w, u);
}

// ---- the input ---------------------------------------------------------------------------------

// v = B^T x (dgrad: of gy), of tiles `tile0` to `tile0 + count - 1`.
template <bool FPROP>
__device__ __forceinline__ void input_to_frequencies(const REAL* x, int tile0, int count, REAL* v) {
  const int channels = FPROP ? group_C() : group_K();
  const Item item(padded(channels));
  if (item.rest >= count) return;
  const Spans of = spans<FPROP>();
  Cell cell = first_output(tile0 + int(item.rest), of);
  cell = {cell.n, cell.d + of.d.origin, cell.h + of.h.origin, cell.w + of.w.origin};
  REAL cube[4][4][4] = {}, frequencies[4][4][4];
  if (item.channel < channels) {
    const Volume volume = {x, of.d.inputs, of.h.inputs, of.w.inputs, channels * geometry.groups};
    volume.read(cell, item.group * channels + item.channel, cube);
  }
  transform<OfInput>(cube, frequencies);
  const Batches to(item.group, item.rest, item.channel, count, padded(channels));
  for_cube(frequencies, [&](REAL& value, int i, int j, int l) { v[to(i, j, l)] = value; });
}
TRANSFORM conv3d_fprop_winograd_input(const REAL* x, int tile0, int count, REAL* v) {
  input_to_frequencies<true>(x, tile0, count, v);
}
TRANSFORM conv3d_dgrad_winograd_input(const REAL* gy, int tile0, int count, REAL* v) {
  input_to_frequencies<false>(gy, tile0, count, v);
}

// gm = A gy, of tiles of fprop's output.
TRANSFORM conv3d_wgrad_winograd_gradient(const REAL* gy, int tile0, int count, REAL* gm) {
  const Item item(padded(group_K()));
  if (item.rest >= count) return;
  REAL cube[2][2][2] = {}, frequencies[4][4][4];
  if (item.channel < group_K()) {
    const Volume volume = {gy, geometry.Z, geometry.P, geometry.Q, geometry.K};
    volume.read(first_output(tile0 + int(item.rest), spans<true>()),
                item.group * group_K() + item.channel, cube);
  }
  transform<OfOutputGradient>(cube, frequencies);
  const Batches to(item.group, item.rest, item.channel, count, padded(group_K()));
  for_cube(frequencies, [&](REAL& value, int i, int j, int l) { gm[to(i, j, l)] = value; });
}

// ---- the products ------------------------------------------------------------------------------

// Where an element of a matrix stands whose chunks are the operand's. One matrix has fewer than
// 2**31 elements.
template <int N, int PARTS>
__device__ __forceinline__ int place_in(const Along<N, PARTS>&, int row, int term, int, int terms) {
  return row * terms + term;
}
template <int N, int PARTS>
__device__ __forceinline__ int place_in(const Across<N, PARTS>&, int row, int term, int rows, int) {
  return term * rows + row;
}

template <class Operand>
__device__ __forceinline__ void load(Operand& operand, const REAL* matrix, int rows, int terms,
                                     int row0, int stage) {
  operand.template fill<THREADS>([&](REAL* to, int i, int e) {
    const int row = row0 + i, term = stage * DEPTH + e;
    cp_async_16(to, matrix + place_in(operand, row, term, rows, terms), row < rows && term < terms);
  });
}

using Right = Across<COLUMNS, COLUMN_PARTS>;  // the right operand of every product
constexpr int STAGES = 64 / DEPTH;            // of a slab, an even number

// The matrices of all batches, and a block's tile: columns run fastest, then rows, so that
// neighbouring blocks share an operand. Of few products the sum is cut into slices.
struct Products {
  const REAL *left, *right;
  REAL *out, *lost;
  int rows, terms, columns, row0, column0, slice, slices;

  __device__ __forceinline__ void take(unsigned index) {
    const int row_tiles = tiles(rows, ROWS), column_tiles = tiles(columns, COLUMNS);
    const int batches = FREQUENCIES * geometry.groups;
    column0 = index % column_tiles * COLUMNS;
    index /= column_tiles;
    row0 = index % row_tiles * ROWS;
    index /= row_tiles;
    const int batch = index % batches;
    slice = index / batches;
    slices = gridDim.x / (unsigned(column_tiles) * row_tiles * batches);
    left += (long long)batch * rows * terms;
    right += (long long)batch * columns * terms;
    const long long matrix = ((long long)slice * batches + batch) * rows * columns;
    out += matrix;
    lost += matrix;
  }
};

__device__ __forceinline__ void store_chunk(float* to, const float (&chunk)[4]) {
  store4(to, make_float4(chunk[0], chunk[1], chunk[2], chunk[3]));
}
__device__ __forceinline__ void store_chunk(double* to, const double (&chunk)[2]) {
  store2(to, make_double2(chunk[0], chunk[1]));
}

// Writes a slab's sums, or adds them to what is there. Of LONG sums it keeps what they have lost.
template <class A, bool LONG>
__device__ __forceinline__ void store(const Products& of, bool add,
                                      const REAL (&sums)[ROWS_EACH][COLUMNS_EACH]) {
#pragma unroll
  for (int i = 0; i < ROWS_EACH; i++) {
    const int row = of.row0 + A::row(row_part(), i);
    if (row >= of.rows) continue;
#pragma unroll
    for (int j = 0; j < COLUMNS_EACH; j += CHUNK) {
      const int column = of.column0 + Right::row(column_part(), j);
      if (column >= of.columns) continue;  // columns come in whole chunks
      const int to = row * of.columns + column;
      REAL chunk[CHUNK] = {}, errors[CHUNK] = {};
      if (add) load_chunk(of.out + to, chunk);
      if (add && LONG) load_chunk(of.lost + to, errors);
#pragma unroll
      for (int e = 0; e < CHUNK; e++) {
        Sum total = {chunk[e], errors[e]};
        total.add(sums[i][j + e]);
        chunk[e] = total.value;
        errors[e] = total.lost;
      }
      store_chunk(of.out + to, chunk);
      if (LONG) store_chunk(of.lost + to, errors);
    }
  }
}

// out[batch][row][column] = sum over terms of left[batch][row, term] * right[batch][term, column],
// added to what is there if `add`. A LONG sum is cut into slices, each with such an array of its
// own, and another for what its totals have lost.
template <class A, bool LONG>
__device__ __forceinline__ void multiply_batches(const Products& all, bool add) {
  __shared__ A a[2];
  __shared__ Right b[2];
  __shared__ Products of;  // here, since no register is left to hold it through the main loop
  if (threadIdx.x == 0) {
    of = all;
    of.take(blockIdx.x);
  }
  __syncthreads();  // all threads know the tile
  const int stages = tiles(all.terms, DEPTH), slabs = tiles(stages, STAGES);
  const int begin = LONG ? slabs * of.slice / of.slices : 0;
  const int end = LONG ? slabs * (of.slice + 1) / of.slices : slabs;

  for (int slab = begin; slab < end; slab++) {  // none where the last tiles are too few
    REAL total[ROWS_EACH][COLUMNS_EACH] = {};
    const int first = slab * STAGES, last = min(stages, first + STAGES);
    // Nobody reads the memory of even stages any more: the slab before ended with an odd one.
    load(a[0], of.left, all.rows, all.terms, of.row0, first);
    load(b[0], of.right, all.columns, all.terms, of.column0, first);
    cp_async_commit();
    for (int stage = first; stage < last; stage++) {
      cp_async_wait<0>();
      // Every thread's part of this stage has landed, and nobody reads the one before any more,
      // which the next load overwrites.
      __syncthreads();
      if (stage + 1 < last) {
        const int next = (stage + 1) % 2;
        load(a[next], of.left, all.rows, all.terms, of.row0, stage + 1);
        load(b[next], of.right, all.columns, all.terms, of.column0, stage + 1);
        cp_async_commit();
      }
      REAL sums[ROWS_EACH][COLUMNS_EACH] = {};
      multiply(a[stage % 2], b[stage % 2], sums);
#pragma unroll
      for (int i = 0; i < ROWS_EACH; i++) {
#pragma unroll
        for (int j = 0; j < COLUMNS_EACH; j++) total[i][j] += sums[i][j];
      }
    }
    store<A, LONG>(of, add || slab > begin, total);
  }
}

// A thread has 64 sums and 64 totals: registers for one block of 256 threads at a time.
#define MULTIPLY extern "C" __global__ void __launch_bounds__(THREADS, 256 / THREADS)

// Tiles by outputs' channels, summed over inputs' channels.
MULTIPLY conv3d_fprop_winograd(const REAL* v, const REAL* u, int count, REAL* m) {
  multiply_batches<Along<ROWS, ROW_PARTS>, false>(
      {v, u, m, nullptr, count, padded(group_C()), padded(group_K())}, false);
}
MULTIPLY conv3d_dgrad_winograd(const REAL* v, const REAL* u, int count, REAL* m) {
  multiply_batches<Along<ROWS, ROW_PARTS>, false>(
      {v, u, m, nullptr, count, padded(group_K()), padded(group_C())}, false);
}
// K by C, summed over tiles.
MULTIPLY conv3d_wgrad_winograd(const REAL* gm, const REAL* v, int count, int add, REAL* gu,
                               REAL* lost) {
  multiply_batches<Across<ROWS, ROW_PARTS>, true>(
      {gm, v, gu, lost, padded(group_K()), count, padded(group_C())}, add != 0);
}

// ---- the output --------------------------------------------------------------------------------

// y = A^T m, with the bias and the ReLU where asked for (dgrad: gx, with neither).
template <bool FPROP>
__device__ __forceinline__ void output_from_frequencies(const REAL* m, int tile0, int count,
                                                        const Finish& finish, REAL* y) {
  const int channels = FPROP ? group_K() : group_C();
  const Item item(channels);
  if (item.rest >= count) return;
  const int channel = item.group * channels + item.channel;
  const Spans of = spans<FPROP>();
  const Cell first = first_output(tile0 + int(item.rest), of);
  const Batches from(item.group, item.rest, item.channel, count, padded(channels));
  REAL frequencies[4][4][4], cube[2][2][2];
  for_cube(frequencies, [&](REAL& value, int i, int j, int l) { value = m[from(i, j, l)]; });
  transform<OfProducts>(frequencies, cube);
  for_cube(cube, [&](REAL& value, int i, int j, int l) {
    const int d = first.d + i, h = first.h + j, w = first.w + l;
    if (d >= of.d.outputs || h >= of.h.outputs || w >= of.w.outputs) return;
    const long long cell =
        (((long long)first.n * of.d.outputs + d) * of.h.outputs + h) * of.w.outputs + w;
    y[cell * (channels * geometry.groups) + channel] = finish(value, channel);
  });
}
TRANSFORM conv3d_fprop_winograd_output(const REAL* m, int tile0, int count, const REAL* bias,
                                       int relu, REAL* y) {
  output_from_frequencies<true>(m, tile0, count, {bias, relu != 0}, y);
}
TRANSFORM conv3d_dgrad_winograd_output(const REAL* m, int tile0, int count, REAL* gx) {
  output_from_frequencies<false>(m, tile0, count, {nullptr, false}, gx);
}

// gw = G^T gu, where gu is the sum of its slices, added up in their order.
TRANSFORM conv3d_wgrad_winograd_output(const REAL* gu, int slices, REAL* gw) {
  const int K = padded(group_K()), C = padded(group_C());
  long long rest = (long long)blockIdx.x * TRANSFORM_THREADS + threadIdx.x;
  const int c = int(rest % group_C()), k = int(rest / group_C());  // k counts through all groups
  if (k >= geometry.K) return;
  const Batches from(k / group_K(), k % group_K(), c, K, C);
  REAL frequencies[4][4][4] = {}, taps[3][3][3];
  for (int slice = 0; slice < slices; slice++) {
    for_cube(frequencies, [&](REAL& sum, int i, int j, int l) { sum += gu[from(i, j, l)]; });
    gu += FREQUENCIES * from.step;
  }
  transform<OfFilterProducts>(frequencies, taps);
  for_cube(taps, [&](REAL& value, int t, int r, int s) {
    gw[((long long)k * 27 + (t * 3 + r) * 3 + s) * group_C() + c] = value;
  });
}
