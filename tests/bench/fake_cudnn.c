/* A stand-in for cuDNN on the CPU: the functions that the peer calls, with their real signatures.
 *
 * Algorithm 0 is right; 1 is right if it gets the workspace that it asks for; 2 leaves the last
 * element unwritten; 3 is a little wrong; the others are not supported. `fake_alive` counts what
 * was created and not destroyed.
 */
#include <stddef.h>
#include <stdlib.h>

enum { SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000 };
enum { WORKSPACE = 64 };

typedef struct { int rank, size[5], stride[5]; } Tensor;
typedef struct { int rank, pad[3], stride[3], dilation[3], mode, math, groups; } Convolution;

int fake_alive = 0, fake_math = -1;
void *fake_stream = NULL;

size_t cudnnGetVersion(void) { return 90100; }
const char *cudnnGetErrorString(int s) {
  return s == NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_BAD_PARAM";
}
int cudnnCreate(void **handle) { *handle = malloc(1); return SUCCESS; }
int cudnnSetStream(void *handle, void *stream) {
  fake_stream = stream;
  return handle ? SUCCESS : BAD_PARAM;
}

static int made(void **out, size_t size) { ++fake_alive; *out = calloc(1, size); return SUCCESS; }
static int destroyed(void *it) { --fake_alive; free(it); return SUCCESS; }
int cudnnCreateTensorDescriptor(void **out) { return made(out, sizeof(Tensor)); }
int cudnnCreateFilterDescriptor(void **out) { return made(out, sizeof(Tensor)); }
int cudnnCreateConvolutionDescriptor(void **out) { return made(out, sizeof(Convolution)); }
int cudnnDestroyTensorDescriptor(void *it) { return destroyed(it); }
int cudnnDestroyFilterDescriptor(void *it) { return destroyed(it); }
int cudnnDestroyConvolutionDescriptor(void *it) { return destroyed(it); }

/* Shapes of four axes get a depth of 1. */
int cudnnSetTensorNdDescriptor(Tensor *t, int type, int rank, const int *size, const int *stride) {
  if (type != 0 || rank < 4 || rank > 5) return BAD_PARAM;
  t->rank = rank;
  for (int a = 0, from = 0; a < 5; ++a) {
    int added = rank == 4 && a == 2;
    t->size[a] = added ? 1 : size[from];
    t->stride[a] = added ? 0 : stride[from];
    from += !added;
  }
  return SUCCESS;
}

int cudnnSetFilterNdDescriptor(Tensor *t, int type, int format, int rank, const int *size) {
  int stride[5], step = 1;
  for (int a = rank - 1; a >= 0; --a) { stride[a] = step; step *= size[a]; }
  return format == 0 ? cudnnSetTensorNdDescriptor(t, type, rank, size, stride) : BAD_PARAM;
}

int cudnnSetConvolutionNdDescriptor(Convolution *c, int rank, const int *pad, const int *stride,
                                    const int *dilation, int mode, int type) {
  if (mode != 1 || type != 0 || rank < 2 || rank > 3) return BAD_PARAM;
  for (int a = 0; a < 3; ++a) {
    int from = a - (3 - rank);
    c->pad[a] = from < 0 ? 0 : pad[from];
    c->stride[a] = from < 0 ? 1 : stride[from];
    c->dilation[a] = from < 0 ? 1 : dilation[from];
  }
  c->groups = 1;
  return SUCCESS;
}
int cudnnSetConvolutionGroupCount(Convolution *c, int n) { c->groups = n; return SUCCESS; }
int cudnnSetConvolutionMathType(Convolution *c, int math) {
  c->math = fake_math = math;
  return SUCCESS;
}

static int size_of(const Tensor *a, const Tensor *b, const Convolution *c, const Tensor *d,
                   int algorithm, size_t *size) {
  *size = algorithm == 1 ? WORKSPACE : 0;
  if (!a || !b || !c || !d) return BAD_PARAM;
  return algorithm <= 3 ? SUCCESS : NOT_SUPPORTED;
}
int cudnnGetConvolutionForwardWorkspaceSize(void *h, Tensor *x, Tensor *w, Convolution *c,
                                            Tensor *y, int algorithm, size_t *size) {
  return size_of(x, w, c, y, algorithm, size);
}
int cudnnGetConvolutionBackwardDataWorkspaceSize(void *h, Tensor *w, Tensor *y, Convolution *c,
                                                 Tensor *x, int algorithm, size_t *size) {
  return size_of(w, y, c, x, algorithm, size);
}
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *h, Tensor *x, Tensor *y, Convolution *c,
                                                   Tensor *w, int algorithm, size_t *size) {
  return size_of(x, y, c, w, algorithm, size);
}

