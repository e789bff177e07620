"""The memory of a training step, measured: what NumPy allocates, and what the process holds."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np

import tinyvid
from tinyvid import nn, optim
from tinyvid.kernels import memory


def train(
    build: Callable[[], nn.Module],
    clip: Sequence[int],
    batch: int,
    steps: int,
    before_last: Callable[[], None] = lambda: None,
) -> None:
    """Train a network for some steps by SGD with momentum, on random clips.

    Args:
        build: returns the network. clip: `C T H W`. batch: N.
        before_last: called before the last step.
    """
    model = build()
    optimiser = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    rng = np.random.default_rng(0)
    c, *sizes = clip
    x = tinyvid.tensor(rng.random((batch, *sizes, c), np.float32).transpose(0, 4, 1, 2, 3))
    for step in range(steps):
        if step == steps - 1:
            before_last()
        optimiser.zero_grad()
        loss = tinyvid.cross_entropy(model(x), np.zeros(batch, np.int64))
        loss.backward()
        optimiser.step()


def traced_peak(build: Callable[[], nn.Module], clip: Sequence[int], batch: int) -> int:
    """Return the bytes that arrays take at most in a step, but for the first.

    They are those that `tracemalloc` sees: all of NumPy's, and so those of `kernels.memory`. The
    network is trained twice, first for what kernels compile and keep.
    """
    train(build, clip, batch, 2)
    gc.collect()
    memory.release()
    tracemalloc.start()
    try:
        train(build, clip, batch, 3, before_last=tracemalloc.reset_peak)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        memory.release()
