"""Convolution by its formula: a thread for each element of the result, and loops over its sum.

`naive.cu` for Numba, loop for loop. What differs: arrays are indexed along their axes, which
Numba makes 64-bit offsets of, integers have 64 bits, and the sizes come as an argument.
"""

from tinyvid.kernels.numba_launch import add, cuda, device_function


# Channels of one group: x has C of them in all, w sees only its group's.
@device_function
def group_C(geometry):
    return geometry.C // geometry.groups


@device_function
def group_K(geometry):
    return geometry.K // geometry.groups


# What is done to an output on its way out: a bias is added, and the ReLU taken where asked.
@device_function
def finish(value, bias, k, relu):
    zero, grown = bias.dtype.type(0), value + bias[k]
    return zero if relu and grown < zero else grown


# y[n,z,p,q,k] = sum over t,r,s,c of x[n,d,h,v,c] * w[k,t,r,s,c],
# where d = z * stride + t * dilation - padding, likewise h and v.
@cuda.jit
def conv3d_fprop_naive(x, w, bias, y, geometry, relu):
    rest, k = divmod(cuda.grid(1), geometry.K)
    rest, q = divmod(rest, geometry.Q)
    rest, p = divmod(rest, geometry.P)
    n, z = divmod(rest, geometry.Z)
    first_c = k // group_K(geometry) * group_C(geometry)
    if n >= geometry.N:
        return

    value = lost = y.dtype.type(0)
    for t in range(geometry.T):
        d = z * geometry.stride_d + t * geometry.dilation_d - geometry.padding_d
        if d < 0 or d >= geometry.D:
            continue
        for r in range(geometry.R):
            h = p * geometry.stride_h + r * geometry.dilation_h - geometry.padding_h
            if h < 0 or h >= geometry.H:
                continue
            for s in range(geometry.S):
                v = q * geometry.stride_w + s * geometry.dilation_w - geometry.padding_w
                if v < 0 or v >= geometry.W:
                    continue
                for c in range(group_C(geometry)):
                    term = x[n, d, h, v, first_c + c] * w[k, t, r, s, c]
                    value, lost = add(value, lost, term)
    y[n, z, p, q, k] = finish(value, bias, k, relu)


# The output that a tap reaches an input cell from, or -1: the formula above, solved for z.
@device_function
def output_of(cell, tap, stride, padding, dilation, outputs):
    at = cell + padding - tap * dilation
    return at // stride if at >= 0 and at % stride == 0 and at // stride < outputs else -1


# gx[n,d,h,v,c] = sum over k and all t,r,s that some z,p,q reaches this cell by,
# of gy[n,z,p,q,k] * w[k,t,r,s,c].
@cuda.jit
def conv3d_dgrad_naive(gy, w, gx, geometry):
    rest, c = divmod(cuda.grid(1), geometry.C)
    rest, v = divmod(rest, geometry.W)
    rest, h = divmod(rest, geometry.H)
    n, d = divmod(rest, geometry.D)
    group, of_group = divmod(c, group_C(geometry))
    first_k = group * group_K(geometry)
    if n >= geometry.N:
        return

    value = lost = gx.dtype.type(0)
    for t in range(geometry.T):
        z = output_of(d, t, geometry.stride_d, geometry.padding_d, geometry.dilation_d, geometry.Z)
        if z < 0:
            continue
        for r in range(geometry.R):
            p = output_of(
                h, r, geometry.stride_h, geometry.padding_h, geometry.dilation_h, geometry.P
            )
            if p < 0:
                continue
            for s in range(geometry.S):
                q = output_of(
                    v, s, geometry.stride_w, geometry.padding_w, geometry.dilation_w, geometry.Q
                )
                if q < 0:
                    continue
                for k in range(first_k, first_k + group_K(geometry)):
                    value, lost = add(value, lost, gy[n, z, p, q, k] * w[k, t, r, s, of_group])
    gx[n, d, h, v, c] = value


# gw[k,t,r,s,c] = sum over n,z,p,q of gy[n,z,p,q,k] * x[n,d,h,v,c].
@cuda.jit
def conv3d_wgrad_naive(gy, x, gw, geometry):
    rest, c = divmod(cuda.grid(1), group_C(geometry))
    rest, s = divmod(rest, geometry.S)
    rest, r = divmod(rest, geometry.R)
    k, t = divmod(rest, geometry.T)
    first_c = k // group_K(geometry) * group_C(geometry)
    if k >= geometry.K:
        return

    value = lost = gw.dtype.type(0)
    for n in range(geometry.N):
        for z in range(geometry.Z):
            d = z * geometry.stride_d + t * geometry.dilation_d - geometry.padding_d
            if d < 0 or d >= geometry.D:
                continue
            for p in range(geometry.P):
                h = p * geometry.stride_h + r * geometry.dilation_h - geometry.padding_h
                if h < 0 or h >= geometry.H:
                    continue
                for q in range(geometry.Q):
                    v = q * geometry.stride_w + s * geometry.dilation_w - geometry.padding_w
                    if v < 0 or v >= geometry.W:
                        continue
                    term = gy[n, z, p, q, k] * x[n, d, h, v, first_c + c]
                    value, lost = add(value, lost, term)
    gw[k, t, r, s, c] = value