static long at(const Tensor *t, const int *i) {
  long place = 0;
  for (int a = 0; a < 5; ++a) place += (long)i[a] * t->stride[a];
  return place;
}
static long elements(const Tensor *t) {
  long n = 1;
  for (int a = 0; a < 5; ++a) n *= t->size[a];
  return n;
}

/* Go through all products x * w of every y, and add where the result stands. */
static int run(int result, const Tensor *xt, float *x, const Tensor *wt, float *w, const Tensor *yt,
               float *y, const Convolution *c, int algorithm, char *space, size_t size,
               const float *alpha, const float *beta) {
  if (*alpha != 1 || *beta != 0) return BAD_PARAM;
  if (algorithm == 1) {
    if (!space || size < WORKSPACE) return BAD_PARAM;
    for (int k = 0; k < WORKSPACE; ++k) space[k] = 1;
  }
  const Tensor *rt = result == 0 ? xt : result == 1 ? wt : yt;
  float *r = result == 0 ? x : result == 1 ? w : y;
  long n = elements(rt) - (algorithm == 2);
  for (long k = 0; k < n; ++k) r[k] = 0;
  int K = yt->size[1] / c->groups, C = wt->size[1], i[5], j[5], o[5];
  for (o[0] = 0; o[0] < yt->size[0]; ++o[0])
  for (o[1] = 0; o[1] < yt->size[1]; ++o[1])
  for (o[2] = 0; o[2] < yt->size[2]; ++o[2])
  for (o[3] = 0; o[3] < yt->size[3]; ++o[3])
  for (o[4] = 0; o[4] < yt->size[4]; ++o[4])
  for (j[1] = 0; j[1] < C; ++j[1])
  for (j[2] = 0; j[2] < wt->size[2]; ++j[2])
  for (j[3] = 0; j[3] < wt->size[3]; ++j[3])
  for (j[4] = 0; j[4] < wt->size[4]; ++j[4]) {
    int inside = 1;
    j[0] = o[1];
    i[0] = o[0];
    i[1] = o[1] / K * C + j[1];
    for (int a = 2; a < 5; ++a) {
      i[a] = o[a] * c->stride[a - 2] + j[a] * c->dilation[a - 2] - c->pad[a - 2];
      inside &= i[a] >= 0 && i[a] < xt->size[a];
    }
    if (!inside) continue;
    long at_x = at(xt, i), at_w = at(wt, j), at_y = at(yt, o);
    long at_r = result == 0 ? at_x : result == 1 ? at_w : at_y;
    if (at_r >= n) continue;
    r[at_r] += result == 0   ? w[at_w] * y[at_y]
               : result == 1 ? x[at_x] * y[at_y]
                             : x[at_x] * w[at_w];
  }
  if (algorithm == 3) r[0] += 1;
  return SUCCESS;
}

int cudnnConvolutionForward(void *h, const float *alpha, Tensor *xt, float *x, Tensor *wt, float *w,
                            Convolution *c, int algorithm, void *space, size_t size,
                            const float *beta, Tensor *yt, float *y) {
  return run(2, xt, x, wt, w, yt, y, c, algorithm, space, size, alpha, beta);
}
int cudnnConvolutionBackwardData(void *h, const float *alpha, Tensor *wt, float *w, Tensor *yt,
                                 float *y, Convolution *c, int algorithm, void *space, size_t size,
                                 const float *beta, Tensor *xt, float *x) {
  return run(0, xt, x, wt, w, yt, y, c, algorithm, space, size, alpha, beta);
}
int cudnnConvolutionBackwardFilter(void *h, const float *alpha, Tensor *xt, float *x, Tensor *yt,
                                   float *y, Convolution *c, int algorithm, void *space,
                                   size_t size, const float *beta, Tensor *wt, float *w) {
  return run(1, xt, x, wt, w, yt, y, c, algorithm, space, size, alpha, beta);
}
