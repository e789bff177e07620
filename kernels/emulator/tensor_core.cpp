// mma.sync: the product of two small matrices that lie spread over the lanes of a warp.
#include "tensor_core.h"

namespace emulator {

// One value of a register that holds `count` of them.
static float tf32_value(unsigned bits, int) {
  bits &= 0xffffe000u;  // the hardware does not look at the lower bits
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float bf16_value(unsigned pair, int which) {
  unsigned bits = (pair >> 16 * which) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float f16_value(unsigned pair, int which) {
  unsigned half = pair >> 16 * which & 0xffff;
  unsigned sign = (half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: multiples of 2^-24
    float size = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -size : size;
  }
  unsigned bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | mantissa << 13;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// A sum cut off to a float: towards zero.
static float cut_off(double sum) {
  int64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  bits &= ~((int64_t{1} << 29) - 1);  // a double has 29 bits of fraction more
  memcpy(&sum, &bits, sizeof sum);
  return static_cast<float>(sum);
}

// D (16 x 8) += A (16 x K) B (K x 8), the fragments as tensor_core.h says. As on sm_80, K/2 products
// at a time are added to the sum so far, all at once, and what a float cannot hold is cut off, not
// rounded (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ
// Computer Science 7, 2021). Later GPUs add up more at a time, so they cut off less often.
template <int K, float (*value)(unsigned, int)>
static void run_mma(void* const* payloads) {
  constexpr int PER_REGISTER = K / 8;
  float A[16][K], B[K][8], D[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const Mma& mine = *static_cast<Mma*>(payloads[lane]);
    int g = lane / 4, t = lane % 4;
    for (int p = 0; p < PER_REGISTER; p++) {
      int k = PER_REGISTER * t + p;
      for (int r = 0; r < 4; r++) A[g + 8 * (r & 1)][k + K / 2 * (r >> 1)] = value(mine.a[r], p);
      for (int r = 0; r < 2; r++) B[k + K / 2 * r][g] = value(mine.b[r], p);
    }
    for (int r = 0; r < 4; r++) D[g + 8 * (r >> 1)][2 * t + (r & 1)] = mine.d[r];
  }
  for (int i = 0; i < 16; i++) {
    for (int half = 0; half < K; half += K / 2) {
      double sums[8];
      for (int j = 0; j < 8; j++) sums[j] = D[i][j];
      for (int k = half; k < half + K / 2; k++)
        for (int j = 0; j < 8; j++) sums[j] += double(A[i][k]) * B[k][j];
      for (int j = 0; j < 8; j++) D[i][j] = cut_off(sums[j]);
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    Mma& mine = *static_cast<Mma*>(payloads[lane]);
    int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; r++) mine.d[r] = D[g + 8 * (r >> 1)][2 * t + (r & 1)];
  }
}

void run_mma_tf32(void* const* payloads, unsigned) { run_mma<8, tf32_value>(payloads); }
void run_mma_bf16(void* const* payloads, unsigned) { run_mma<16, bf16_value>(payloads); }
void run_mma_f16(void* const* payloads, unsigned) { run_mma<16, f16_value>(payloads); }

}  // namespace emulator
