// The LSTM in one launch, with the recurrent weights on chip through all steps.
//
// What changed since fused_step.cu, and why it helps:
// - A block keeps the weights of its hidden units in shared memory from the first step to the
//   last: they are read from global memory once a sequence, not once a step, and what a step still
//   reads are states, as many as there are units.
// - A step ends with a barrier of the grid, not with a launch. While the weights of all units fit
//   one block, it needs only its own: each block then has a slice of the batch.
//
// Diamos et al., Persistent RNNs: Stashing Recurrent Weights On-Chip, ICML 2016 (theirs are in
// registers). Sums are those of fused_step.cu, term by term, however units are dealt out to blocks.
#include "product.cuh"
#include "rows.cuh"

constexpr int MOST_TEAMS = 2;

// A block's units and sequences, and what it has in shared memory.
template <int ROWS> struct Share {
  Layer layer;
  int depth, pitch;         // terms of a sum; from one line of weights to the next
  int units, unit0;         // units of a block, a multiple of UNITS, and the first of this one's
  int unit_tiles;           // blocks that share a sequence
  int slice, slices;        // of the batch
  int held;                 // stages in the ring
  REAL* weights;            // a line for each row of each unit, by groups of UNITS units
  States* ring;
  Parts<ROWS>* parts;       // one for each team
  const REAL** rows;
  unsigned* arrivals;       // the counter of `grid_sync`

  __device__ __forceinline__ Share(const Layer& layer, int depth, int units, int held,
                                   REAL* shared, const REAL** rows,
                                   unsigned* arrivals)
      : layer(layer), depth(depth), units(units), held(held), weights(shared), rows(rows),
        arrivals(arrivals) {
    unit_tiles = tiles(layer.H, units), slices = gridDim.x / unit_tiles;
    unit0 = blockIdx.x % unit_tiles * units, slice = blockIdx.x / unit_tiles;
    pitch = (tiles(depth, CHUNK) | 1) * CHUNK;  // an odd number of chunks: see PITCH
    ring = reinterpret_cast<States*>(weights + ROWS * units * pitch);
    parts = reinterpret_cast<Parts<ROWS>*>(ring + held);
  }

  // The line of weights for a row of a unit, counted from the block's first.
  __device__ __forceinline__ REAL* line(int unit, int row) const {
    return weights + ((unit / UNITS * ROWS + row) * UNITS + unit % UNITS) * pitch;
  }

  // One step of all the block's units and sequences: calls cell(n, unit, sums). row_of(n): the
  // `depth` terms that the step multiplies the weights with, or null.
  template <class Row, class Cell>
  __device__ __forceinline__ void step(Row row_of, Cell cell) const {
    const int team = threadIdx.x / TEAM, teams = blockDim.x / TEAM, groups = units / UNITS;
    for (int n0 = slice * SEQUENCES; n0 < layer.N; n0 += slices * SEQUENCES) {
      if (threadIdx.x < SEQUENCES) {
        const int n = n0 + threadIdx.x;
        rows[threadIdx.x] = n < layer.N ? row_of(n) : nullptr;
      }
      __syncthreads();  // the rows are told, and the weights have come in
      for (int first = 0; first < groups; first += teams) {
        const int group = first + team;
        REAL sums[ROWS][EACH] = {};
        const auto multiply_stage = [&](int stage) {
          if (group >= groups) return;
          const int left = tiles(depth - stage * DEPTH, CHUNK);
          multiply(ring[stage % held], line(group * UNITS, 0) + stage * DEPTH, pitch,
                   left < STAGE ? left : STAGE, sums);
        };
        const int stages = tiles(depth, DEPTH);
        if (first == 0) {
          run_stages(
              stages, [&](int stage) { ring[stage % held].load(rows, stage * DEPTH, depth); },
              multiply_stage);
        } else {  // the ring holds them all
          for (int stage = 0; stage < stages; stage++) multiply_stage(stage);
        }
        __syncthreads();  // the parts of the group before have been read
        parts[team].store(sums);
        __syncthreads();  // the other warps' parts are there
        if (group < groups) parts[team].finish(layer, n0, unit0 + group * UNITS, cell);
      }
    }
  }

  // Between steps: all blocks that share sequences wait for each other's states.
  __device__ __forceinline__ void wait() const {
    if (unit_tiles > 1) {
      grid_sync(arrivals);
    } else {
      __syncthreads();  // the block's own states are all that it needs
    }
  }
};

