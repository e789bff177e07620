// Convolution as a matrix product whose matrices are never built: the implicit GEMM.
//
// What changed since tiled.cu, and why it helps:
// - A thread sums 8 x 8 outputs in registers, so that 16 numbers from shared memory feed 64
//   multiply-adds (4 x 4 in float64).
// - Global memory is read in chunks of 128 bits along channels, by `cp.async` straight into shared
//   memory: fewer instructions, and no registers held while a load is under way.
// - Two stages: while one is multiplied, the next is on its way.
// - The sum is cut into slabs of 96 terms, and each slab added to the total in the output, beside
//   which lies what rounding took from it: a plain float32 sum of thousands of terms would lose too
//   many digits (product.cuh).
// - It is also cut into slices, one for each block, where there are few outputs (wgrad, and
//   layers of small images), so that the whole GPU has work; slices.cuh adds them in order.
//
//               rows                      columns         reduction
//    fprop      n z p q                   k               t r s, c     x gathered, w
//    dgrad      n d h w (of one phase)    c               t r s, k     gy gathered, w
//    wgrad      t r s, c                  k               n z p q      x gathered, gy
#include "blocks.cuh"
#include "geometry.cuh"
#include "operands.cuh"
#include "product.cuh"
#include "slices.cuh"
#include "windows.cuh"

// Elements of the filter for one k.
__device__ __forceinline__ long long filter_size() {
  return (long long)geometry.T * geometry.R * geometry.S * group_C();
}

