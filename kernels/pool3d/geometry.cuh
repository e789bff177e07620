// The sizes of a 3-D pooling: members of one constant called `geometry`.
//
// Letters as everywhere: x N D H W C, y N Z P Q C, the order in memory too; T R S is the window.
// A kernel is compiled for one geometry (-DGEOMETRY_CONSTANTS -DGEOMETRY_N=2 ...: divisions by a
// size become multiplications, loops unroll), or for all, and `geometry` is filled before a launch.
#pragma once
#include "../real.cuh"

// `padding` is the same at both ends.
#define GEOMETRY_MEMBERS(MEMBER)                                  \
  MEMBER(N) MEMBER(C) MEMBER(D) MEMBER(H) MEMBER(W)               \
  MEMBER(T) MEMBER(R) MEMBER(S)                                   \
  MEMBER(Z) MEMBER(P) MEMBER(Q)                                   \
  MEMBER(stride_d) MEMBER(stride_h) MEMBER(stride_w)              \
  MEMBER(padding_d) MEMBER(padding_h) MEMBER(padding_w)           \
  MEMBER(dilation_d) MEMBER(dilation_h) MEMBER(dilation_w)

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

// Where a maximum stood, (t * R + r) * S + s: a byte, unless the window has more than 256 cells.
#ifdef WIDE_OFFSETS
using Offset = int;
#else
using Offset = unsigned char;
#endif
