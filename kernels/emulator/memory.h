// Memory accesses that have a name: vector loads and stores, atomics, asynchronous copies.
//
// The compiler splits a 16-byte access into four, or does without it; one with a name is told to
// the checker whole, and faults where its address is not a multiple of its size, as on a GPU.
#pragma once
#include "runtime.h"

namespace emulator {

template <class V>
EMULATOR_OWN inline V load(const void* address, const char* what, Site site) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(V)) misaligned(what, address, sizeof(V), site);
  checker::access(address, sizeof(V), Access::read, site);
  V value;
  memcpy(&value, address, sizeof value);
  return value;
}

template <class V>
EMULATOR_OWN inline void store(void* address, const V& value, const char* what, Site site) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(V)) misaligned(what, address, sizeof(V), site);
  checker::access(address, sizeof(V), Access::write, site);
  memcpy(address, &value, sizeof value);
}

}  // namespace emulator

// ---- vector loads and stores: common.cuh defines the same names for a GPU ---------------------

struct __align__(16) Double4 {
  double x, y, z, w;
};

EMULATOR_OWN inline float2 load2(const float* p, emulator::Site site = emulator::Site::here()) {
  return emulator::load<float2>(p, "load2", site);
}
EMULATOR_OWN inline double2 load2(const double* p, emulator::Site site = emulator::Site::here()) {
  return emulator::load<double2>(p, "load2", site);
}
EMULATOR_OWN inline float4 load4(const float* p, emulator::Site site = emulator::Site::here()) {
  return emulator::load<float4>(p, "load4", site);
}
// 128 bits are the most that one access moves: two of them.
EMULATOR_OWN inline Double4 load4(const double* p, emulator::Site site = emulator::Site::here()) {
  double2 low = emulator::load<double2>(p, "load4", site);
  double2 high = emulator::load<double2>(p + 2, "load4", site);
  return {low.x, low.y, high.x, high.y};
}
EMULATOR_OWN inline void store2(float* p, float2 v, emulator::Site site = emulator::Site::here()) {
  emulator::store(p, v, "store2", site);
}
EMULATOR_OWN inline void store2(double* p, double2 v,
                                emulator::Site site = emulator::Site::here()) {
  emulator::store(p, v, "store2", site);
}
EMULATOR_OWN inline void store4(float* p, float4 v, emulator::Site site = emulator::Site::here()) {
  emulator::store(p, v, "store4", site);
}
EMULATOR_OWN inline void store4(double* p, Double4 v,
                                emulator::Site site = emulator::Site::here()) {
  emulator::store(p, double2{v.x, v.y}, "store4", site);
  emulator::store(p + 2, double2{v.z, v.w}, "store4", site);
}

// The read-only cache and the streaming hints change where data is kept, not what is read.
template <class T>
EMULATOR_OWN inline T __ldg(const T* p, emulator::Site site = emulator::Site::here()) {
  return emulator::load<T>(p, "__ldg", site);
}
template <class T>
EMULATOR_OWN inline T __ldcs(const T* p, emulator::Site site = emulator::Site::here()) {
  return emulator::load<T>(p, "__ldcs", site);
}
template <class T>
EMULATOR_OWN inline void __stcs(T* p, T value, emulator::Site site = emulator::Site::here()) {
  emulator::store(p, value, "__stcs", site);
}

// ---- atomics ----------------------------------------------------------------------------------
// Each returns what was there before. Blocks may run on several OS threads, so these are atomic
// in earnest: read, work out the new value, and put it there unless another came between.

namespace emulator {

template <class T>
struct Same {  // keeps T from being deduced from the value: atomicAdd(unsigned*, 1) is meant
  using type = T;
};

template <class T, class NewValue>
EMULATOR_OWN inline T atomic(const char* name, T* p, NewValue new_value, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics work on 4 or 8 bytes");
  using Bits = typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type;
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) misaligned(name, p, sizeof(T), site);
  checker::access(p, sizeof(T), Access::atomic, site);
  Bits* place = reinterpret_cast<Bits*>(p);
  Bits before = __atomic_load_n(place, __ATOMIC_RELAXED), after;
  T old;
  do {
    memcpy(&old, &before, sizeof old);
    T value = new_value(old);
    memcpy(&after, &value, sizeof after);
  } while (!__atomic_compare_exchange_n(place, &before, after, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
  return old;
}

}  // namespace emulator

#define EMULATOR_ATOMIC(name, expression)                                                     \
  template <class T>                                                                          \
  EMULATOR_OWN inline T name(T* p, typename emulator::Same<T>::type value,                    \
                             emulator::Site site = emulator::Site::here()) {                  \
    return emulator::atomic(#name, p, [value](T old) -> T { return expression; }, site);      \
  }
EMULATOR_ATOMIC(atomicAdd, old + value)
EMULATOR_ATOMIC(atomicSub, old - value)
EMULATOR_ATOMIC(atomicMin, value < old ? value : old)
EMULATOR_ATOMIC(atomicMax, old < value ? value : old)
EMULATOR_ATOMIC(atomicExch, (static_cast<void>(old), value))
EMULATOR_ATOMIC(atomicAnd, old & value)
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicXor, old ^ value)
EMULATOR_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
EMULATOR_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef EMULATOR_ATOMIC

template <class T>
EMULATOR_OWN inline T atomicCAS(T* p, typename emulator::Same<T>::type expected,
                                typename emulator::Same<T>::type value,
                                emulator::Site site = emulator::Site::here()) {
  return emulator::atomic(
      "atomicCAS", p, [=](T old) -> T { return old == expected ? value : old; }, site);
}

// ---- asynchronous copies from global to shared memory: ptx.cuh has them for a GPU -------------
// Where `inside` is false nothing is read, and zeros are written.

EMULATOR_OWN inline void cp_async_4(void* target, const void* source, bool inside = true,
                                    emulator::Site site = emulator::Site::here()) {
  emulator::copy_async(target, source, 4, inside, site);
}
EMULATOR_OWN inline void cp_async_8(void* target, const void* source, bool inside = true,
                                    emulator::Site site = emulator::Site::here()) {
  emulator::copy_async(target, source, 8, inside, site);
}
EMULATOR_OWN inline void cp_async_16(void* target, const void* source, bool inside = true,
                                     emulator::Site site = emulator::Site::here()) {
  emulator::copy_async(target, source, 16, inside, site);
}
EMULATOR_OWN inline void cp_async_commit() { emulator::copy_commit(); }
template <int GROUPS>
EMULATOR_OWN inline void cp_async_wait() {
  emulator::copy_wait(GROUPS);
}
