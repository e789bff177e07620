// Tensor cores: which lane holds which element, rounding to the short types, and the collectives.
//
// A lane's registers hold its share (a fragment) of each operand. With g = lane / 4, t = lane % 4:
//
//     mma 16x8x8 TF32, one value a register      mma 16x8x16 bf16/f16, two (p = 0, 1) a register
//     a[r] = A[g + 8 (r & 1)][t + 4 (r >> 1)]    a[r] = A[g + 8 (r & 1)][2 t + p + 8 (r >> 1)]
//     b[r] = B[t + 4 r][g]                       b[r] = B[2 t + p + 8 r][g]
//     d[r] = D[g + 8 (r >> 1)][2 t + (r & 1)]    d[r] as on the left
//
// Source: the PTX ISA, "Matrix Fragments for mma.m16n8k8" and "... mma.m16n8k16".
#pragma once
#include <math.h>

#include <cstring>

#include "runtime.h"

namespace emulator {

EMULATOR_OWN inline unsigned bits_of(float value) {
  unsigned bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// cvt.rn.bf16: the upper half of a float, rounded to nearest, ties to even.
EMULATOR_OWN inline unsigned bf16_bits(float value) {
  if (value != value) return 0x7fff;
  unsigned bits = bits_of(value);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// cvt.rn.f16: 5 bits of exponent, 10 of mantissa, rounded to nearest, ties to even.
EMULATOR_OWN inline unsigned f16_bits(float value) {
  if (value != value) return 0x7fff;
  unsigned bits = bits_of(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size >= 0x477ff000) return sign | 0x7c00;  // 65520 and above: infinity
  if (size < 0x38800000) {  // below 2^-14: multiples of 2^-24, which adding 0.5 rounds to
    float shifted = fabsf(value) + 0.5f;
    return sign | (bits_of(shifted) - bits_of(0.5f));
  }
  return sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
}

// A lane's operands of one mma; `d` is both the sum so far and the result.
struct Mma {
  float d[4];
  unsigned a[4], b[2];
};

EMULATOR_OWN inline void mma(const char* name, Operation run, float* d, const unsigned* a,
                             const unsigned* b, Site site) {
  Mma payload{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  meet_all(name, run, &payload, site);
  for (int r = 0; r < 4; r++) d[r] = payload.d[r];
}

// ldmatrix: lane 8 i + j comes with the address of row j of matrix i, eight 16-bit elements.
// Each lane gets, of every matrix, the two elements of row g = lane / 4 in columns 2 t and
// 2 t + 1 (t = lane % 4); of a transposed one, column g in rows 2 t and 2 t + 1.
template <int COUNT, bool TRANSPOSED>
struct LdMatrix {
  uint16_t row[8];
  unsigned out[COUNT];

  EMULATOR_OWN static void run(void* const* payloads, unsigned) {
    for (int lane = 0; lane < 32; lane++) {
      int g = lane / 4, t = lane % 4;
      for (int i = 0; i < COUNT; i++) {
        auto at = [&](int row, int column) EMULATOR_OWN -> unsigned {
          return static_cast<LdMatrix*>(payloads[8 * i + row])->row[column];
        };
        unsigned low = TRANSPOSED ? at(2 * t, g) : at(g, 2 * t);
        unsigned high = TRANSPOSED ? at(2 * t + 1, g) : at(g, 2 * t + 1);
        static_cast<LdMatrix*>(payloads[lane])->out[i] = low | high << 16;
      }
    }
  }
};

template <int COUNT, bool TRANSPOSED>
EMULATOR_OWN inline void ldmatrix(const char* name, unsigned* out, const void* row, Site site) {
  LdMatrix<COUNT, TRANSPOSED> payload = {};
  if (now.lane < 8 * COUNT) {  // the others' addresses are not used
    if (reinterpret_cast<uintptr_t>(row) % 16) misaligned(name, row, 16, site);
    checker::access(row, 16, Access::read, site);
    memcpy(payload.row, row, 16);
  }
  meet_all(name, LdMatrix<COUNT, TRANSPOSED>::run, &payload, site);
  for (int i = 0; i < COUNT; i++) out[i] = payload.out[i];
}

}  // namespace emulator

// ---- the names that ptx.cuh defines for a GPU -------------------------------------------------

// cvt.rna.tf32: the upper 19 bits of a float, rounded to nearest, ties away from zero.
EMULATOR_OWN inline unsigned to_tf32(float value) {
  if (value != value) return 0x7fffffff;
  return (emulator::bits_of(value) + 0x1000) & 0xffffe000;
}
// Two values rounded to 16 bits each, `low` in the lower half.
EMULATOR_OWN inline unsigned pack_bf16x2(float low, float high) {
  return emulator::bf16_bits(low) | emulator::bf16_bits(high) << 16;
}
EMULATOR_OWN inline unsigned pack_f16x2(float low, float high) {
  return emulator::f16_bits(low) | emulator::f16_bits(high) << 16;
}

#define EMULATOR_MMA(name, run)                                                                  \
  EMULATOR_OWN inline void name(float* d, const unsigned* a, const unsigned* b,                  \
                                emulator::Site site = emulator::Site::here()) {                  \
    emulator::mma(#name, emulator::run, d, a, b, site);                                          \
  }
EMULATOR_MMA(mma_tf32_16x8x8, run_mma_tf32)
EMULATOR_MMA(mma_bf16_16x8x16, run_mma_bf16)
EMULATOR_MMA(mma_f16_16x8x16, run_mma_f16)
#undef EMULATOR_MMA

#define EMULATOR_LDMATRIX(name, count, transposed)                                               \
  EMULATOR_OWN inline void name(unsigned* out, const void* row,                                  \
                                emulator::Site site = emulator::Site::here()) {                  \
    emulator::ldmatrix<count, transposed>(#name, out, row, site);                                \
  }
EMULATOR_LDMATRIX(ldmatrix_x1, 1, false)
EMULATOR_LDMATRIX(ldmatrix_x2, 2, false)
EMULATOR_LDMATRIX(ldmatrix_x4, 4, false)
EMULATOR_LDMATRIX(ldmatrix_x1_trans, 1, true)
EMULATOR_LDMATRIX(ldmatrix_x2_trans, 2, true)
EMULATOR_LDMATRIX(ldmatrix_x4_trans, 4, true)
#undef EMULATOR_LDMATRIX
