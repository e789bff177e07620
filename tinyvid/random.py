"""The generator behind dropout and initialisation: one for each process, seeded in one place."""

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
