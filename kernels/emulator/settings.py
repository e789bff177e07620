"""How the emulator runs kernels: in which order, whether checked, on how many OS threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from tinyvid.errors import UserError, nearest

SCHEDULES = ("forward", "reversed", "shuffled")
COPIES = ("late", "early")


@dataclass(frozen=True)
class Options:
    """What a launch on the emulator goes by.

    A right kernel gives the same result under all of them (but for atomics on floats, whose sums
    depend on the order). A wrong one often does not.

    Attributes:
        schedule: who goes first, of the blocks, of a block's warps and of a warp's lanes, where
            nothing else says so: `forward`, `reversed`, or `shuffled` by the seed.
        seed: of `shuffled`.
        copies: when a `cp.async` moves its bytes, `late` (at its wait) or `early` (at once).
        checked: run under the access checker, on one OS thread.
        count_lines: in checked launches, count what each line's accesses cost.
        workers: the most OS threads that run blocks of a launch; 0 is one a processor.
        watch: called after each checked launch with what it found (see `module.Launched`), which
            then raises for a fault alone. Without one, a launch with findings raises AccessError.
    """

    schedule: str = "forward"
    seed: int = 1
    copies: str = "late"
    checked: bool = False
    count_lines: bool = False
    workers: int = 0
    watch: Callable[[Any], None] | None = None

    def __post_init__(self):
        for name, known in (("schedule", SCHEDULES), ("copies", COPIES)):
            value = getattr(self, name)
            if value not in known:
                raise UserError(
                    f"{name}={value!r}: it is one of {', '.join(known)}.{nearest(value, known)}"
                )
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: it must be at least 0 and below 2**32")


_CURRENT: ContextVar[Options] = ContextVar("options", default=Options())  # noqa: B039 (frozen)


def current() -> Options:
    """Return the options that hold here."""
    return _CURRENT.get()


@contextmanager
def options(**changes: Any) -> Iterator[Options]:
    """Run launches inside the block with other options: `with options(schedule="reversed"):`."""
    token = _CURRENT.set(replace(current(), **changes))
    try:
        yield current()
    finally:
        _CURRENT.reset(token)
