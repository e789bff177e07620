// The product of recurrent weights and states, as a team of four warps works it out: four hidden
// units, with one row of weights each (back through time) or four (their gates), by SEQUENCES
// sequences.
//
// Each warp sums a quarter of the terms, so that four of them work on a tile small enough for a
// whole GPU to have work; the quarters are added up in their order. Of a warp, eight neighbours
// read eight sequences' chunks, 128 bytes and each bank once, and one chunk of weights; a thread
// multiplies a chunk of each of its rows with one of each of its sequences.
#pragma once
#include "../chunk.cuh"
#include "layer.cuh"

#ifndef SEQUENCES_EACH  // of a thread; the launcher takes fewer where there are few sequences
#define SEQUENCES_EACH (16 / sizeof(REAL))
#endif

constexpr int EACH = SEQUENCES_EACH, SEQUENCES = 8 * EACH;
constexpr int UNITS = 4, PARTS = 4, TEAM = 32 * PARTS;  // threads
constexpr int STAGE = 16, DEPTH = STAGE * CHUNK;         // chunks and terms of a stage
// Lines are a chunk longer: so the same chunk of eight neighbouring lines lies in 32 banks.
constexpr int PITCH = DEPTH + CHUNK;
constexpr int STAGES = 3;  // one is multiplied while two are on their way

__device__ __forceinline__ int tiles(int count, int size) { return (count + size - 1) / size; }

// A stage of the states (or of ga) of a tile of sequences.
struct __align__(16) States {
  REAL line[SEQUENCES][PITCH];

  // rows[s]: where the sequence's `depth` terms begin, or null: zeros. Called by all threads.
  __device__ __forceinline__ void load(const REAL* const* rows, int first, int depth) {
    for (unsigned i = threadIdx.x; i < SEQUENCES * STAGE; i += blockDim.x) {
      const int s = i / STAGE, column = i % STAGE * CHUNK, term = first + column;
      if (term >= depth) continue;
      const REAL* row = rows[s];
      copy_chunk(&line[s][column], row + term, row != nullptr ? depth - term : 0,
                 depth % CHUNK == 0);
    }
  }
};

// Adds the products of a stage of so many chunks. `weights`: its first chunk of the team's first
// row; rows of a unit are UNITS lines apart.
template <int ROWS>
__device__ __forceinline__ void multiply(const States& states, const REAL* weights, int pitch,
                                         int chunks, REAL (&sums)[ROWS][EACH]) {
  const int lane = threadIdx.x % 32, part = threadIdx.x / 32 % PARTS;
  const REAL* weight = weights + lane / 8 * pitch;
  for (int q = part; q < chunks; q += PARTS) {
    REAL state[EACH][CHUNK], chunk[CHUNK];
#pragma unroll
    for (int j = 0; j < EACH; j++) load_chunk(&states.line[lane % 8 + 8 * j][q * CHUNK], state[j]);
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
      load_chunk(weight + row * UNITS * pitch + q * CHUNK, chunk);
#pragma unroll
      for (int j = 0; j < EACH; j++) {
#pragma unroll
        for (int e = 0; e < CHUNK; e++) sums[row][j] += chunk[e] * state[j][e];
      }
    }
  }
}

// What the warps of a team have summed up.
template <int ROWS> struct Parts {
  REAL of[PARTS][ROWS][SEQUENCES][UNITS];

  __device__ __forceinline__ void store(const REAL (&sums)[ROWS][EACH]) {
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32 % PARTS;
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
#pragma unroll
      for (int j = 0; j < EACH; j++) of[part][row][lane % 8 + 8 * j][lane / 8] = sums[row][j];
    }
  }
  // Calls cell(n, unit, sums) for each unit and sequence there is, from (n0, unit0) on.
  template <class Cell>
  __device__ __forceinline__ void finish(const Layer& layer, int n0, int unit0, Cell cell) const {
    for (int i = threadIdx.x % TEAM; i < SEQUENCES * UNITS; i += TEAM) {
      const int s = i / UNITS, u = i % UNITS;
      if (n0 + s >= layer.N || unit0 + u >= layer.H) continue;
      REAL sums[ROWS];
#pragma unroll
      for (int row = 0; row < ROWS; row++) {
        REAL sum = of[0][row][s][u];
#pragma unroll
        for (int part = 1; part < PARTS; part++) sum += of[part][row][s][u];
        sums[row] = sum;
      }
      cell(n0 + s, unit0 + u, sums);
    }
  }
};

// Runs the stages of a sum through a ring of at least STAGES: load(stage) begins its copies,
// multiply(stage) uses it.
template <class Load, class Multiply>
__device__ __forceinline__ void run_stages(int stages, Load load, Multiply multiply) {
  for (int stage = 0; stage < STAGES - 1; stage++) {
    if (stage < stages) load(stage);
    cp_async_commit();
  }
  for (int stage = 0; stage < stages; stage++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // all copies of this stage have landed, and the one before is not read now
    if (stage + STAGES - 1 < stages) load(stage + STAGES - 1);
    cp_async_commit();
    multiply(stage);
  }
}
