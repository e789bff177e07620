"""The definition of 3-D convolution: a loop nest over outputs and filter taps.

With no consideration for performance but that N, C and K are taken at once, by a matrix
product. Every other variant must agree with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tinyvid.geometry import ConvGeometry


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """y[n,k,zpq] = sum over c,trs of x[n,c,dhv] * w[k,c,trs], finished."""
    y = np.zeros(geometry.y, x.dtype)
    for cs, ks in _groups(geometry):
        for (z, p, q), (t, r, s), (d, h, v) in _meetings(geometry):
            # (N, C) @ (C, K)
            y[:, ks, z, p, q] += x[:, cs, d, h, v] @ w[ks, :, t, r, s].T
    return finished(y, bias, relu)


def finished(y: np.ndarray, bias: np.ndarray | None, relu: bool) -> np.ndarray:
    """max(0, y + bias[k]); without a bias y, without the ReLU no maximum."""
    if bias is not None:
        y = y + bias.reshape(-1, *(1 for _ in y.shape[2:]))
    return np.maximum(y, y.dtype.type(0)) if relu else y


def dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """gx[n,c,dhv] = sum over k and all zpq,trs that meet there of gy[n,k,zpq] * w[k,c,trs]."""
    gx = np.zeros(geometry.x, gy.dtype)
    for cs, ks in _groups(geometry):
        for (z, p, q), (t, r, s), (d, h, v) in _meetings(geometry):
            # (N, K) @ (K, C)
            gx[:, cs, d, h, v] += gy[:, ks, z, p, q] @ w[ks, :, t, r, s]
    return gx


def wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """gw[k,c,trs] = sum over n,zpq of gy[n,k,zpq] * x[n,c,dhv]."""
    gw = np.zeros(geometry.w, gy.dtype)
    for cs, ks in _groups(geometry):
        for (z, p, q), (t, r, s), (d, h, v) in _meetings(geometry):
            # (K, N) @ (N, C)
            gw[ks, :, t, r, s] += gy[:, ks, z, p, q].T @ x[:, cs, d, h, v]
    return gw


def uint8_fprop(
    x: np.ndarray,
    w: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """y of (x / 255 - mean) / std."""
    return fprop(normalised(x, mean, std, w.dtype), w, geometry, bias, relu)


def uint8_wgrad(
    gy: np.ndarray,
    x: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    geometry: ConvGeometry,
) -> np.ndarray:
    """gw of (x / 255 - mean) / std."""
    return wgrad(gy, normalised(x, mean, std, gy.dtype), geometry)


def normalised(
    x: np.ndarray, mean: Sequence[float], std: Sequence[float], dtype: np.dtype
) -> np.ndarray:
    """(x / 255 - mean) / std, channel by channel, from bytes `N C D H W` or `N C H W`."""
    of_channel = (-1, *(1 for _ in x.shape[2:]))
    offset, scale = (np.reshape(np.asarray(a, dtype), of_channel) for a in (mean, std))
    return (x.astype(dtype) / 255 - offset) / scale


Place = tuple[int, int, int]


def _meetings(geometry: ConvGeometry) -> Iterator[tuple[Place, Place, Place]]:
    """Yield (z, p, q), (t, r, s), (d, h, v): output, filter tap, and the input cell they meet in.

    Taps that fall into the padding are left out: there x is zero.
    """
    D, H, V = geometry.x[2:]
    stride, dilation = geometry.stride, geometry.dilation
    (front, _), (top, _), (left, _) = geometry.padding
    for z, p, q in product(*map(range, geometry.y[2:])):
        for t, r, s in product(*map(range, geometry.w[2:])):
            d = z * stride[0] + t * dilation[0] - front
            h = p * stride[1] + r * dilation[1] - top
            v = q * stride[2] + s * dilation[2] - left
            if 0 <= d < D and 0 <= h < H and 0 <= v < V:
                yield (z, p, q), (t, r, s), (d, h, v)


def _groups(geometry: ConvGeometry) -> Iterator[tuple[slice, slice]]:
    """Yield each group's input channels and output channels."""
    C, K = geometry.x[1] // geometry.groups, geometry.w[0] // geometry.groups
    for g in range(geometry.groups):
        yield slice(g * C, (g + 1) * C), slice(g * K, (g + 1) * K)