// fprop and dgrad: rows are output cells, the sum runs over taps and, within one, over channels.
template <bool FPROP> struct Correlation {
  using A = Along<ROWS, ROW_PARTS>;
  using B = typename Choice<FPROP, Along<COLUMNS, COLUMN_PARTS>,
                            Across<COLUMNS, COLUMN_PARTS>>::Type;
  // What the stages of a slab load is worked out ahead: the main loop has no division, and looks
  // up one bit to learn whether a row's window meets a cell, or padding.
  struct __align__(8) Window {
    int cell;        // where it begins
    unsigned meets;  // a bit for each stage
  };
  struct __align__(16) Stage {
    int cell;          // how far its tap is from where a window begins
    int channel;       // the first of DEPTH that are summed over
    long long filter;  // where these begin in w
  };
  struct Tables {
    Window windows[ROWS];
    Stage stages[SLAB];
  };
  static_assert(SLAB <= 32, "a stage has a bit");

  static constexpr int UNROLL = FPROP ? 1 : DEPTH / CHUNK;

  const REAL* input;   // x, or gy
  const REAL* filter;  // w
  Axes axes;
  Block block;
  int row0, column0;

  // Channels of a group that are summed over, and those that are columns.
  static __device__ int terms() { return FPROP ? group_C() : group_K(); }
  static __device__ int columns() { return FPROP ? group_K() : group_C(); }
  static __device__ int column_tiles() { return tiles(columns(), COLUMNS); }

  __device__ __forceinline__ Correlation(const REAL* input, const REAL* filter, unsigned index)
      : input(input), filter(filter) {
    if (FPROP) {
      axes = fprop_axes();
      block = block_at(index, tiles(axes.rows(), ROWS), column_tiles());
      row0 = block.row_tile * ROWS;
    } else {
      // Every phase has as many tiles as the first, which has the most cells.
      const int of_phase = tiles(dgrad_axes(0).rows(), ROWS);
      block = block_at(index, of_phase * phases(), column_tiles());
      axes = dgrad_axes(block.row_tile / of_phase);
      row0 = block.row_tile % of_phase * ROWS;
    }
    column0 = block.column_tile * COLUMNS;
  }

  __device__ __forceinline__ int stages() const { return axes.taps() * tiles(terms(), DEPTH); }
  __device__ __forceinline__ Tap tap_of(int stage) const {
    const int tap = stage / tiles(terms(), DEPTH), line = tap / axes.w.taps;
    return tap_at(line / axes.h.taps, line % axes.h.taps, tap % axes.w.taps, axes);
  }
  __device__ __forceinline__ void prepare(Tables& tables, int begin, int end) const {
    for (int i = threadIdx.x; i < ROWS; i += THREADS) {
      const Place place = place_of(row0 + i, axes);
      unsigned bits = 0;
      for (int stage = begin; stage < end; stage++) {
        bits |= unsigned(meets(place, tap_of(stage), axes)) << (stage - begin);
      }
      tables.windows[i] = {place.cell, bits};
    }
    const int stage = begin + threadIdx.x;
    if (stage < end) {
      const Tap tap = tap_of(stage);
      const int channel = stage % tiles(terms(), DEPTH) * DEPTH;
      tables.stages[threadIdx.x] = {
          tap.cell, channel,
          tap.filter * group_C() + (FPROP ? channel : channel * filter_size())};
    }
  }

  // Channels from this one to the last: more than none where they come in whole stages.
  static __device__ __forceinline__ int left(int channel) {
    return terms() % DEPTH == 0 ? DEPTH : terms() - channel;
  }

  // The slab's stage of this number; `begin` is the number of its first in the whole sum.
  __device__ __forceinline__ void load(A& a, B& b, const Tables& tables, int begin,
                                       unsigned number) const {
    const Stage at = tables.stages[number];
    const bool whole_a = terms() % CHUNK == 0, whole_b = group_C() % CHUNK == 0;
    a.template fill<THREADS>([&](REAL* to, int i, int term) {
      const Window window = tables.windows[i];
      const REAL* from = input + (block.group * terms() + term) + at.channel;
      copy_chunk(to, from + (long long)(window.cell + at.cell) * (terms() * geometry.groups),
                 window.meets >> number & 1 ? left(at.channel + term) : 0, whole_a);
    });
    b.template fill<THREADS>([&](REAL* to, int i, int term) {
      const int column = column0 + i;
      const int k = FPROP ? column : term, c = FPROP ? term : column;
      const REAL* from = filter + (block.group * group_K() + k) * filter_size() + c;
      const int inside = FPROP ? group_K() - column : left(at.channel + term);
      const int count = FPROP ? left(at.channel + term) : group_C() - column;
      copy_chunk(to, from + at.filter, inside > 0 ? count : 0, whole_b);
    });
  }

  // Outputs side by side that a thread has: of fprop single ones, as k is dealt out one by one.
  static constexpr int ROWS_AT_ONCE = 1, COLUMNS_AT_ONCE = FPROP ? 1 : CHUNK;
  static __device__ bool whole_outputs() { return columns() % CHUNK == 0; }
  // How many of the array there are from this one on, and where it is.
  __device__ __forceinline__ int outputs(int i, int column) const {
    return row0 + i < axes.rows() ? columns() - column : 0;
  }
  __device__ __forceinline__ long long output(int i, int column) const {
    const int row = row0 + i;
    const int cell = FPROP ? row : cell_of(row, axes, geometry.D, geometry.H, geometry.W);
    return ((long long)cell * geometry.groups + block.group) * columns() + column;
  }
  static __device__ __forceinline__ long long output_size() {
    return FPROP ? (long long)geometry.N * geometry.Z * geometry.P * geometry.Q * geometry.K
                 : (long long)geometry.N * geometry.D * geometry.H * geometry.W * geometry.C;
  }
};

// wgrad: rows are taps and channels of x, columns those of gy, the sum runs over output cells.
struct FilterGradient {
  using A = Across<ROWS, ROW_PARTS>;
  using B = Across<COLUMNS, COLUMN_PARTS>;
  struct Tables {
    Place places[SLAB * DEPTH];  // of the output cells of a slab
  };

  static constexpr int UNROLL = DEPTH / CHUNK;

  const REAL *x, *gy;
  Axes axes;
  Block block;
  int row0, column0;
  // This thread gathers for the same tap and channel throughout.
  Tap tap;
  int channel;

  // Each tap begins a new chunk of rows, so that a chunk has one tap.
  static __device__ int padded_C() { return tiles(group_C(), CHUNK) * CHUNK; }
  static __device__ int rows() { return geometry.T * geometry.R * geometry.S * padded_C(); }

