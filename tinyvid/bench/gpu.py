"""Times on a GPU: events on its own clock, and a cache that holds nothing of the call before.

CuPy's and PyTorch's default streams are the same one, so that one pair of events times both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
