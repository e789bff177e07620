// A sum of many terms that keeps what rounding takes from it (Kahan, "Further remarks on reducing
// truncation errors", Communications of the ACM 8 (1), 1965): a plain sum of n terms of unit
// variance in float32 is off by about 2e-8 n, and its worst of a million by eight times as much.
#pragma once
#include "../real.cuh"

struct Sum {
  REAL value = 0, lost = 0;
  __device__ __forceinline__ void add(REAL term) {
    const REAL mended = term - lost, sum = value + mended;
    lost = (sum - value) - mended;
    value = sum;
  }
};

// Adds the next slab of a sum to its total in memory, and returns it: `lost` has what the total has
// lost so far, and is looked at only between the first slab and the last.
__device__ __forceinline__ REAL add_slab(REAL slab, const REAL* total, REAL* lost, bool first,
                                         bool last) {
  Sum sum;
  if (!first) sum = {*total, *lost};
  sum.add(slab);
  if (!last) *lost = sum.lost;
  return sum.value;
}
