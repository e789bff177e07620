"""The LSTMs that tests, gradient checks and benchmarks go through.

Awkward sizes first, then, marked `large`, sizes of the networks that end in an LSTM.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One layer in one direction: batch N, L steps, I inputs, H hidden units.

    `lengths` has N entries, or is None where all sequences have L steps.
    """

    name: str
    batch: int
    steps: int
    inputs: int
    hidden: int
    lengths: tuple[int, ...] | None = None
    reverse: bool = False
    large: bool = False


CASES = [
    Case("all ones", 1, 1, 1, 1),
    Case("one step", 3, 1, 4, 2),
    Case("one step, reversed", 2, 1, 3, 5, reverse=True),
    Case("one hidden unit", 2, 5, 3, 1),
    Case("one input", 3, 4, 1, 7),
    Case("batch of one", 1, 6, 5, 3),
    Case("reversed", 2, 5, 3, 4, reverse=True),
    Case("unequal lengths", 4, 7, 3, 5, lengths=(3, 7, 1, 6)),
    Case("unequal lengths, reversed", 4, 7, 3, 5, lengths=(3, 7, 1, 6), reverse=True),
    Case("none reaches the end", 3, 6, 2, 3, lengths=(4, 1, 3)),
    Case("none reaches the end, reversed", 3, 6, 2, 3, lengths=(4, 1, 3), reverse=True),
    Case("one unit more than a chunk", 2, 3, 5, 129, lengths=(3, 2)),
    Case("one unit more than a chunk, reversed", 2, 3, 5, 129, lengths=(2, 3), reverse=True),
    Case("small features", 8, 16, 48, 64, large=True),
    Case("small features, reversed", 8, 16, 48, 64, reverse=True, large=True),
    Case("cnn features", 32, 16, 512, 512, large=True),
    Case("fc6 features", 8, 16, 4096, 256, large=True),
]
