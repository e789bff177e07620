"""The generator behind dropout and initialisation: one for each process, seeded in one place."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

_generator = np.random.default_rng()


def manual_seed(seed: int) -> np.random.Generator:
    """Seed the generator that dropout and initialisation draw from, and return it."""
    global _generator
    _generator = np.random.default_rng(seed)
    return _generator


def generator() -> np.random.Generator:
    """Return the generator that dropout and initialisation draw from."""
    return _generator


@contextmanager
def using(other: Any) -> Iterator[None]:
    """Let dropout and initialisation draw from another generator inside the block."""
    global _generator
    before, _generator = _generator, other
    try:
        yield
    finally:
        _generator = before


def drawing_from(state: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Draw inside the block what a generator draws whose `bit_generator.state` was this one."""
    again = np.random.Generator(getattr(np.random, state["bit_generator"])())
    again.bit_generator.state = state
    return using(again)
