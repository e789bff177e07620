// A sum of many terms that keeps what rounding takes from it (Kahan, "Further remarks on reducing
// truncation errors", Communications of the ACM 8 (1), 1965): a plain sum of n terms of unit
// variance in float32 is off by about 2e-8 n, and its worst of a million by eight times as much.
#pragma once

struct Sum {
  REAL value = 0, lost = 0;
  __device__ __forceinline__ void add(REAL term) {
    const REAL mended = term - lost, sum = value + mended;
    lost = (sum - value) - mended;
    value = sum;
  }
};
