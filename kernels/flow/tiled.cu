// Several iterations of TV-L1 in one launch, on tiles in shared memory.
//
// What changed since naive.cu, and why it helps: there each half of an iteration was a launch, and
// every number went through global memory. Here a block copies a tile of 32 x 32 pixels, does up to
// TOGETHER iterations of both halves, and writes what is within its margin of TOGETHER pixels: an
// iteration reads one pixel to each side, so that what is wrong at the edge of a tile comes no
// further. With four, that is 24 x 24 pixels, and 10 (32/24)^2 + 6 = 24 numbers move for four
// iterations of a pixel, in the place of 88. No block waits for another, and each pixel is computed
// by the same operations in the same order as there.
#include "tvl1.cuh"

#ifndef TOGETHER  // as the launcher has it
#define TOGETHER 4
#endif

constexpr int SIDE = 32;
constexpr int ROWS = 4;  // of a thread, one below the other
constexpr int INNER = SIDE - 2 * TOGETHER;
static_assert(INNER > 0, "the margins leave nothing of a tile");

extern "C" __global__ void __launch_bounds__(SIDE * SIDE / ROWS)
    flow_iterate_tiled(const REAL* u, const REAL* p, const REAL* linear, REAL* next_u, REAL* next_p,
                       REAL limit, REAL theta, REAL rate, int count, int H, int W) {
  // What neighbours look at. A warp has a row of the tile: its lanes are in different banks.
  __shared__ REAL tile_u[2][SIDE][SIDE], tile_p[4][SIDE][SIDE];
  const Size size = {H, W};
  const Constants by = {limit, theta, rate};
  const int n = blockIdx.z, column = threadIdx.x, top = threadIdx.y * ROWS;
  const int x = int(blockIdx.x) * INNER - TOGETHER + column;
  const int y = int(blockIdx.y) * INNER - TOGETHER + top;
  const bool has_column = x >= 0 && x < W;

  // A thread's own numbers stay in registers. Beyond the image p is 0, as the formulas ask for.
  REAL own_u[ROWS][2] = {}, own_p[ROWS][4] = {};
  Linear own_linear[ROWS] = {};
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (has_column && y + r >= 0 && y + r < H) {
      const int at = size.at(y + r, x);
#pragma unroll
      for (int i = 0; i < 2; i++) own_u[r][i] = u[size.plane(n, 2, i) + at];
#pragma unroll
      for (int i = 0; i < 4; i++) own_p[r][i] = p[size.plane(n, 4, i) + at];
      own_linear[r] = {linear[size.plane(n, 4, 0) + at], linear[size.plane(n, 4, 1) + at],
                       linear[size.plane(n, 4, 2) + at], linear[size.plane(n, 4, 3) + at]};
    }
#pragma unroll
    for (int i = 0; i < 4; i++) tile_p[i][top + r][column] = own_p[r][i];
  }
  __syncthreads();  // the tile of p is complete

  for (int iteration = 0; iteration < count; iteration++) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int row = top + r;
      const REAL step = step_of(own_linear[r], own_u[r][0], own_u[r][1], by);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const REAL left = column > 0 ? tile_p[2 * i][row][column - 1] : REAL(0);
        const REAL above = row > 0 ? tile_p[2 * i + 1][row - 1][column] : REAL(0);
        own_u[r][i] = primal(own_u[r][i], step, i == 0 ? own_linear[r].gx : own_linear[r].gy,
                             own_p[r][2 * i], left, own_p[r][2 * i + 1], above, by);
        tile_u[i][row][column] = own_u[r][i];
      }
    }
    __syncthreads();  // all of u is new, and nobody reads the old p any more
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int row = top + r;
      if (!has_column || y + r < 0 || y + r >= H) continue;  // where p stays 0
#pragma unroll
      for (int i = 0; i < 2; i++) {
        REAL right = 0, down = 0;
        if (x + 1 < W && column + 1 < SIDE) right = tile_u[i][row][column + 1] - own_u[r][i];
        if (y + r + 1 < H && row + 1 < SIDE) down = tile_u[i][row + 1][column] - own_u[r][i];
        dual(right, down, own_p[r][2 * i], own_p[r][2 * i + 1], by);
        tile_p[2 * i][row][column] = own_p[r][2 * i];
        tile_p[2 * i + 1][row][column] = own_p[r][2 * i + 1];
      }
    }
    __syncthreads();  // all of p is new, and nobody reads this u any more
  }

#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const int row = top + r;
    const bool inner = column >= TOGETHER && column < SIDE - TOGETHER && row >= TOGETHER &&
                       row < SIDE - TOGETHER;
    if (!inner || x >= W || y + r >= H) continue;
    const int at = size.at(y + r, x);
#pragma unroll
    for (int i = 0; i < 2; i++) next_u[size.plane(n, 2, i) + at] = own_u[r][i];
#pragma unroll
    for (int i = 0; i < 4; i++) next_p[size.plane(n, 4, i) + at] = own_p[r][i];
  }
}
