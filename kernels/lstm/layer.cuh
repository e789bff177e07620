// One layer in one direction: where its numbers lie, how its steps follow each other, and what a
// step does with the four gates of a hidden unit.
//
// N sequences of L steps, H hidden units. h, c and their gradients are N L H, gates and ga N L 4H,
// h0 and c0 N H. Gates go in the order i, f, g, o. The equations stand in reference.py.
#pragma once
#include "../common.cuh"
#include "../real.cuh"

constexpr int GATES = 4;

// Hidden units: compiled in (-DHIDDEN=512), or as the launch tells. N and L, which change from
// batch to batch, it always tells.
__device__ __forceinline__ int hidden_units(int told) {
#ifdef HIDDEN
  return HIDDEN;
#else
  return told;
#endif
}

struct Layer {
  int N, L, H;
  const long long* lengths;  // steps of each sequence, or null where all have L
  int reverse;               // sequences are read from their last step to their first

  // Whether sequence n has a step t.
  __device__ __forceinline__ bool has(int n, int t) const {
    return t >= 0 && t < (lengths != nullptr ? int(lengths[n]) : L);
  }
  // The step that is read before this one, and the one that is read after it.
  __device__ __forceinline__ int before(int t) const { return reverse ? t + 1 : t - 1; }
  __device__ __forceinline__ int after(int t) const { return reverse ? t - 1 : t + 1; }

  // Which row of an array N L ... is a step's.
  __device__ __forceinline__ long long row(int n, int t) const { return (long long)n * L + t; }
  // The state that step t of sequence n starts from: a row of H.
  __device__ __forceinline__ const REAL* start(const REAL* states, const REAL* first, int n,
                                               int t) const {
    const int from = before(t);
    return has(n, from) ? states + row(n, from) * H : first + (long long)n * H;
  }
};

__device__ __forceinline__ REAL sigmoid(REAL a) { return REAL(1) / (REAL(1) + exp(-a)); }

// One unit's step forward. `gates` holds the input's part, biases included, `sums` are the rest,
// W_hh h: activates the gates in place, and steps c and h.
__device__ __forceinline__ void step_forward(const Layer& layer, int n, int unit, int t,
                                             const REAL (&sums)[GATES], const REAL* c0,
                                             REAL* gates, REAL* h, REAL* c) {
  const int H = layer.H;
  REAL* gate = gates + layer.row(n, t) * GATES * H + unit;
  const long long at = layer.row(n, t) * H + unit;
  if (!layer.has(n, t)) {  // past the end
    gate[0] = gate[H] = gate[2 * H] = gate[3 * H] = 0;
    h[at] = c[at] = 0;
    return;
  }
  const REAL i = sigmoid(gate[0] + sums[0]), f = sigmoid(gate[H] + sums[1]);
  const REAL g = tanh(gate[2 * H] + sums[2]), o = sigmoid(gate[3 * H] + sums[3]);
  const REAL cell = f * layer.start(c, c0, n, t)[unit] + i * g;
  gate[0] = i, gate[H] = f, gate[2 * H] = g, gate[3 * H] = o;
  c[at] = cell;
  h[at] = o * tanh(cell);
}

// What reaches the states: from the outputs (gh, gc), and through the steps.
struct Gradients {
  const REAL *gh, *gc;    // N L H
  const REAL *c0, *c;     // N H; N L H
  const REAL* gates;      // N L 4H, activated
  REAL *ga, *gh0, *gc0;   // N L 4H; N H; N H, which carries s_c from step to step
};

// One unit's step back: the gradients ga of the gates' inputs, and s_c. `sum` is what the step read
// after this one sends to h, (W_hh^T ga). The step before the first only passes it on, to gh0.
__device__ __forceinline__ void step_back(const Layer& layer, int n, int unit, int t, REAL sum,
                                          const Gradients& to) {
  const int H = layer.H;
  const bool received = layer.has(n, layer.after(t));
  const REAL s_h = received ? sum : REAL(0);
  const long long state = (long long)n * H + unit;
  REAL* ga = to.ga + layer.row(n, t) * GATES * H + unit;
  if (!layer.has(n, t)) {
    if (received) to.gh0[state] = s_h;
    if (t >= 0 && t < layer.L) ga[0] = ga[H] = ga[2 * H] = ga[3 * H] = 0;
    return;
  }
  const long long at = layer.row(n, t) * H + unit;
  const REAL* gate = to.gates + layer.row(n, t) * GATES * H + unit;
  const REAL i = gate[0], f = gate[H], g = gate[2 * H], o = gate[3 * H], tanh_c = tanh(to.c[at]);
  const REAL g_h = s_h + to.gh[at];
  const REAL s_c = received ? to.gc0[state] : REAL(0);
  const REAL g_c = s_c + to.gc[at] + g_h * o * (1 - tanh_c * tanh_c);
  ga[0] = g_c * g * i * (1 - i);
  ga[H] = g_c * layer.start(to.c, to.c0, n, t)[unit] * f * (1 - f);
  ga[2 * H] = g_c * i * (1 - g * g);
  ga[3 * H] = g_h * tanh_c * o * (1 - o);
  to.gc0[state] = g_c * f;
}
