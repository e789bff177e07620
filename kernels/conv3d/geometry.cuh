// The sizes of a 3-D convolution: members of one constant called `geometry`.
//
// Letters as everywhere: x N D H W C, w K T R S C/groups, y N Z P Q K, the order in memory too.
// A kernel is compiled for one geometry (-DGEOMETRY_CONSTANTS -DGEOMETRY_N=2 ...: divisions by a
// size become multiplications, loops unroll), or for all, and `geometry` is filled before a launch.
#pragma once
#include "../real.cuh"

// `padding` is the one at the low end; the one at the high end shows in Z, P, Q.
#define GEOMETRY_MEMBERS(MEMBER)                                  \
  MEMBER(N) MEMBER(C) MEMBER(D) MEMBER(H) MEMBER(W)               \
  MEMBER(K) MEMBER(T) MEMBER(R) MEMBER(S)                         \
  MEMBER(Z) MEMBER(P) MEMBER(Q)                                   \
  MEMBER(stride_d) MEMBER(stride_h) MEMBER(stride_w)              \
  MEMBER(padding_d) MEMBER(padding_h) MEMBER(padding_w)           \
  MEMBER(dilation_d) MEMBER(dilation_h) MEMBER(dilation_w)        \
  MEMBER(groups)

#ifdef GEOMETRY_CONSTANTS
struct Geometry {
#define MEMBER(name) static constexpr int name = GEOMETRY_##name;
  GEOMETRY_MEMBERS(MEMBER)
#undef MEMBER
};
__device__ constexpr Geometry geometry = {};
#else
struct Geometry {
#define MEMBER(name) int name;
  GEOMETRY_MEMBERS(MEMBER)
#undef MEMBER
};
__constant__ Geometry geometry;
#endif

// Channels of one group: x has C of them in all, w sees only its group's.
__device__ __forceinline__ int group_C() { return geometry.C / geometry.groups; }
__device__ __forceinline__ int group_K() { return geometry.K / geometry.groups; }
