"""The definition of 2-D convolution, early fusion included: a loop nest over outputs and taps.

With no consideration for performance but that N, C and K are taken at once, by a matrix
product. Every other variant must agree with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv3d.reference import finished, normalised


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """y[n,k,pq] = sum over c,rs of x[n,c,hv] * w[k,c,rs], finished; of a clip c is c*T + t."""
    x = _planes(x)
    y = np.zeros(geometry.y, x.dtype)
    for cs, ks in _groups(geometry):
        for (p, q), (r, s), (h, v) in _meetings(geometry):
            # (N, C) @ (C, K)
            y[:, ks, p, q] += x[:, cs, h, v] @ w[ks, :, r, s].T
    return finished(y, bias, relu)


def dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """gx[n,c,hv] = sum over k and all pq,rs that meet there of gy[n,k,pq] * w[k,c,rs]."""
    gx = np.zeros((geometry.x[0], geometry.channels, *geometry.x[-2:]), gy.dtype)
    for cs, ks in _groups(geometry):
        for (p, q), (r, s), (h, v) in _meetings(geometry):
            # (N, K) @ (K, C)
            gx[:, cs, h, v] += gy[:, ks, p, q] @ w[ks, :, r, s]
    return gx.reshape(geometry.x)  # channel c*T + t of a clip is its plane (c, t)


def wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """gw[k,c,rs] = sum over n,pq of gy[n,k,pq] * x[n,c,hv]."""
    x = _planes(x)
    gw = np.zeros(geometry.w, gy.dtype)
    for cs, ks in _groups(geometry):
        for (p, q), (r, s), (h, v) in _meetings(geometry):
            # (K, N) @ (N, C)
            gw[ks, :, r, s] += gy[:, ks, p, q].T @ x[:, cs, h, v]
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


def _planes(x: np.ndarray) -> np.ndarray:
    """Return a clip N C T H W as N C*T H W, and a batch of images as it is."""
    return x.reshape(x.shape[0], -1, *x.shape[-2:])


Place = tuple[int, int]


def _meetings(geometry: ConvGeometry) -> Iterator[tuple[Place, Place, Place]]:
    """Yield (p, q), (r, s), (h, v): output, filter tap, and the input cell they meet in.

    Taps that fall into the padding are left out: there x is zero.
    """
    H, V = geometry.x[-2:]
    (top, _), (left, _) = geometry.padding
    for p, q in product(*map(range, geometry.y[2:])):
        for r, s in product(*map(range, geometry.w[2:])):
            h = p * geometry.stride[0] + r * geometry.dilation[0] - top
            v = q * geometry.stride[1] + s * geometry.dilation[1] - left
            if 0 <= h < H and 0 <= v < V:
                yield (p, q), (r, s), (h, v)


def _groups(geometry: ConvGeometry) -> Iterator[tuple[slice, slice]]:
    """Yield each group's input channels and output channels."""
    C, K = geometry.channels // geometry.groups, geometry.w[0] // geometry.groups
    for g in range(geometry.groups):
        yield slice(g * C, (g + 1) * C), slice(g * K, (g + 1) * K)
