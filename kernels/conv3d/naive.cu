// Convolution by its formula: a thread for each element of the result, and loops over its sum.
//
// The first step, which the others are measured by. Nothing is shared: each product reads both of
// its factors from global memory.
#include "geometry.cuh"
#include "sum.cuh"

// This thread's element, counted over the whole array.
__device__ __forceinline__ long long element() {
  return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

// Takes the last index off a flat one: `of` is the size of that axis.
__device__ __forceinline__ int last_index(long long& flat, int of) {
  const int index = int(flat % of);
  flat /= of;
  return index;
}

// Where elements stand in memory.
__device__ __forceinline__ long long at_x(int n, int d, int h, int w, int c) {
  return ((((long long)n * geometry.D + d) * geometry.H + h) * geometry.W + w) * geometry.C + c;
}
__device__ __forceinline__ long long at_w(int k, int t, int r, int s, int c) {
  return ((((long long)k * geometry.T + t) * geometry.R + r) * geometry.S + s) * group_C() + c;
}
__device__ __forceinline__ long long at_y(int n, int z, int p, int q, int k) {
  return ((((long long)n * geometry.Z + z) * geometry.P + p) * geometry.Q + q) * geometry.K + k;
}

// y[n,z,p,q,k] = sum over t,r,s,c of x[n,d,h,v,c] * w[k,t,r,s,c],
// where d = z * stride + t * dilation - padding, likewise h and v.
extern "C" __global__ void conv3d_fprop_naive(const REAL* x, const REAL* w, const REAL* bias,
                                              int relu, REAL* y) {
  long long rest = element();
  const int k = last_index(rest, geometry.K), q = last_index(rest, geometry.Q);
  const int p = last_index(rest, geometry.P), z = last_index(rest, geometry.Z);
  const int n = int(rest), first_c = k / group_K() * group_C();
  if (n >= geometry.N) return;

  Sum sum;
  for (int t = 0; t < geometry.T; t++) {
    const int d = z * geometry.stride_d + t * geometry.dilation_d - geometry.padding_d;
    if (d < 0 || d >= geometry.D) continue;
    for (int r = 0; r < geometry.R; r++) {
      const int h = p * geometry.stride_h + r * geometry.dilation_h - geometry.padding_h;
      if (h < 0 || h >= geometry.H) continue;
      for (int s = 0; s < geometry.S; s++) {
        const int v = q * geometry.stride_w + s * geometry.dilation_w - geometry.padding_w;
        if (v < 0 || v >= geometry.W) continue;
        for (int c = 0; c < group_C(); c++) {
          sum.add(x[at_x(n, d, h, v, first_c + c)] * w[at_w(k, t, r, s, c)]);
        }
      }
    }
  }
  REAL value = sum.value + (bias != nullptr ? bias[k] : REAL(0));
  if (relu && value < REAL(0)) value = 0;
  y[at_y(n, z, p, q, k)] = value;
}

// The output that a tap reaches an input cell from, or -1: the formula above, solved for z.
__device__ __forceinline__ int output_of(int cell, int tap, int stride, int padding, int dilation,
                                         int outputs) {
  const int from = cell + padding - tap * dilation;
  return from >= 0 && from % stride == 0 && from / stride < outputs ? from / stride : -1;
}

// gx[n,d,h,v,c] = sum over k and all t,r,s that some z,p,q reaches this cell by,
// of gy[n,z,p,q,k] * w[k,t,r,s,c].
extern "C" __global__ void conv3d_dgrad_naive(const REAL* gy, const REAL* w, REAL* gx) {
  long long rest = element();
  const int c = last_index(rest, geometry.C), v = last_index(rest, geometry.W);
  const int h = last_index(rest, geometry.H), d = last_index(rest, geometry.D);
  const int n = int(rest), first_k = c / group_C() * group_K();
  if (n >= geometry.N) return;

  Sum sum;
  for (int t = 0; t < geometry.T; t++) {
    const int z = output_of(d, t, geometry.stride_d, geometry.padding_d, geometry.dilation_d,
                            geometry.Z);
    if (z < 0) continue;
    for (int r = 0; r < geometry.R; r++) {
      const int p = output_of(h, r, geometry.stride_h, geometry.padding_h, geometry.dilation_h,
                              geometry.P);
      if (p < 0) continue;
      for (int s = 0; s < geometry.S; s++) {
        const int q = output_of(v, s, geometry.stride_w, geometry.padding_w, geometry.dilation_w,
                                geometry.Q);
        if (q < 0) continue;
        for (int k = first_k; k < first_k + group_K(); k++) {
          sum.add(gy[at_y(n, z, p, q, k)] * w[at_w(k, t, r, s, c % group_C())]);
        }
      }
    }
  }
  gx[at_x(n, d, h, v, c)] = sum.value;
}

// gw[k,t,r,s,c] = sum over n,z,p,q of gy[n,z,p,q,k] * x[n,d,h,v,c].
extern "C" __global__ void conv3d_wgrad_naive(const REAL* gy, const REAL* x, REAL* gw) {
  long long rest = element();
  const int c = last_index(rest, group_C()), s = last_index(rest, geometry.S);
  const int r = last_index(rest, geometry.R), t = last_index(rest, geometry.T);
  const int k = int(rest), first_c = k / group_K() * group_C();
  if (k >= geometry.K) return;

  Sum sum;
  for (int n = 0; n < geometry.N; n++) {
    for (int z = 0; z < geometry.Z; z++) {
      const int d = z * geometry.stride_d + t * geometry.dilation_d - geometry.padding_d;
      if (d < 0 || d >= geometry.D) continue;
      for (int p = 0; p < geometry.P; p++) {
        const int h = p * geometry.stride_h + r * geometry.dilation_h - geometry.padding_h;
        if (h < 0 || h >= geometry.H) continue;
        for (int q = 0; q < geometry.Q; q++) {
          const int v = q * geometry.stride_w + s * geometry.dilation_w - geometry.padding_w;
          if (v < 0 || v >= geometry.W) continue;
          sum.add(gy[at_y(n, z, p, q, k)] * x[at_x(n, d, h, v, first_c + c)]);
        }
      }
    }
  }
  gw[at_w(k, t, r, s, c)] = sum.value;
}
