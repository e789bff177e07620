"""Pooling by its formula: a thread for each element of the result, and a loop over what it takes.

`naive.cu` for Numba. The backward passes are gathers: a cell asks the windows that have it, so
that no two threads write to one place and sums have a fixed order. What differs: the visits are
written out as loops, arrays are indexed along their axes, and the sizes come as an argument.
"""

from tinyvid.kernels.numba_launch import cuda, device_function

# ---- along an axis: window z has in tap t the cell z * stride + t * dilation - padding -----------


# The windows that may have a cell: from the first to before the end. With a dilation they step
# over some cells, and then `tap_of` is -1.
@device_function
def first_window(cell, taps, stride, padding, dilation):
    return max(0, (cell + padding - (taps - 1) * dilation + stride - 1) // stride)


@device_function
def end_window(cell, windows, stride, padding):
    return min(windows, (cell + padding) // stride + 1)


@device_function
def tap_of(cell, window, stride, padding, dilation):
    tap, apart = divmod(cell + padding - window * stride, dilation)
    return tap if apart == 0 else -1


# The cells that a mean divides by. What overhangs beyond the padding never counts.
@device_function
def count(window, cells, taps, stride, padding, padding_counts):
    start = window * stride - padding
    if padding_counts:
        return min(start + taps, cells + padding) - start
    return min(start + taps, cells) - max(start, 0)


# What the sum over a window is divided by: the divisor given, or where that is 0, its cells.
@device_function
def divisor_of(z, p, q, g, divisor, padding_counts):
    if divisor != 0:
        return divisor
    return (
        count(z, g.D, g.T, g.stride_d, g.padding_d, padding_counts)
        * count(p, g.H, g.R, g.stride_h, g.padding_h, padding_counts)
        * count(q, g.W, g.S, g.stride_w, g.padding_w, padding_counts)
    )


# ---- the passes ----------------------------------------------------------------------------------


# y[n,z,p,q,c], argmax = max and its offset over t,r,s of x[n,d,h,w,c].
@cuda.jit
def pool3d_max_fprop_naive(x, y, argmax, geometry):
    g = geometry
    rest, c = divmod(cuda.grid(1), g.C)
    rest, q = divmod(rest, g.Q)
    rest, p = divmod(rest, g.P)
    n, z = divmod(rest, g.Z)
    if n >= g.N:
        return
    best = y.dtype.type(0)
    at = -1
    for t in range(g.T):
        d = z * g.stride_d + t * g.dilation_d - g.padding_d
        if d < 0 or d >= g.D:
            continue
        for r in range(g.R):
            h = p * g.stride_h + r * g.dilation_h - g.padding_h
            if h < 0 or h >= g.H:
                continue
            for s in range(g.S):
                w = q * g.stride_w + s * g.dilation_w - g.padding_w
                if w < 0 or w >= g.W:
                    continue
                value = x[n, d, h, w, c]
                # The first as it is: all may be -inf. The first of equal maxima wins; NaN beats
                # every number, and the last NaN every other.
                if at < 0 or value > best or value != value:
                    best = value
                    at = (t * g.R + r) * g.S + s
    y[n, z, p, q, c] = best
    argmax[n, z, p, q, c] = at


# gx[n,d,h,w,c] = sum over the windows z,p,q whose maximum stood there of gy[n,z,p,q,c].
@cuda.jit
def pool3d_max_dgrad_naive(gy, argmax, gx, geometry):
    g = geometry
    rest, c = divmod(cuda.grid(1), g.C)
    rest, w = divmod(rest, g.W)
    rest, h = divmod(rest, g.H)
    n, d = divmod(rest, g.D)
    if n >= g.N:
        return
    first_z = first_window(d, g.T, g.stride_d, g.padding_d, g.dilation_d)
    first_p = first_window(h, g.R, g.stride_h, g.padding_h, g.dilation_h)
    first_q = first_window(w, g.S, g.stride_w, g.padding_w, g.dilation_w)
    value = gx.dtype.type(0)
    for z in range(first_z, end_window(d, g.Z, g.stride_d, g.padding_d)):
        t = tap_of(d, z, g.stride_d, g.padding_d, g.dilation_d)
        if t < 0:
            continue
        for p in range(first_p, end_window(h, g.P, g.stride_h, g.padding_h)):
            r = tap_of(h, p, g.stride_h, g.padding_h, g.dilation_h)
            if r < 0:
                continue
            for q in range(first_q, end_window(w, g.Q, g.stride_w, g.padding_w)):
                s = tap_of(w, q, g.stride_w, g.padding_w, g.dilation_w)
                if s >= 0 and argmax[n, z, p, q, c] == (t * g.R + r) * g.S + s:
                    value += gy[n, z, p, q, c]
    gx[n, d, h, w, c] = value


# y[n,z,p,q,c] = x at argmax.
@cuda.jit
def pool3d_max_gather_naive(x, argmax, y, geometry):
    g = geometry
    rest, c = divmod(cuda.grid(1), g.C)
    rest, q = divmod(rest, g.Q)
    rest, p = divmod(rest, g.P)
    n, z = divmod(rest, g.Z)
    if n >= g.N:
        return
    offset = argmax[n, z, p, q, c]
    t, r, s = offset // (g.R * g.S), offset // g.S % g.R, offset % g.S
    d = z * g.stride_d + t * g.dilation_d - g.padding_d
    h = p * g.stride_h + r * g.dilation_h - g.padding_h
    w = q * g.stride_w + s * g.dilation_w - g.padding_w
    y[n, z, p, q, c] = x[n, d, h, w, c]


# y[n,z,p,q,c] = sum over t,r,s of x[n,d,h,w,c], divided.
@cuda.jit
def pool3d_avg_fprop_naive(x, y, geometry, divisor, padding_counts):
    g = geometry
    rest, c = divmod(cuda.grid(1), g.C)
    rest, q = divmod(rest, g.Q)
    rest, p = divmod(rest, g.P)
    n, z = divmod(rest, g.Z)
    if n >= g.N:
        return
    value = y.dtype.type(0)
    for t in range(g.T):
        d = z * g.stride_d + t * g.dilation_d - g.padding_d
        if d < 0 or d >= g.D:
            continue
        for r in range(g.R):
            h = p * g.stride_h + r * g.dilation_h - g.padding_h
            if h < 0 or h >= g.H:
                continue
            for s in range(g.S):
                w = q * g.stride_w + s * g.dilation_w - g.padding_w
                if w >= 0 and w < g.W:
                    value += x[n, d, h, w, c]
    y[n, z, p, q, c] = value / y.dtype.type(divisor_of(z, p, q, g, divisor, padding_counts))


# gx[n,d,h,w,c] = sum over the windows z,p,q that have the cell of gy[n,z,p,q,c], divided.
@cuda.jit
def pool3d_avg_dgrad_naive(gy, gx, geometry, divisor, padding_counts):
    g = geometry
    rest, c = divmod(cuda.grid(1), g.C)
    rest, w = divmod(rest, g.W)
    rest, h = divmod(rest, g.H)
    n, d = divmod(rest, g.D)
    if n >= g.N:
        return
    real = gx.dtype
    first_z = first_window(d, g.T, g.stride_d, g.padding_d, g.dilation_d)
    first_p = first_window(h, g.R, g.stride_h, g.padding_h, g.dilation_h)
    first_q = first_window(w, g.S, g.stride_w, g.padding_w, g.dilation_w)
    value = real.type(0)
    for z in range(first_z, end_window(d, g.Z, g.stride_d, g.padding_d)):
        for p in range(first_p, end_window(h, g.P, g.stride_h, g.padding_h)):
            for q in range(first_q, end_window(w, g.Q, g.stride_w, g.padding_w)):
                by = divisor_of(z, p, q, g, divisor, padding_counts)
                value += gy[n, z, p, q, c] / real.type(by)
    gx[n, d, h, w, c] = value
