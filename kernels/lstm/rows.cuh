// Rows for the products that make the weights' gradients, which run over all steps at once.
#pragma once
#include "layer.cuh"

// to[n, t] = from[n, t], or with `starts` what the step started from: from of the step before, or
// first[n]. Zeros past the end, where from may hold anything. Rows of `columns`; a thread each
// element.
extern "C" __global__ void lstm_rows(const REAL* from, const REAL* first, const long long* lengths,
                                     int reverse, int starts, int N, int L, int columns,
                                     REAL* to) {
  const Layer layer = {N, L, columns, lengths, reverse};
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x, row = at / columns;
  const int n = int(row / L), t = int(row % L), column = int(at % columns);
  if (n >= N) return;
  const REAL* given = starts ? layer.start(from, first, n, t) : from + row * columns;
  to[at] = layer.has(n, t) ? given[column] : REAL(0);
}
