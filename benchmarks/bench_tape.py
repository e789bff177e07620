"""What the tape costs: an operation on four numbers, forward and backward, beside PyTorch.

    python benchmarks/bench_tape.py

A chain of operations is run forward and backward. "arrays" is the time of the NumPy calls that
this needs in any case; the overhead is what the tape adds to them, for one operation.
"""

from __future__ import annotations

import numpy as np

import tinyvid
from tinyvid.bench.machine import describe, line, warnings
from tinyvid.bench.tape import LENGTH, chain
from tinyvid.bench.timing import interleave

ARRAY = np.ones(4, np.float32)


def arrays(forward, backward):
    for _ in range(LENGTH):
        forward(ARRAY)
    for _ in range(LENGTH):
        backward(ARRAY)


ZERO, FACTOR = np.float32(0), np.float32(1e-3)

# The operation, and the NumPy calls of its forward and of its backward pass.
OPERATIONS = {
    "add": (lambda a, b: a + b, lambda a: a + a, lambda a: a + a),
    "mul": (lambda a, b: a * b, lambda a: a * a, lambda a: (a * a, a * a, a + a)),
    "relu": (
        lambda a, b: a.relu(),
        lambda a: np.maximum(a, ZERO),
        lambda a: a * (a > 0),
    ),
    "tanh": (lambda a, b: a.tanh(), np.tanh, lambda a: a * (1 - a * a)),
    "sum": (
        lambda a, b: a + a.sum() * 1e-3,
        lambda a: a + a.sum() * FACTOR,
        lambda a: (a.sum(), np.broadcast_to(a[:1], 4), a + a),
    ),
}


def main() -> None:
    machine = describe()
    print(line(machine), *warnings(machine), sep="\n")
    x, b = (tinyvid.tensor(ARRAY, requires_grad=True) for _ in range(2))
    g = tinyvid.tensor(ARRAY)
    try:
        import torch

        torch.set_num_threads(1)
        tx, tb = (torch.ones(4, requires_grad=True) for _ in range(2))
        tg = torch.ones(4)
    except ImportError:
        torch = None
        print("PyTorch is not installed: pip install torch")
    print(f"\n{'operation':10} {'tinyvid':>9} {'arrays':>9} {'overhead':>9} {'PyTorch':>9}   ratio")
    for name, (operation, forward, backward) in OPERATIONS.items():
        contestants = {
            "tinyvid": lambda f=operation: chain(x, b, g, f),
            "arrays": lambda f=forward, r=backward: arrays(f, r),
        }
        if torch is not None:
            contestants["torch"] = lambda f=operation: chain(tx, tb, tg, f)
        times = interleave(contestants, seconds=2.0)
        micro = {k: t.min() / LENGTH * 1e6 for k, t in times.items()}
        row = f"{name:10} {micro['tinyvid']:6.2f} µs {micro['arrays']:6.2f} µs "
        row += f"{micro['tinyvid'] - micro['arrays']:6.2f} µs "
        if torch is not None:
            row += f"{micro['torch']:6.2f} µs {micro['tinyvid'] / micro['torch']:7.2f}"
        print(row)


if __name__ == "__main__":
    main()
