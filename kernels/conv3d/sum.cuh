// A sum of many terms that keeps what rounding takes from it (Kahan, "Further remarks on reducing
// truncation errors", Communications of the ACM 8 (1), 1965): a plain sum of n terms of unit
// variance in float32 is off by about 2e-8 n, and its worst of a million by eight times as much.
#pragma once
#include "../real.cuh"

// A number, or 0 for NaN: so what is lost of a sum that has become infinite, which is no number,
// does not make it NaN.
__device__ __forceinline__ REAL number(REAL lost) { return lost == lost ? lost : REAL(0); }

struct Sum {
  REAL value = 0, lost = 0;
  __device__ __forceinline__ void add(REAL term) {
    const REAL mended = term - lost, sum = value + mended;
    lost = number((sum - value) - mended);
    value = sum;
  }
};

// Adds a slab of a sum to its total, and leaves in it what rounding has taken from the total: there
// the next slab begins, in place of 0, so that it takes no register to keep it.
__device__ __forceinline__ void add_slab(REAL& total, REAL& slab) {
  const REAL sum = total + slab;
  slab = number(slab - (sum - total));
  total = sum;
}

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
