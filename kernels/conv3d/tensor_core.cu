// Convolution on tensor cores: the implicit GEMM, multiplied in TF32 or in bf16.
//
// What changed since implicit_gemm.cu, and why it helps:
// - A warp multiplies whole matrices with one instruction, `mma.sync`, which does a thread's work
//   of 32 multiply-adds in TF32, and of 64 in bf16; it takes rounded numbers and sums in float32.
// - x, w and gy are rounded ahead, once, by a kernel of their own: in the main loop the same number
//   would be rounded again for each tap and each tile that it is loaded for.
// - On the way each group's channels are padded by zeros to whole chunks of 128 bits: so every copy
//   is asynchronous, for any number of channels, and bf16 takes half of the memory traffic.
// - A warp gets its operands by `ldmatrix`, four registers a lane at once, each with the numbers
//   that the lane must hold for `mma.sync` (fragments.cuh).
//
// The sum is cut into slabs and slices as there, and rows, columns and terms are the same:
//
//               rows                      columns         terms
//    fprop      n z p q                   k               t r s, c     x gathered, w
//    dgrad      n d h w (of one phase)    c               t r s, k     gy gathered, w
//    wgrad      t r s, c                  k               n z p q      x gathered, gy
#include "../common.cuh"
#include "blocks.cuh"
#include "fragments.cuh"
#include "geometry.cuh"
#include "slices.cuh"
#include "windows.cuh"

// Stages of a slab: 512 terms, whose places are looked up in tables.
template <class Number> constexpr int SLAB = 512 / DEPTH<Number>;
// What a tensor core adds to a sum it cuts off, it does not round: a sum of a thousand products of
// like signs would lose 6e-6 of itself in TF32. So it sums up four stages only, 64 terms or 128 of
// bf16; such sums are added up in registers, and after 1024 terms to the total in the output, which
// keeps what rounding takes from it (sum.cuh).
constexpr int STAGES_A_SUM = 4;
constexpr int SLABS_A_TOTAL = 2;

// Channels of a group as they lie in memory once rounded.
template <class Number> __device__ __forceinline__ int padded(int channels) {
  return tiles(channels, CHUNK<Number>) * CHUNK<Number>;
}
// Numbers of the rounded filter for one k.
template <class Number> __device__ __forceinline__ long long filter_size() {
  return (long long)geometry.T * geometry.R * geometry.S * padded<Number>(group_C());
}

// ---- rounding -----------------------------------------------------------------------------------

constexpr int ROUND_THREADS = 256;

// Rounds `lines` of `channels` numbers each; a thread makes a chunk.
template <class Number>
__device__ __forceinline__ void round_lines(const float* from, long long lines, int channels,
                                            Number* to) {
  const long long i = (long long)blockIdx.x * ROUND_THREADS + threadIdx.x;
  const int chunks = tiles(channels, CHUNK<Number>);
  const long long line = i / chunks;
  const int channel = int(i % chunks) * CHUNK<Number>;
  if (line >= lines) return;
  from += line * channels + channel;
  float values[CHUNK<Number>], words[4];  // of 32 bits each, a chunk in all
#pragma unroll
  for (int e = 0; e < CHUNK<Number>; e++) values[e] = channel + e < channels ? from[e] : 0;
#pragma unroll
  for (int n = 0; n < 4; n++) {
    words[n] = __uint_as_float(Number::word(&values[n * CHUNK<Number> / 4]));
  }
  store4(reinterpret_cast<float*>(to + i * CHUNK<Number>),
         make_float4(words[0], words[1], words[2], words[3]));
}

// ---- the passes as matrix products --------------------------------------------------------------

