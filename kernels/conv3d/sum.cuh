// A sum of many terms that keeps what rounding takes from it (Kahan, 1965): a plain sum of float32
// loses a digit for each factor of a hundred or so in the number of terms.
#pragma once

struct Sum {
  REAL value = 0, lost = 0;
  __device__ __forceinline__ void add(REAL term) {
    const REAL mended = term - lost, sum = value + mended;
    lost = (sum - value) - mended;
    value = sum;
  }
};
