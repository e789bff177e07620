// How the tiles of a matrix product, and the slices of its sum, are dealt out to blocks.
#pragma once
#include "geometry.cuh"

__device__ __forceinline__ int tiles(int count, int size) { return (count + size - 1) / size; }

// Where a block stands in the grid: columns run fastest, so that neighbours share a row tile.
struct Block {
  int row_tile, column_tile, group, slice, slices;
};
__device__ __forceinline__ Block block_at(unsigned at, int row_tiles, int column_tiles) {
  Block block;
  block.column_tile = at % column_tiles;
  at /= column_tiles;
  block.row_tile = at % row_tiles;
  at /= row_tiles;
  block.group = at % geometry.groups;
  block.slice = at / geometry.groups;
  block.slices = gridDim.x / (unsigned(column_tiles) * row_tiles * geometry.groups);
  return block;
}

// The slabs of a block, of all that there are: each of them, or a slice, which may be of none.
struct Slabs {
  int begin, end;
  __device__ __forceinline__ Slabs(int all, const Block& block) {
    const unsigned count = all, slices = block.slices;  // the products have up to 32 bits
    begin = count * block.slice / slices;
    end = count * (block.slice + 1) / slices;
  }
};

// The same number, but the compiler does not know it: what follows from it is computed there and
// then, not ahead of a loop and held in registers all through.
__device__ __forceinline__ unsigned opaque(unsigned number) {
#ifdef __CUDACC__
  asm volatile("" : "+r"(number));
#endif
  return number;
}

// One of two types.
template <bool FIRST, class A, class B> struct Choice { using Type = A; };
template <class A, class B> struct Choice<false, A, B> { using Type = B; };
