"""Times on a GPU: events on its own clock, a cache that holds nothing of the call before, graphs.

CuPy's and PyTorch's default streams are the same one, so that one pair of events times both.
Nothing here was run on a GPU so far.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

# What makes a GPU run slower than its clock allows, as bits of NVML's clock event reasons.
THROTTLING = {
    0x04: "its power limit",
    0x08: "a slowdown by the hardware",
    0x20: "its temperature",
    0x40: "its temperature, by the hardware",
    0x80: "the power supply",
}
_ASKED = {
    "clocks.sm": "SM clock, MHz",
    "clocks.mem": "memory clock, MHz",
    "temperature.gpu": "temperature, C",
    "power.draw": "power, W",
}
_REASONS = "clocks_throttle_reasons.active"


class EventTimer:
    """Times calls by events around each of them, with the L2 cache overwritten in between.

    Events stand on the stream before and after a call, so that what the processor does meanwhile
    does not count, unless it is slower than the GPU.
    """

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        size = cupy.cuda.runtime.getDeviceProperties(0)["l2CacheSize"]
        self.flushed = cupy.empty((max(2 * size, 1),), "uint8")

    def __call__(self, run: Callable[[], Any], calls: int) -> float:
        """Return the seconds that so many calls take together."""
        events = []
        for _ in range(calls):
            self.flushed.fill(0)
            start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
            start.record()
            run()
            end.record()
            events.append((start, end))
        end.synchronize()
        return sum(self.cupy.cuda.get_elapsed_time(*pair) for pair in events) / 1e3


def captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """Record what a call launches as a CUDA graph; return what launches the graph, once a call.

    A launch of the graph costs the processor a few microseconds, however many kernels it holds, so
    that the time of small kernels is their own. Its memory is kept for it alone.
    """
    import cupy

    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    with cupy.cuda.using_allocator(pool.malloc), stream:
        run()  # what is made once, and memory, which cannot be asked for during the capture
        stream.synchronize()
        stream.begin_capture()
        try:
            results = run()
        finally:
            graph = stream.end_capture()

    def replay() -> Any:
        graph.launch()
        return results

    replay.keeps = pool, stream  # type: ignore[attr-defined]
    return replay


def clocks() -> dict[str, Any]:
    """Return clocks, temperature, power and what slows the GPU down, as nvidia-smi has them.

    Empty where there is no nvidia-smi, or it has no answer.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    import cupy

    asked = ",".join([*_ASKED, _REASONS])
    command = [tool, f"--query-gpu={asked}", "--format=csv,noheader,nounits"]
    command.append(f"--id={cupy.cuda.Device().pci_bus_id}")
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        *values, reasons = (word.strip() for word in said.stdout.split(","))
        found: dict[str, Any] = dict(zip(_ASKED.values(), values, strict=True))
        bits = int(reasons, 16)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    found["slowed down by"] = [why for bit, why in THROTTLING.items() if bits & bit]
    return found
