// The LSTM by its formula, a launch for each step: a thread for each hidden unit of each sequence.
//
// The first step of the ladder, which the others are measured by. Nothing is shared: a thread reads
// the four rows of W_hh that make its unit's gates, and its sequence's whole state, from global
// memory. What the inputs give to the gates of all steps was one matrix product before.
#include "../conv3d/sum.cuh"
#include "layer.cuh"
#include "rows.cuh"

// Which unit of which sequence: units run fastest.
__device__ __forceinline__ long long element() {
  return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

// Step t, from the one before it.
extern "C" __global__ void lstm_fprop_naive(const REAL* w_hh, const REAL* h0, const REAL* c0,
                                            const long long* lengths, int reverse, int N, int L,
                                            int H, int t, REAL* gates, REAL* h, REAL* c) {
  const Layer layer = {N, L, hidden_units(H), lengths, reverse};
  const int n = int(element() / layer.H), unit = int(element() % layer.H);
  if (n >= N) return;
  REAL sums[GATES] = {};
  if (layer.has(n, t)) {
    const REAL* state = layer.start(h, h0, n, t);
    for (int gate = 0; gate < GATES; gate++) {
      const REAL* weights = w_hh + ((long long)gate * layer.H + unit) * layer.H;
      Sum sum;
      for (int k = 0; k < layer.H; k++) sum.add(weights[k] * state[k]);
      sums[gate] = sum.value;
    }
  }
  step_forward(layer, n, unit, t, sums, c0, gates, h, c);
}

// Step t, from the one read after it. One more launch, with the t before the first, ends in gh0.
extern "C" __global__ void lstm_bprop_naive(const REAL* w_hh, const REAL* gh, const REAL* gc,
                                            const REAL* c0, const long long* lengths, int reverse,
                                            int N, int L, int H, int t, const REAL* c,
                                            const REAL* gates, REAL* ga, REAL* gh0, REAL* gc0) {
  const Layer layer = {N, L, hidden_units(H), lengths, reverse};
  const int n = int(element() / layer.H), unit = int(element() % layer.H);
  if (n >= N) return;
  Sum sum;
  if (layer.has(n, layer.after(t))) {
    const REAL* sent = ga + layer.row(n, layer.after(t)) * GATES * layer.H;
    for (int k = 0; k < GATES * layer.H; k++) sum.add(sent[k] * w_hh[(long long)k * layer.H + unit]);
  }
  step_back(layer, n, unit, t, sum.value, {gh, gc, c0, c, gates, ga, gh0, gc0});
}
