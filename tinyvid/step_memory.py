"""How much memory a step of training takes, found without taking it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import tinyvid
from tinyvid import nn
from tinyvid.errors import UserError
from tinyvid.meta import Account
from tinyvid.tensor import _wrap, enable_grad

STEPS = 3  # until what a step leaves to be used again is what the next one needs


@dataclass(frozen=True)
class StepMemory:
    """The bytes of a training step: forward, backward, and the optimiser's update.

    Attributes:
        parameters, gradients: of the weights. state: what the optimiser keeps of each of them.
        clips: the batch itself.
        activations: what is kept for the backward pass when the forward pass ends.
        peak: the most that is held at once, from the second step on: all of the above that is
            there at that moment, what is on its way, scratch space of the kernels, and the large
            arrays that wait to be used again.
    """

    parameters: int
    gradients: int
    state: int
    clips: int
    activations: int
    peak: int


def step_memory(
    model: nn.Module, clip: Sequence[int], batch: int, state_arrays: int = 1
) -> StepMemory:
    """Return the memory of a training step, in float32 on the CPU; see `tinyvid.meta`.

    Args:
        model: takes `N C T H W`, and returns scores. It is left as it was.
        clip: `C T H W`.
        batch: N.
        state_arrays: how many arrays the optimiser keeps for each parameter: 1 of SGD with
            momentum, 2 of Adam.

    Raises:
        UserError: the clip does not fit, or there is no clip in a batch.
    """
    if batch < 1:
        raise UserError(f"a batch of {batch} clips: a training step takes at least 1")
    account = Account()
    tensors = [*model.parameters(), *model.buffers()]
    kept = [(t, t._array, t.grad) for t in tensors]
    try:
        for t in tensors:
            t._array = account.array(t.shape, t.dtype)
        learnt = [p for p in model.parameters() if p.requires_grad]
        parameters = account.live
        state = state_arrays * sum(p._array.nbytes for p in learnt)
        account.add(state)
        x = _wrap(account.array((batch, *clip), np.float32, (0, 2, 3, 4, 1)))
        for _ in range(STEPS):
            model.zero_grad()
            account.most, before = 0, account.live + account.store.held()[0]
            with account.dry_run(), enable_grad():
                loss = tinyvid.cross_entropy(model(x), np.zeros(batch, np.int64))
                activations = account.live + account.store.held()[0] - before
                loss.backward()
                del loss
            gradients = [p.grad._array.nbytes for p in learnt if p.grad is not None]
            for p in learnt:  # as the optimiser does, one after the other
                if p.grad is not None:
                    p._array = account.array(p.shape, p.dtype, lent=True)
        return StepMemory(
            parameters, sum(gradients), state, x._array.nbytes, activations, account.most
        )
    finally:
        for t, array, g in kept:
            t._array, t.grad = array, g