// fprop and dgrad: rows are output cells, the sum runs over taps and, within one, over channels.
template <class Number, bool FPROP> struct Correlation {
  using Type = Number;
  using A = Along<Number, ROWS>;
  using B = typename Choice<FPROP, Along<Number, COLUMNS>, Across<Number, COLUMNS>>::Type;
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
    Stage stages[SLAB<Number>];
  };
  static_assert(SLAB<Number> <= 32 && SLAB<Number> <= THREADS, "a stage has a bit, and a thread");

  const Number* input;   // x, or gy
  const Number* filter;  // w
  Axes axes;
  Block block;
  int row0, column0;

  // Channels of a group that are summed over, and those that are columns.
  static __device__ int terms() { return FPROP ? group_C() : group_K(); }
  static __device__ int columns() { return FPROP ? group_K() : group_C(); }
  static __device__ int column_tiles() { return tiles(columns(), COLUMNS); }
  static __device__ int stages_of_tap() { return tiles(terms(), DEPTH<Number>); }

  __device__ __forceinline__ Correlation(const Number* input, const Number* filter, unsigned index)
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

  __device__ __forceinline__ int stages() const { return axes.taps() * stages_of_tap(); }
  __device__ __forceinline__ Tap tap_number(int tap) const {
    const int line = tap / axes.w.taps;
    return tap_at(line / axes.h.taps, line % axes.h.taps, tap % axes.w.taps, axes);
  }

  // Fills the tables for the stages from `begin` to before `end`.
  __device__ __forceinline__ void prepare(Tables& tables, int begin, int end) const {
    for (int i = threadIdx.x; i < ROWS; i += THREADS) {
      const Place place = place_of(row0 + i, axes);
      unsigned bits = 0;
      for (int stage = begin; stage < end;) {
        const int tap = stage / stages_of_tap(), next = min(end, (tap + 1) * stages_of_tap());
        // One bit for each of the tap's stages: all below `next` but those below `stage`.
        const unsigned ones = unsigned((1ull << (next - begin)) - (1ull << (stage - begin)));
        if (meets(place, tap_number(tap), axes)) bits |= ones;
        stage = next;
      }
      tables.windows[i] = {place.cell, bits};
    }
    const int stage = begin + threadIdx.x;
    if (stage < end) {
      const Tap tap = tap_number(stage / stages_of_tap());
      const int channel = stage % stages_of_tap() * DEPTH<Number>;
      tables.stages[threadIdx.x] = {
          tap.cell, channel,
          tap.filter * padded<Number>(group_C()) +
              (FPROP ? channel : channel * filter_size<Number>())};
    }
  }

  // The slab's stage of this number; `begin` is the number of its first in the whole sum.
  __device__ __forceinline__ void load(A& a, B& b, const Tables& tables, int begin,
                                       unsigned number) const {
    const int width = padded<Number>(terms());
    const Stage at = tables.stages[number];
    a.fill([&](Number* to, int i, int term) {
      const Window window = tables.windows[i];
      const Number* from = input + (block.group * width + term) + at.channel;
      cp_async_16(to, from + (long long)(window.cell + at.cell) * (width * geometry.groups),
                  (window.meets >> number & 1) & (at.channel + term < width));
    });
    b.fill([&](Number* to, int i, int term) {
      const int column = column0 + i;
      const int k = FPROP ? column : term, c = FPROP ? term : column;
      const Number* from = filter + (block.group * group_K() + k) * filter_size<Number>() + c;
      cp_async_16(to, from + at.filter, (column < columns()) & (at.channel + term < terms()));
    });
  }

  // Where in the output row `i` begins, or -1; and from column to column.
  __device__ __forceinline__ long long output_row(int i) const {
    const int row = row0 + i;
    if (row >= axes.rows()) return -1;
    const int cell = FPROP ? row : cell_of(row, axes, geometry.D, geometry.H, geometry.W);
    return (long long)cell * columns() * geometry.groups + block.group * columns();
  }
  __device__ __forceinline__ long long column_step() const { return 1; }
  static __device__ __forceinline__ long long output_size() {
    return FPROP ? (long long)geometry.N * geometry.Z * geometry.P * geometry.Q * geometry.K
                 : (long long)geometry.N * geometry.D * geometry.H * geometry.W * geometry.C;
  }
};

