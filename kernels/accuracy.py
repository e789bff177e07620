"""How much accuracy kernels may trade for speed: `precision`.

    with tinyvid.kernels.precision("exact"):
        y = network(x)

"default" lets a kernel take any algorithm whose rounding errors are small beside what float32 can
hold of a network's values: Winograd's F(4, 3) among them, whose errors are about five times as
large as those of the definition. "exact" forbids it: what is left is F(2, 3) and the definition.
No variant that rounds its operands runs under either, unless it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tinyvid.errors import UserError, nearest

LEVELS = ("default", "exact")

# Each thread and each task has its own, over that of the process.
_level: ContextVar[str | None] = ContextVar("precision", default=None)
_of_process = LEVELS[0]


@contextmanager
def precision(level: str) -> Iterator[None]:
    """Run kernels at this level inside the block: "default" or "exact".

    Raises:
        UserError: there is no such level.
    """
    token = _level.set(_checked("precision", level))
    try:
        yield
    finally:
        _level.reset(token)


def set_precision(level: str) -> None:
    """Run kernels of this process at this level, outside blocks of `precision`.

    Raises:
        UserError: there is no such level.
    """
    global _of_process
    _of_process = _checked("set_precision", level)


def get_precision() -> str:
    """Return the level at which a kernel called now would run."""
    return _level.get() or _of_process


def _checked(function: str, level: str) -> str:
    if level not in LEVELS:
        hint = nearest(str(level), LEVELS)
        raise UserError(f"{function}({level!r}): give one of {', '.join(LEVELS)}.{hint}")
    return level
