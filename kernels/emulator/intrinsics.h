// Arithmetic under CUDA's names, where the C++ library has none of that name.
//
// The fast ones (`__expf`) are as exact as the others here: a GPU's errs by a few units in the
// last place more, and a test's tolerance has to allow for it.
#pragma once
#include "runtime.h"

// ---- min and max: a NaN loses against a number ------------------------------------------------

namespace emulator {
template <class A, class B>
using Common = decltype(true ? A() : B());  // what the usual conversions make of the two
}

template <class A, class B>
EMULATOR_OWN constexpr emulator::Common<A, B> min(A a, B b) {
  emulator::Common<A, B> x = a, y = b;
  return x < y || y != y ? x : y;
}
template <class A, class B>
EMULATOR_OWN constexpr emulator::Common<A, B> max(A a, B b) {
  emulator::Common<A, B> x = a, y = b;
  return x > y || y != y ? x : y;
}
EMULATOR_OWN inline float __saturatef(float x) { return min(max(x, 0.0f), 1.0f); }

// ---- floating point ---------------------------------------------------------------------------

EMULATOR_OWN inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
EMULATOR_OWN inline double rsqrt(double x) { return 1.0 / sqrt(x); }
// The C library declares functions with these names, so only macros can stand for them.
#define __expf(x) expf(x)
#define __exp2f(x) exp2f(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __powf(x, y) powf(x, y)
#define __tanhf(x) tanhf(x)
EMULATOR_OWN inline float __fdividef(float a, float b) { return a / b; }

// Rounded to nearest, and never contracted with their neighbours into an fma: the compiler does not
// see through the empty instruction.
namespace emulator {
template <class T>
EMULATOR_OWN inline T rounded(T value) {
  asm("" : "+m"(value));
  return value;
}
}  // namespace emulator
EMULATOR_OWN inline float __fadd_rn(float a, float b) { return emulator::rounded(a + b); }
EMULATOR_OWN inline float __fsub_rn(float a, float b) { return emulator::rounded(a - b); }
EMULATOR_OWN inline float __fmul_rn(float a, float b) { return emulator::rounded(a * b); }
EMULATOR_OWN inline double __dadd_rn(double a, double b) { return emulator::rounded(a + b); }
EMULATOR_OWN inline double __dsub_rn(double a, double b) { return emulator::rounded(a - b); }
EMULATOR_OWN inline double __dmul_rn(double a, double b) { return emulator::rounded(a * b); }
EMULATOR_OWN inline float __fdiv_rn(float a, float b) { return a / b; }
EMULATOR_OWN inline float __frcp_rn(float a) { return 1.0f / a; }
EMULATOR_OWN inline float __fsqrt_rn(float a) { return sqrtf(a); }
EMULATOR_OWN inline float __frsqrt_rn(float a) {
  return static_cast<float>(1.0 / sqrt(static_cast<double>(a)));
}
EMULATOR_OWN inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
EMULATOR_OWN inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// ---- the bits of a value ----------------------------------------------------------------------

namespace emulator {
template <class To, class From>
EMULATOR_OWN inline To reinterpret(From value) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To out;
  memcpy(&out, &value, sizeof out);
  return out;
}
}  // namespace emulator

EMULATOR_OWN inline int __float_as_int(float x) { return emulator::reinterpret<int>(x); }
EMULATOR_OWN inline unsigned __float_as_uint(float x) { return emulator::reinterpret<unsigned>(x); }
EMULATOR_OWN inline float __int_as_float(int x) { return emulator::reinterpret<float>(x); }
EMULATOR_OWN inline float __uint_as_float(unsigned x) { return emulator::reinterpret<float>(x); }
EMULATOR_OWN inline long long __double_as_longlong(double x) {
  return emulator::reinterpret<long long>(x);
}
EMULATOR_OWN inline double __longlong_as_double(long long x) {
  return emulator::reinterpret<double>(x);
}

// ---- conversions: to nearest (ties to even), towards zero, down, up ---------------------------

EMULATOR_OWN inline int __float2int_rn(float x) { return static_cast<int>(nearbyintf(x)); }
EMULATOR_OWN inline int __float2int_rz(float x) { return static_cast<int>(x); }
EMULATOR_OWN inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
EMULATOR_OWN inline int __float2int_ru(float x) { return static_cast<int>(ceilf(x)); }
EMULATOR_OWN inline unsigned __float2uint_rn(float x) {
  return static_cast<unsigned>(nearbyintf(x));
}
EMULATOR_OWN inline float __int2float_rn(int x) { return static_cast<float>(x); }
EMULATOR_OWN inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
EMULATOR_OWN inline float __double2float_rn(double x) { return static_cast<float>(x); }

// ---- integers ---------------------------------------------------------------------------------

EMULATOR_OWN inline int __popc(unsigned x) { return __builtin_popcount(x); }
EMULATOR_OWN inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
EMULATOR_OWN inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
EMULATOR_OWN inline int __clzll(long long x) {
  return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
EMULATOR_OWN inline int __ffs(int x) { return __builtin_ffs(x); }
EMULATOR_OWN inline int __ffsll(long long x) { return __builtin_ffsll(x); }
EMULATOR_OWN inline unsigned __brev(unsigned x) {
  unsigned out = 0;
  for (int i = 0; i < 32; i++) out |= (x >> i & 1) << (31 - i);
  return out;
}
EMULATOR_OWN inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
EMULATOR_OWN inline int __mulhi(int a, int b) {
  return static_cast<int>(static_cast<int64_t>(a) * b >> 32);
}
EMULATOR_OWN inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
EMULATOR_OWN inline int __mul24(int a, int b) {  // of the low 24 bits
  return static_cast<int>(static_cast<int64_t>(a << 8 >> 8) * (b << 8 >> 8));
}
EMULATOR_OWN inline unsigned __umul24(unsigned a, unsigned b) {
  return (a & 0xffffff) * (b & 0xffffff);
}
// Bits 31..0 of high:low shifted; `shift` counts modulo 32.
EMULATOR_OWN inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<unsigned>(both << (shift & 31) >> 32);
}
EMULATOR_OWN inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<unsigned>(both >> (shift & 31));
}
// Four bytes out of the eight of y:x, one for each hexadecimal digit of `selector`.
EMULATOR_OWN inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  uint64_t both = static_cast<uint64_t>(y) << 32 | x;
  unsigned out = 0;
  for (int i = 0; i < 4; i++) {
    unsigned digit = selector >> 4 * i & 0xf;
    unsigned byte = static_cast<unsigned>(both >> 8 * (digit & 7)) & 0xff;
    if (digit & 8) byte = byte & 0x80 ? 0xff : 0;  // the digit's highest bit: repeat the sign
    out |= byte << 8 * i;
  }
  return out;
}
