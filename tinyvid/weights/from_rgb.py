"""Weights of a network for pictures, as a start for the same network on flow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinyvid.errors import UserError

RGB = 3


def cross_modality(
    weights: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], source: object
) -> dict[str, np.ndarray]:
    """Return weights for a network on flow, of those of the same network on pictures.

    The first convolution's filters are averaged over the three colours, and the mean stands for
    each plane of flow: Wang et al., "Towards good practices for very deep two-stream ConvNets"
    (2015), section 3. Everything else stays as it is. The two may call their layers by other paths,
    such as `frames.conv1.weight` and `trunk.conv1.weight`; the layer's own name tells.

    Args:
        weights: of a file. expected: of the network, by its names. source: the file, for messages.

    Raises:
        UserError: the file's first layer does not take the three colours.
    """
    by_layer: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        by_layer.setdefault(_layer(name), array)
    found = {name: by_layer[_layer(name)] for name in expected if _layer(name) in by_layer}
    first = next(name for name, array in expected.items() if array.ndim > 2)
    filters = found.get(first)
    if filters is None or filters.ndim != expected[first].ndim or filters.shape[1] != RGB:
        shape = None if filters is None else filters.shape
        raise UserError(
            f"{source}: {_layer(first)} of shape {shape} cannot be averaged over colours: give "
            f"weights of the same network trained on pictures, with {RGB} channels"
        )
    mean = filters.mean(axis=1, keepdims=True)
    planes = expected[first].shape[1]
    return {**found, first: np.repeat(mean, planes, axis=1).astype(filters.dtype)}


def same_first_layer(weights: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> bool:
    """Return whether the first convolution of a network has the file's shape."""
    first = next((name for name, array in expected.items() if array.ndim > 2), "")
    return first in weights and weights[first].shape == expected[first].shape


def _layer(name: str) -> str:
    """The last two parts of a name: `trunk.conv1.weight` is conv1.weight."""
    return ".".join(name.split(".")[-2:])