  __device__ __forceinline__ FilterGradient(const REAL* x, const REAL* gy, unsigned index)
      : x(x), gy(gy) {
    axes = fprop_axes();
    block = block_at(index, tiles(rows(), ROWS), tiles(group_K(), COLUMNS));
    row0 = block.row_tile * ROWS;
    column0 = block.column_tile * COLUMNS;
    const int row = row0 + threadIdx.x % (ROWS / CHUNK) * CHUNK;
    const int number = row / padded_C();
    channel = row < rows() ? row % padded_C() : group_C();  // the latter: nothing left to copy
    tap = tap_at(number / geometry.S / geometry.R, number / geometry.S % geometry.R,
                 number % geometry.S, axes);
  }

  __device__ __forceinline__ int stages() const { return tiles(axes.rows(), DEPTH); }
  __device__ __forceinline__ void prepare(Tables& tables, int begin, int end) const {
    for (int i = threadIdx.x; i < (end - begin) * DEPTH; i += THREADS) {
      tables.places[i] = place_of(begin * DEPTH + i, axes);
    }
  }

  __device__ __forceinline__ void load(A& a, B& b, const Tables& tables, int begin,
                                       unsigned number) const {
    const bool whole_a = group_C() % CHUNK == 0, whole_b = group_K() % CHUNK == 0;
    a.template fill<THREADS>([&](REAL* to, int, int term) {
      const Place place = tables.places[number * DEPTH + term];
      const REAL* from = x + (block.group * group_C() + channel);
      copy_chunk(to, from + (long long)(place.cell + tap.cell) * geometry.C,
                 meets(place, tap, axes) ? group_C() - channel : 0, whole_a);
    });
    b.template fill<THREADS>([&](REAL* to, int i, int term) {
      const int cell = (begin + number) * DEPTH + term, k = column0 + i;
      const REAL* from = gy + (block.group * group_K() + k);
      copy_chunk(to, from + (long long)cell * geometry.K,
                 cell < axes.rows() ? group_K() - k : 0, whole_b);
    });
  }

  static __device__ int columns() { return group_K(); }
  static constexpr int ROWS_AT_ONCE = CHUNK, COLUMNS_AT_ONCE = 1;
  static __device__ bool whole_outputs() { return group_C() % CHUNK == 0; }
  __device__ __forceinline__ int outputs(int i, int column) const {
    const int row = row0 + i;
    return row < rows() && column < group_K() ? group_C() - row % padded_C() : 0;
  }
  __device__ __forceinline__ long long output(int i, int column) const {
    const int row = row0 + i, k = block.group * group_K() + column;
    return k * filter_size() + row / padded_C() * group_C() + row % padded_C();
  }
  static __device__ __forceinline__ long long output_size() {
    return (long long)geometry.K * geometry.T * geometry.R * geometry.S * group_C();
  }
};

template <class Problem> __device__ __forceinline__ Slabs slabs_of(const Problem& problem) {
  return {tiles(problem.stages(), SLAB), problem.block};
}

// N neighbours in global memory, of which `count` are asked for; all are, and lie in a chunk, if
// `whole`.
template <int N>
__device__ __forceinline__ void read(const REAL* from, REAL (&to)[N], int count, bool whole) {
  if constexpr (N == CHUNK) {
    if (whole) return load_chunk(from, to);
  }
#pragma unroll
  for (int i = 0; i < N; i++) to[i] = i < count ? from[i] : REAL(0);
}
__device__ __forceinline__ void write_chunk(float* to, const float (&from)[4]) {
  store4(to, make_float4(from[0], from[1], from[2], from[3]));
}
__device__ __forceinline__ void write_chunk(double* to, const double (&from)[2]) {
  store2(to, make_double2(from[0], from[1]));
}
template <int N>
__device__ __forceinline__ void write(REAL* to, const REAL (&from)[N], int count, bool whole) {
  if constexpr (N == CHUNK) {
    if (whole) return write_chunk(to, from);
  }
#pragma unroll
  for (int i = 0; i < N; i++) {
    if (i < count) to[i] = from[i];
  }
}

