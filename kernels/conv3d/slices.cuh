// Sums that are cut into slices, each summed by a block of its own, and added up here in a fixed
// order: the result is the same in every run, as it would not be with atomics.
#pragma once
#include "../common.cuh"
#include "sum.cuh"

// What is done to an output on its way out: fprop adds a bias and takes the ReLU where asked.
struct Finish {
  const REAL* bias;  // one for each column, or null
  bool relu;
  __device__ __forceinline__ REAL operator()(REAL value, int column) const {
    if (bias != nullptr) value += bias[column];
    return relu && value < REAL(0) ? REAL(0) : value;
  }
};

// out[i] = sum over slices of partial[slice][i]; a column is i % columns.
extern "C" __global__ void conv3d_sum_slices(const REAL* __restrict__ partial, int slices,
                                             const REAL* __restrict__ bias, int relu, int columns,
                                             REAL* __restrict__ out, long long count) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  Sum sum;
  for (int slice = 0; slice < slices; slice++) sum.add(partial[slice * count + i]);
  out[i] = Finish{bias, relu != 0}(sum.value, bias != nullptr ? int(i % columns) : 0);
}
