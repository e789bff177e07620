"""How long it takes to begin: to import tinyvid, and to make a first training step.

    python benchmarks/bench_startup.py
    python benchmarks/bench_startup.py --functions      # what compiling takes, by function

Each time is that of a fresh interpreter. The step is one of the worked example's 3-D CNN, on 16
clips of 3x20x64x64: once with an empty cache of compiled functions, as after an installation, then
with the cache that this has filled. Numbers are the least of some tries, to tell apart what
else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NETWORK, CLIPS = "worked_slow_fusion", 16

STEP = f"""
import json, time
start = time.perf_counter()
import numpy as np
import tinyvid
from tinyvid import models, optim
imported = time.perf_counter()
from numba.core import event
listener = event.RecordingListener()
event.register("numba:compile", listener)
entry = models.entry({NETWORK!r})
model = models.build({NETWORK!r}, 10).train()
x = tinyvid.from_numpy(np.random.standard_normal(({CLIPS}, *entry.clip)).astype(np.float32))
target = tinyvid.from_numpy(np.random.randint(10, size={CLIPS}))
optimiser = optim.SGD(list(model.parameters()), lr=1e-3, momentum=0.9)
def step():
    loss = tinyvid.cross_entropy(model(x), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
times = []
for _ in range(2):
    before = time.perf_counter()
    step()
    times.append(time.perf_counter() - before)
functions, open_ = [], []
for at, e in listener.buffer:
    if e.is_start:
        open_.append(at)
    else:
        began = open_.pop()
        if not open_:
            functions.append((str(e.data["dispatcher"].py_func.__qualname__), at - began))
print(json.dumps([imported - start, *times, functions]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tries", type=int, default=5, help="of each import (default 5)")
    parser.add_argument("--functions", action="store_true", help="list what is compiled")
    args = parser.parse_args()
    for name, code in (("numpy", "import numpy"), ("tinyvid", "import tinyvid")):
        took = min(_seconds("-c", code) for _ in range(args.tries))
        print(f"import {name:24} {took:6.2f} s")
    took = min(_seconds("-m", "tinyvid", "--help") for _ in range(args.tries))
    print(f"tinyvid --help {'':16} {took:6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("empty", "filled"):
            _, first, second, functions = json.loads(_run("-c", STEP, NUMBA_CACHE_DIR=folder))
            print(f"first step, cache {name:13} {first:6.2f} s, the next {second:.2f} s")
            if args.functions:
                for function, took in sorted(functions, key=lambda pair: -pair[1]):
                    print(f"    {function:40} {took:6.2f} s")


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    _run(*arguments)
    return time.perf_counter() - start


def _run(*arguments: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


if __name__ == "__main__":
    main()
