// Four channels at a time: numbers by 128-bit loads and stores, offsets in a window by 32-bit ones.
#pragma once
#include "../common.cuh"
#include "geometry.cuh"

__device__ __forceinline__ void load_four(const REAL* from, REAL (&to)[4]) {
  const auto four = load4(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}
__device__ __forceinline__ void store_four(REAL* to, const REAL (&from)[4]) {
  store4(to, {from[0], from[1], from[2], from[3]});
}

#ifdef WIDE_OFFSETS
using FourOffsets = int4;
#else
using FourOffsets = uchar4;
#endif
__device__ __forceinline__ void load_four(const Offset* from, int (&to)[4]) {
  const FourOffsets four = *reinterpret_cast<const FourOffsets*>(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}
__device__ __forceinline__ void store_four(Offset* to, const int (&from)[4]) {
  *reinterpret_cast<FourOffsets*>(to) = {Offset(from[0]), Offset(from[1]), Offset(from[2]),
                                         Offset(from[3])};
}
