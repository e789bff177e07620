// Instructions that CUDA C++ has no name for: inline PTX behind functions. Needs sm_80.
//
// Under the emulator the same names come from its own headers. Source: the PTX ISA.
#pragma once

#ifdef __CUDACC__

// ---- asynchronous copies from global to shared memory -----------------------------------------
// They return at once. A thread's copies since its last commit form a group; cp_async_wait<N>
// waits until at most N of its groups are on their way. Other threads see what has landed after
// the next barrier. Where `inside` is false nothing is read and zeros are written. Both addresses
// must be multiples of the size.

__device__ __forceinline__ void cp_async_4(void* target, const void* source, bool inside = true) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(target));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(source),
               "r"(inside ? 4 : 0)
               : "memory");
}
__device__ __forceinline__ void cp_async_8(void* target, const void* source, bool inside = true) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(target));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(source),
               "r"(inside ? 8 : 0)
               : "memory");
}
// Past the L1 cache (.cg): what goes to shared memory need not be kept there too.
__device__ __forceinline__ void cp_async_16(void* target, const void* source, bool inside = true) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(target));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(source),
               "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int GROUPS>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// ---- matrices from shared memory to the lanes of a warp ---------------------------------------
// Each matrix is 8 x 8 elements of 16 bits. Lane 8 i + j gives the address of row j of matrix i (a
// multiple of 16 bytes), and gets of each matrix the elements 2 t and 2 t + 1 of row g, where
// g = lane / 4 and t = lane % 4 (transposed: of column g). All 32 lanes must call.

__device__ __forceinline__ void ldmatrix_x1(unsigned* out, const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(out[0])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(unsigned* out, const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(unsigned* out, const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x1_trans(unsigned* out, const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(out[0])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(unsigned* out, const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned* out, const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from)
               : "memory");
}

// ---- rounding to the short types --------------------------------------------------------------

// To TF32, 10 bits of mantissa, ties away from zero; the bits of a float.
__device__ __forceinline__ unsigned to_tf32(float value) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}
// Two values rounded to 16 bits each, ties to even, `low` in the lower half.
__device__ __forceinline__ unsigned pack_bf16x2(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ __forceinline__ unsigned pack_f16x2(float low, float high) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// ---- matrix products of a warp ----------------------------------------------------------------
// D (16 x 8) += A (16 x K) B (K x 8), summed in float32. With g = lane / 4, t = lane % 4, a lane
// holds
//
//     16x8x8, one value a register              16x8x16, two (p = 0, 1) a register
//     a[r] = A[g + 8 (r & 1)][t + 4 (r >> 1)]   a[r] = A[g + 8 (r & 1)][2 t + p + 8 (r >> 1)]
//     b[r] = B[t + 4 r][g]                      b[r] = B[2 t + p + 8 r][g]
//     d[r] = D[g + 8 (r >> 1)][2 t + (r & 1)]   d[r] as on the left
//
// All 32 lanes must call.

__device__ __forceinline__ void mma_tf32_16x8x8(float* d, const unsigned* a, const unsigned* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bf16_16x8x16(float* d, const unsigned* a, const unsigned* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_f16_16x8x16(float* d, const unsigned* a, const unsigned* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