// Writes a slab's sums, or adds them to what the slabs before have left there: the total so far in
// `out`, and what it has lost in `lost`, which nobody looks at where one slab is all there is.
template <class Problem>
__device__ __forceinline__ void store(const Problem& problem, int slab,
                                      const REAL (&sums)[ROWS_EACH][COLUMNS_EACH],
                                      const REAL* bias, int relu, REAL* out, REAL* lost) {
  // A thread's outputs side by side in memory: a piece of a row, or of a column.
  constexpr int ACROSS = Problem::COLUMNS_AT_ONCE, DOWN = Problem::ROWS_AT_ONCE;
  const Slabs slabs = slabs_of(problem);
  const bool first = slab == slabs.begin, last = slab + 1 >= slabs.end;
  const Finish finish = {bias, relu != 0};
  const long long of_slice = problem.block.slice * Problem::output_size();
#pragma unroll
  for (int i = 0; i < ROWS_EACH; i += DOWN) {
#pragma unroll
    for (int j = 0; j < COLUMNS_EACH; j += ACROSS) {
      const int row = Problem::A::row(row_part(), i);
      const int column = problem.column0 + Problem::B::row(column_part(), j);
      const int count = problem.outputs(row, column);
      if (count <= 0) continue;
      const long long to = of_slice + problem.output(row, column);
      REAL values[DOWN * ACROSS] = {}, errors[DOWN * ACROSS] = {};
      if (!first) {
        read(out + to, values, count, Problem::whole_outputs());
        read(lost + to, errors, count, Problem::whole_outputs());
      }
#pragma unroll
      for (int e = 0; e < DOWN * ACROSS; e++) {
        Sum total = {values[e], errors[e]};
        total.add(sums[i + e % DOWN][j + e / DOWN]);
        values[e] = total.value;
        errors[e] = total.lost;
        if (last && problem.block.slices == 1) {
          values[e] = finish(values[e], problem.block.group * Problem::columns() + column);
        }
      }
      write(out + to, values, count, Problem::whole_outputs());
      if (!last) write(lost + to, errors, count, Problem::whole_outputs());
    }
  }
}

// What all passes do. `out` is the output, or one such array for each slice, and so is `lost`.
template <class Problem>
__device__ __forceinline__ void run(const REAL* first, const REAL* second, const REAL* bias,
                                    int relu, REAL* out, REAL* lost) {
  __shared__ typename Problem::A a[2];
  __shared__ typename Problem::B b[2];
  __shared__ typename Problem::Tables tables;
  int slab = slabs_of(Problem(first, second, blockIdx.x)).begin;
  // Once at least: where there is nothing to sum up, the outputs are zero.
  for (bool more = true; more; slab++) {
    const Problem problem(first, second, opaque(blockIdx.x));
    const int begin = slab * SLAB;
    const int end = min(problem.stages(), min(slab + 1, slabs_of(problem).end) * SLAB);
    __syncthreads();  // others may still read the last stage of the slab before, and its tables
    problem.prepare(tables, begin, end);
    __syncthreads();  // the tables are written before a load looks into them

    REAL sums[ROWS_EACH][COLUMNS_EACH] = {};
    if (begin < end) {
      problem.load(a[0], b[0], tables, begin, 0);
      cp_async_commit();
    }
    const unsigned count = max(0, end - begin);
    for (unsigned stage = 0; stage < count; stage++) {
      cp_async_wait<0>();
      // Every thread's part of this stage has landed, and nobody reads the one before any more,
      // which the next load overwrites.
      __syncthreads();
      const unsigned now = stage % 2, next = 1 - now;
      if (stage + 1 < count) {
        problem.load(a[next], b[next], tables, begin, stage + 1);
        cp_async_commit();
      }
      multiply<Problem::UNROLL>(a[now], b[now], sums);
    }
    // Where the outputs are is worked out anew, so that no register holds it in the loop above.
    const Problem again(first, second, opaque(blockIdx.x));
    store(again, slab, sums, bias, relu, out, lost);
    more = slab + 1 < slabs_of(again).end;
  }
}

#define ENTRY extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)

ENTRY conv3d_fprop_implicit_gemm(const REAL* x, const REAL* w, const REAL* bias, int relu,
                                 REAL* y, REAL* lost) {
  run<Correlation<true>>(x, w, bias, relu, y, lost);
}
ENTRY conv3d_dgrad_implicit_gemm(const REAL* gy, const REAL* w, REAL* gx, REAL* lost) {
  run<Correlation<false>>(gy, w, nullptr, 0, gx, lost);
}
ENTRY conv3d_wgrad_implicit_gemm(const REAL* gy, const REAL* x, REAL* gw, REAL* lost) {
  run<FilterGradient>(x, gy, nullptr, 0, gw, lost);
}