// wgrad: rows are taps and channels of x, columns those of gy, the sum runs over output cells.
template <class Number> struct FilterGradient {
  using Type = Number;
  using A = Across<Number, ROWS>;
  using B = Across<Number, COLUMNS>;
  struct Tables {
    Place places[SLAB<Number> * DEPTH<Number>];  // of the output cells of a slab
  };

  const Number *x, *gy;
  Axes axes;
  Block block;
  int row0, column0;
  // This thread gathers for the same tap and channel throughout.
  Tap tap;
  int channel;

  // Each tap begins a new chunk of rows, so that a chunk has one tap.
  static __device__ int width() { return padded<Number>(group_C()); }
  static __device__ int rows() { return geometry.T * geometry.R * geometry.S * width(); }

  __device__ __forceinline__ FilterGradient(const Number* x, const Number* gy, unsigned index)
      : x(x), gy(gy) {
    axes = fprop_axes();
    block = block_at(index, tiles(rows(), ROWS), tiles(group_K(), COLUMNS));
    row0 = block.row_tile * ROWS;
    column0 = block.column_tile * COLUMNS;
    const int row = row0 + threadIdx.x % A::CHUNKS * CHUNK<Number>, number = row / width();
    channel = row % width();
    tap = tap_at(number / geometry.S / geometry.R, number / geometry.S % geometry.R,
                 number % geometry.S, axes);
    if (row >= rows()) tap.d = -(1 << 30);  // so far out that it meets no cell
  }

  __device__ __forceinline__ int stages() const { return tiles(axes.rows(), DEPTH<Number>); }
  __device__ __forceinline__ void prepare(Tables& tables, int begin, int end) const {
    for (int i = threadIdx.x; i < (end - begin) * DEPTH<Number>; i += THREADS) {
      tables.places[i] = place_of(begin * DEPTH<Number> + i, axes);
    }
  }

  __device__ __forceinline__ void load(A& a, B& b, const Tables& tables, int begin,
                                       unsigned number) const {
    const int wide = padded<Number>(group_K());
    a.fill([&](Number* to, int, int term) {
      const Place place = tables.places[number * DEPTH<Number> + term];
      const Number* from = x + (block.group * width() + channel);
      cp_async_16(to, from + (long long)(place.cell + tap.cell) * (width() * geometry.groups),
                  meets(place, tap, axes));
    });
    b.fill([&](Number* to, int i, int term) {
      const int cell = (begin + number) * DEPTH<Number> + term, k = column0 + i;
      const Number* from = gy + (block.group * wide + k);
      cp_async_16(to, from + (long long)cell * (wide * geometry.groups),
                  (cell < axes.rows()) & (k < group_K()));
    });
  }

  static __device__ int columns() { return group_K(); }
  __device__ __forceinline__ long long output_row(int i) const {
    const int row = row0 + i, c = row % width();
    if (row >= rows() || c >= group_C()) return -1;
    return block.group * group_K() * column_step() + row / width() * group_C() + c;
  }
  __device__ __forceinline__ long long column_step() const {
    return (long long)geometry.T * geometry.R * geometry.S * group_C();
  }
  static __device__ __forceinline__ long long output_size() {
    return (long long)geometry.K * geometry.T * geometry.R * geometry.S * group_C();
  }
};

// ---- what all passes do -------------------------------------------------------------------------

template <class Problem> __device__ __forceinline__ Slabs slabs_of(const Problem& problem) {
  return {tiles(problem.stages(), SLAB<typename Problem::Type>), problem.block};
}

// Writes sums, or adds them to what is there already; the last ones of whole sums are finished.
template <class Problem>
__device__ __forceinline__ void store(const Problem& problem, bool first, bool last,
                                      const Sums& sums, const float* bias, int relu, float* out,
                                      float* lost) {
  const Finish finish = {bias, relu != 0};
  const bool whole = last && problem.block.slices == 1;
  out += problem.block.slice * Problem::output_size();
  lost += problem.block.slice * Problem::output_size();
#pragma unroll
  for (int i = 0; i < WARP_ROWS / 16; i++) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
      const long long row = problem.output_row(row_of(i, r));
      if (row < 0) continue;
#pragma unroll
      for (int j = 0; j < WARP_COLUMNS / 8; j++) {
        const int column = problem.column0 + column_of(j, r);
        if (column >= Problem::columns()) continue;
        const long long to = row + column * problem.column_step();
        float value = add_slab(sums[i][j][r], out + to, lost + to, first, last);
        if (whole) value = finish(value, problem.block.group * Problem::columns() + column);
        out[to] = value;
      }
    }
  }
}