extern "C" __global__ void __launch_bounds__(MOST_TEAMS* TEAM, 1)
    lstm_fprop_persistent(const REAL* w_hh, const REAL* h0, const REAL* c0,
                          const long long* lengths, int reverse, int N, int L, int H, int units,
                          int held, unsigned* arrivals, REAL* gates, REAL* h, REAL* c) {
  extern __shared__ __align__(16) REAL shared[];
  __shared__ const REAL* rows[SEQUENCES];
  const Layer layer = {N, L, hidden_units(H), lengths, reverse};
  const Share<GATES> share(layer, layer.H, units, held, shared, rows, arrivals);
  const int chunks = tiles(layer.H, CHUNK);
  for (int i = threadIdx.x; i < GATES * units * chunks; i += blockDim.x) {
    const int term = i % chunks * CHUNK, gate = i / chunks % GATES, unit = i / chunks / GATES;
    const long long row = (long long)gate * layer.H + share.unit0 + unit;
    copy_chunk(share.line(unit, gate) + term, w_hh + row * layer.H + term,
               share.unit0 + unit < layer.H ? layer.H - term : 0, layer.H % CHUNK == 0);
  }
  cp_async_commit();
  cp_async_wait<0>();
  for (int read = 0; read < L; read++) {
    const int t = reverse ? L - 1 - read : read;
    if (read > 0) share.wait();
    share.step(
        [&](int n) { return layer.has(n, t) ? layer.start(h, h0, n, t) : nullptr; },
        [&](int n, int unit, const REAL(&sums)[GATES]) {
          step_forward(layer, n, unit, t, sums, c0, gates, h, c);
        });
  }
}

// Weights go into shared memory transposed. After the last step back, one more ends in gh0.
extern "C" __global__ void __launch_bounds__(MOST_TEAMS* TEAM, 1)
    lstm_bprop_persistent(const REAL* w_hh, const REAL* gh, const REAL* gc, const REAL* c0,
                          const long long* lengths, int reverse, int N, int L, int H, int units,
                          int held, unsigned* arrivals, const REAL* c, const REAL* gates,
                          REAL* ga, REAL* gh0, REAL* gc0) {
  extern __shared__ __align__(16) REAL shared[];
  __shared__ const REAL* rows[SEQUENCES];
  const Layer layer = {N, L, hidden_units(H), lengths, reverse};
  const int depth = GATES * layer.H;
  const Share<1> share(layer, depth, units, held, shared, rows, arrivals);
  for (int i = threadIdx.x; i < units * depth; i += blockDim.x) {
    const int unit = i % units, term = i / units;  // neighbours read what lies side by side
    const bool inside = share.unit0 + unit < layer.H;
    share.line(unit, 0)[term] =
        inside ? w_hh[(long long)term * layer.H + share.unit0 + unit] : REAL(0);
  }
  for (int read = L - 1; read >= -1; read--) {
    const int t = reverse ? L - 1 - read : read, later = layer.after(t);
    if (read < L - 1) share.wait();
    share.step(
        [&](int n) -> const REAL* {
          return layer.has(n, later) ? ga + layer.row(n, later) * depth : nullptr;
        },
        [&](int n, int unit, const REAL(&sums)[1]) {
          step_back(layer, n, unit, t, sums[0], {gh, gc, c0, c, gates, ga, gh0, gc0});
        });
  }
}
