"""The memory of a training step: foretold, measured, and PyTorch's.

    python benchmarks/bench_memory.py [NETWORK] [BATCH]

By default C3D on 4 clips of its own size, trained by SGD with momentum. Each measurement is a
fresh process with two threads: the most memory that it has ever held, less what it holds once its
modules are imported; and what `tracemalloc` sees, which is NumPy's arrays alone.
"""

from __future__ import annotations

import resource
import subprocess
import sys

STEPS = 3


def main() -> None:
    name, batch = (sys.argv[1:] + ["c3d", "4"][len(sys.argv) - 1 :])[:2]
    print(f"{name}, {batch} clips, SGD with momentum, step {STEPS}; MiB")
    for what, about in ROLES.items():
        command = [sys.executable, __file__, name, batch, what]
        done = subprocess.run(command, capture_output=True, text=True)
        error = done.stderr.strip().splitlines()[-1:] or [""]
        print(f"{about:44}", done.stdout.strip() if done.returncode == 0 else error[0], flush=True)


ROLES = {
    "foretold": "arrays, foretold by tinyvid summary",
    "arrays": "arrays, measured",
    "ours": "the process, tinyvid",
    "pytorch": "the process, PyTorch",
}


def measure(name: str, batch: int, what: str) -> None:
    """Print what one process finds."""
    from tinyvid import models, nn
    from tinyvid.bench.memory import traced_peak, train
    from tinyvid.kernels.threads import set_num_threads
    from tinyvid.step_memory import step_memory

    set_num_threads(2)
    entry = models.entry(name)

    def build() -> nn.Module:
        return models.build(name, entry.classes)

    if what == "foretold":
        with nn.shapes_only():
            model = build()
        size = step_memory(model, entry.clip, batch).peak
    elif what == "arrays":
        size = traced_peak(build, entry.clip, batch)
    elif what == "ours":
        before = held()
        train(build, entry.clip, batch, STEPS)
        size = held() - before
    else:
        size = pytorch(build(), entry.clip, batch)
    print(f"{size / 2**20:8.0f}")


def pytorch(model, clip, batch: int) -> int:
    """Return the most that a process holds beyond its modules, its network copied from ours."""
    import torch

    from tinyvid.bench.torch_networks import twin

    torch.set_num_threads(2)
    before = held() - sum(p.data.nbytes for p in model.parameters())  # of which twin makes copies
    net = twin(model)
    del model
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    x, labels = torch.rand(batch, *clip), torch.zeros(batch, dtype=torch.int64)
    for _ in range(STEPS):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x), labels).backward()
        optimiser.step()
    return held() - before


def held() -> int:
    """Return the most bytes that this process has held at any time."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main()
