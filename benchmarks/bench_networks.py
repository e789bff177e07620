"""A training step of each network, beside the same network in PyTorch.

    python benchmarks/bench_networks.py [NAME ...] [--seconds 5]

The step is forward, cross-entropy, backward and SGD with momentum, on random clips of the size
that the network is meant for. Both sides get the same weights, and their losses and gradients
must agree before anything is timed. Needs PyTorch (`pip install torch`).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from harness import interleave, machine
from torch_peer import twin

import tinyvid
from tinyvid import models, optim
from tinyvid.kernels.threads import set_num_threads

# Clips of a step: full-size networks take fewer.
BATCH = {"c3d": 2, "c3d_lecture": 2, "karpathy": 4}
CLASSES = 10


def steps(name: str, threads: int, dtype: type = np.float32):
    """Return the number of clips, our step and PyTorch's, and the parameters of both."""
    n = next((size for start, size in BATCH.items() if name.startswith(start)), 16)
    entry = models.entry(name)
    options = {"dropout": 0.0} if "dropout" in entry.defaults else {}
    tinyvid.manual_seed(0)
    model = models.build(name, CLASSES, **options).to(dtype)
    peer = twin(model)
    torch.set_num_threads(threads)
    set_num_threads(threads)

    rng = np.random.default_rng(0)
    clips = rng.normal(size=(n, *entry.clip)).astype(dtype)
    labels = rng.integers(CLASSES, size=n)
    x, target = tinyvid.from_numpy(clips), tinyvid.from_numpy(labels)
    tx, ttarget = torch.tensor(clips), torch.tensor(labels)
    ours = optim.SGD(list(model.parameters()), lr=1e-3, momentum=0.9)
    theirs = torch.optim.SGD(peer.parameters(), lr=1e-3, momentum=0.9)

    def our_step():
        loss = tinyvid.cross_entropy(model(x), target)
        ours.zero_grad()
        loss.backward()
        ours.step()
        return loss.item()

    def their_step():
        loss = torch.nn.functional.cross_entropy(peer(tx), ttarget)
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        return loss.item()

    return n, our_step, their_step, dict(model.named_parameters()), dict(peer.named_parameters())


def compare(name: str, threads: int) -> None:
    """Stop where a loss or a gradient differs from PyTorch's, in float64."""
    if "single_frame" in name:  # draws its frames at random, each side its own
        return
    _, our_step, their_step, ours, theirs = steps(name, threads, np.float64)
    mine, yours = our_step(), their_step()
    if not abs(mine - yours) <= 1e-9 * abs(yours):
        raise SystemExit(f"{name}: loss {mine}, in PyTorch {yours}")
    for key, p in ours.items():
        want = theirs[key].grad.numpy()
        error = np.abs(p.grad.numpy() - want).max()
        if not error <= 1e-7 * np.abs(want).max() + 1e-12:
            raise SystemExit(f"{name}: gradient of {key} is off by {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=models.names())
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    print(machine(), f"PyTorch {torch.__version__}, {given.threads} threads\n", sep="\n")
    print(f"{'training step':24} {'clips':>5} {'tinyvid':>10} {'PyTorch':>10}   ratio   spread")
    for name in given.names:
        compare(name, given.threads)
        n, our_step, their_step, *_ = steps(name, given.threads)
        t = interleave({"ours": our_step, "torch": their_step}, given.seconds)
        ratio = np.median(t["ours"].rounds / t["torch"].rounds)
        spread = max(t["ours"].spread, t["torch"].spread)
        print(
            f"{name:24} {n:5} {t['ours'].median * 1e3:7.0f} ms {t['torch'].median * 1e3:7.0f} ms "
            f"{ratio:7.2f} {spread:7.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
