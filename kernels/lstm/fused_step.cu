// The LSTM with a launch for each step, in which the recurrent product and the gates are fused.
//
// What changed since naive.cu, and why it helps:
// - A block has four hidden units of 32 sequences (8 where there are few): it brings the states and
//   the weights into shared memory, and weights are read from global memory once a step for 32
//   sequences, not for each of them.
// - The four gates of a unit are worked out by the same threads: the product ends in registers, and
//   the step of c and h follows without a trip through global memory.
// - A thread sums 16 products from 8 chunks of 128 bits, and copies of two stages are on their way
//   while a third is multiplied (product.cuh).
//
// Back through time the product is with W_hh^T; the launcher transposes the weights, once for all
// steps, so that both directions read rows.
#include "product.cuh"
#include "rows.cuh"

template <int ROWS> struct Stage {
  States states;
  REAL weights[ROWS * UNITS][PITCH];

  // Line (row, u) is row row * H + unit0 + u of the weights, `depth` long.
  __device__ __forceinline__ void load_weights(const REAL* from, const Layer& layer, int unit0,
                                               int first, int depth) {
    for (unsigned i = threadIdx.x; i < ROWS * UNITS * STAGE; i += TEAM) {
      const int line = i / STAGE, column = i % STAGE * CHUNK, term = first + column;
      if (term >= depth) continue;
      const int unit = unit0 + line % UNITS;
      const long long row = (long long)(line / UNITS) * layer.H + unit;
      copy_chunk(&weights[line][column], from + row * depth + term,
                 unit < layer.H ? depth - term : 0, depth % CHUNK == 0);
    }
  }
};

// A block's units and sequences: blocks side by side share weights.
struct Tile {
  int n0, unit0;
  __device__ __forceinline__ explicit Tile(const Layer& layer) {
    const unsigned along = tiles(layer.N, SEQUENCES);
    n0 = blockIdx.x % along * SEQUENCES, unit0 = blockIdx.x / along * UNITS;
  }
};

// Leaves in `parts` what the weights' rows and the sequences' rows, `depth` long, give.
template <int ROWS>
__device__ __forceinline__ void product(Stage<ROWS>* ring, Parts<ROWS>& parts,
                                        const REAL* const* rows, const REAL* weights,
                                        const Layer& layer, int unit0, int depth) {
  REAL sums[ROWS][EACH] = {};
  run_stages(
      tiles(depth, DEPTH),
      [&](int stage) {
        Stage<ROWS>& to = ring[stage % STAGES];
        to.states.load(rows, stage * DEPTH, depth);
        to.load_weights(weights, layer, unit0, stage * DEPTH, depth);
      },
      [&](int stage) {
        const Stage<ROWS>& of = ring[stage % STAGES];
        const int left = tiles(depth - stage * DEPTH, CHUNK);
        multiply(of.states, &of.weights[0][0], PITCH, left < STAGE ? left : STAGE, sums);
      });
  parts.store(sums);
  __syncthreads();  // the other warps' parts are there
}

// Step t, from the one before it.
extern "C" __global__ void __launch_bounds__(TEAM, 4)
    lstm_fprop_fused_step(const REAL* w_hh, const REAL* h0, const REAL* c0,
                          const long long* lengths, int reverse, int N, int L, int H, int t,
                          REAL* gates, REAL* h, REAL* c) {
  __shared__ Stage<GATES> ring[STAGES];
  __shared__ Parts<GATES> parts;
  __shared__ const REAL* rows[SEQUENCES];
  const Layer layer = {N, L, hidden_units(H), lengths, reverse};
  const Tile tile(layer);
  if (threadIdx.x < SEQUENCES) {
    const int n = tile.n0 + threadIdx.x;
    rows[threadIdx.x] = n < N && layer.has(n, t) ? layer.start(h, h0, n, t) : nullptr;
  }
  __syncthreads();  // the rows are told
  product(ring, parts, rows, w_hh, layer, tile.unit0, layer.H);
  parts.finish(layer, tile.n0, tile.unit0, [&](int n, int unit, const REAL (&sums)[GATES]) {
    step_forward(layer, n, unit, t, sums, c0, gates, h, c);
  });
}

// Step t, from the one read after it. One more launch, with the t before the first, ends in gh0.
// w_t: W_hh transposed, H 4H.
extern "C" __global__ void __launch_bounds__(TEAM, 4)
    lstm_bprop_fused_step(const REAL* w_t, const REAL* gh, const REAL* gc, const REAL* c0,
                          const long long* lengths, int reverse, int N, int L, int H, int t,
                          const REAL* c, const REAL* gates, REAL* ga, REAL* gh0, REAL* gc0) {
  __shared__ Stage<1> ring[STAGES];
  __shared__ Parts<1> parts;
  __shared__ const REAL* rows[SEQUENCES];
  const Layer layer = {N, L, hidden_units(H), lengths, reverse};
  const Tile tile(layer);
  const int depth = GATES * layer.H, later = layer.after(t);
  if (threadIdx.x < SEQUENCES) {
    const int n = tile.n0 + threadIdx.x;
    rows[threadIdx.x] =
        n < N && layer.has(n, later) ? ga + layer.row(n, later) * depth : nullptr;
  }
  __syncthreads();  // the rows are told
  product(ring, parts, rows, w_t, layer, tile.unit0, depth);
  parts.finish(layer, tile.n0, tile.unit0, [&](int n, int unit, const REAL (&sums)[1]) {
    step_back(layer, n, unit, t, sums[0], {gh, gc, c0, c, gates, ga, gh0, gc0});
  });
}
