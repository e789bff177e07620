"""What figures were taken on, and what the machine can do at most: measured, not looked up."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from tinyvid import __version__
from tinyvid.bench.timing import Timer, processor_timer
from tinyvid.kernels.threads import chunks_of, get_num_threads, parallel_for

# Set for old builds of OpenBLAS, these make a current one slower.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# What changes BLAS, or the number of threads.
PREFIXES = ("OPENBLAS_", "GOTO_", "OMP_", "KMP_", "MKL_", "BLIS_", "NUMBA_NUM_", "TINYVID_NUM_")
HARMLESS = ("KMP_DUPLICATE_LIB_OK",)  # set by threadpoolctl
PACKAGES = ("numpy", "numba", "torch", "cupy-cuda12x", "cupy-cuda13x")

MOST_BUSY = 0.1  # of the processors: more than that, and times are not those of a quiet machine
GEMM = 2048  # rows and columns of the product that the ceiling is taken from
COPIED = 256 * 2**20  # bytes: far more than any cache holds


def describe(device: str = "cpu") -> dict[str, Any]:
    """Return the machine, versions, threads, and the variables that change BLAS, for JSON."""
    return {
        "processor": _processor(),
        "cores": _cores(),
        "system": platform.platform(terse=True),
        "gpu": _gpu() if device == "cuda" else None,
        "versions": {"python": platform.python_version(), **_versions()},
        "blas": _blas(),
        "threads": get_num_threads(),
        "busy": busy(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(PREFIXES) and name not in HARMLESS
        },
    }


def warnings(machine: dict[str, Any]) -> list[str]:
    """Return what makes figures of this machine doubtful, a sentence each."""
    found = []
    slowing = [name for name in SLOWING if name in machine["environment"]]
    if slowing:
        unset = " ".join(f"-u {name}" for name in slowing)
        found.append(
            f"{' and '.join(slowing)} set: NumPy's products are slower than they need be, ours "
            f"with them; run `env {unset} tinyvid bench ...`"
        )
    if machine["busy"] is not None and machine["busy"] > MOST_BUSY:
        found.append(
            f"other work takes {machine['busy']:.0%} of this machine: only ratios mean anything"
        )
    return found


def busy(look: Callable[[], str | None] | None = None) -> float | None:
    """Return the share of the processors' time that others take while this process sleeps.

    Args:
        look: reads the system's counters, the first line of Linux's `/proc/stat`; None where it
            has none, and then nothing is known.
    """
    first = (look or _counters)()
    time.sleep(0.2 if look is None else 0)
    second = (look or _counters)()
    if first is None or second is None:
        return None
    before, after = ([int(word) for word in text.split()[1:]] for text in (first, second))
    passed = [b - a for a, b in zip(before, after, strict=True)]
    idle = passed[3] + passed[4]  # and waiting for a disk
    return round(1 - idle / sum(passed), 2) if sum(passed) else None


def _counters() -> str | None:
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            return next(lines)
    except (OSError, StopIteration):
        return None


def line(machine: dict[str, Any]) -> str:
    """Return the machine in one line."""
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    gpu = f"{machine['gpu']}, " if machine["gpu"] else ""
    return f"{gpu}{machine['processor']}, {machine['threads']} threads, {versions}"


def kind(machine: dict[str, Any]) -> str:
    """Return a name for machines like this one, as a folder may be called: `amd-epyc-2-cores`."""
    parts = (
        [machine["gpu"]] if machine["gpu"] else [machine["processor"], f"{machine['cores']} cores"]
    )
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


class Ceilings:
    """The best that was seen of a large product and of a large copy, in the same run.

    Attributes:
        gflops: 10^9 operations a second of a product of float32. gbps: 10^9 bytes a second of a
            copy, those read and those written.
    """

    def __init__(
        self,
        device: str = "cpu",
        timer: Timer = processor_timer,
        gemm: int | None = None,
        copied: int | None = None,
    ):
        self.gflops = self.gbps = 0.0
        self.timer, self.gemm, self.copied = timer, gemm or GEMM, copied or COPIED
        make = _on_gpu if device == "cuda" else _on_processor
        multiply, copy = make(self.gemm, self.copied)
        self.multiply, self.copy = multiply, copy
        for run in (multiply, copy):
            timer(run, 1)

    def sample(self) -> None:
        """Try both once more, and keep what is better than before."""
        operations, moved = 2 * self.gemm**3, 2 * self.copied
        self.gflops = max(self.gflops, operations / self.timer(self.multiply, 1) / 1e9)
        self.gbps = max(self.gbps, moved / self.timer(self.copy, 1) / 1e9)

    def bound(self, flops: float, moved: float) -> float:
        """Return the seconds that so many operations and bytes take at the ceilings."""
        return max(flops / (self.gflops * 1e9), moved / (self.gbps * 1e9))


def _on_processor(n: int, size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a product and a copy that use all our threads, each of them BLAS on its own."""
    rng = np.random.default_rng()
    a, b = (rng.standard_normal((n, n), np.float32) for _ in range(2))
    c, rows = np.empty_like(a), chunks_of(n, max(1, n // (2 * get_num_threads())))
    source, target = rng.random(size // 4, np.float32), np.empty(size // 4, np.float32)
    parts = chunks_of(size // 4, max(1, size // 4 // (2 * get_num_threads())))
    return (
        lambda: parallel_for(lambda part: np.matmul(a[part], b, out=c[part]), rows),
        lambda: parallel_for(lambda part: np.copyto(target[part], source[part]), parts),
    )


def _on_gpu(n: int, size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import cupy

    rng = np.random.default_rng()
    a, b = (cupy.asarray(rng.standard_normal((n, n), np.float32)) for _ in range(2))
    source = cupy.asarray(rng.random(size // 4, np.float32))
    return lambda: a @ b, lambda: source.copy()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpu() -> str:
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _versions() -> dict[str, str]:
    found = {"tinyvid": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _blas() -> list[str]:
    from threadpoolctl import threadpool_info

    return sorted(
        f"{x['internal_api']} {x['version']}" for x in threadpool_info() if x["user_api"] == "blas"
    )