// Adds short sums to long ones, and begins anew.
__device__ __forceinline__ void add(Sums& sums, Sums& total) {
#pragma unroll
  for (int i = 0; i < WARP_ROWS / 16; i++) {
#pragma unroll
    for (int j = 0; j < WARP_COLUMNS / 8; j++) {
#pragma unroll
      for (int r = 0; r < 4; r++) {
        total[i][j][r] += sums[i][j][r];
        sums[i][j][r] = 0;
      }
    }
  }
}

// `out` is the output, or one such array for each slice, and so is `lost`.
template <class Problem>
__device__ __forceinline__ void run(const typename Problem::Type* first,
                                    const typename Problem::Type* second, const float* bias,
                                    int relu, float* out, float* lost) {
  __shared__ typename Problem::A a[2];
  __shared__ typename Problem::B b[2];
  __shared__ typename Problem::Tables tables;
  using Number = typename Problem::Type;
  int slab = slabs_of(Problem(first, second, blockIdx.x)).begin;
  // Once at least: where there is nothing to sum up, the outputs are zero.
  for (bool more = true; more;) {
    const int begun = slab;
    Sums sums = {}, total = {};
    do {
      const Problem problem(first, second, opaque(blockIdx.x));
      const int begin = slab * SLAB<Number>;
      const int end = min(problem.stages(), min(slab + 1, slabs_of(problem).end) * SLAB<Number>);
      __syncthreads();  // others may still read the last stage of the slab before, and its tables
      problem.prepare(tables, begin, end);
      __syncthreads();  // the tables are written before a load looks into them

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
        multiply<Number>(a[now], b[now], sums);
        if (stage % STAGES_A_SUM == STAGES_A_SUM - 1 || stage + 1 == count) add(sums, total);
      }
      slab++;
      more = slab < slabs_of(problem).end;
    } while (more && (slab - begun) % SLABS_A_TOTAL != 0);
    // Where the outputs are is worked out anew, so that no register holds it in the loop above.
    const Problem again(first, second, opaque(blockIdx.x));
    store(again, begun == slabs_of(again).begin, !more, total, bias, relu, out, lost);
  }
}

// ---- the kernels --------------------------------------------------------------------------------

// A thread has 64 short sums and 64 long ones: registers for one block of 256 threads at a time.
#define ENTRY extern "C" __global__ void __launch_bounds__(THREADS, 256 / THREADS)

ENTRY conv3d_fprop_tf32(const Tf32* x, const Tf32* w, const float* bias, int relu, float* y,
                        float* lost) {
  run<Correlation<Tf32, true>>(x, w, bias, relu, y, lost);
}
ENTRY conv3d_dgrad_tf32(const Tf32* gy, const Tf32* w, float* gx, float* lost) {
  run<Correlation<Tf32, false>>(gy, w, nullptr, 0, gx, lost);
}
ENTRY conv3d_wgrad_tf32(const Tf32* gy, const Tf32* x, float* gw, float* lost) {
  run<FilterGradient<Tf32>>(x, gy, nullptr, 0, gw, lost);
}
ENTRY conv3d_fprop_bf16(const Bf16* x, const Bf16* w, const float* bias, int relu, float* y,
                        float* lost) {
  run<Correlation<Bf16, true>>(x, w, bias, relu, y, lost);
}
ENTRY conv3d_dgrad_bf16(const Bf16* gy, const Bf16* w, float* gx, float* lost) {
  run<Correlation<Bf16, false>>(gy, w, nullptr, 0, gx, lost);
}
ENTRY conv3d_wgrad_bf16(const Bf16* gy, const Bf16* x, float* gw, float* lost) {
  run<FilterGradient<Bf16>>(x, gy, nullptr, 0, gw, lost);
}

#define ROUND extern "C" __global__ void __launch_bounds__(ROUND_THREADS)

ROUND conv3d_round_tf32(const float* from, long long lines, int channels, Tf32* to) {
  round_lines(from, lines, channels, to);
}
ROUND conv3d_round_bf16(const float* from, long long lines, int channels, Bf16* to) {
  round_lines(from, lines, channels, to);
}
