"""Numba's `njit`, which keeps what it compiled in the user's cache and not beside the package.

Files beside the package outlive its uninstall: the folder that they keep alive would then hide
the next install, as an empty package of the same name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numba

from tinyvid.errors import UserError
from tinyvid.kernels import cache

_settings: Any = numba.config  # one for the process, hence the lock
_lock = Lock()


def njit(*signatures: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator `numba.njit(*signatures, **options)`, with its cache elsewhere.

    With `cache=True`, what is compiled is kept in a folder in `kernels/numba` of the user's
    cache, see `tinyvid.kernels.cache`, or in `$NUMBA_CACHE_DIR` where that is set. If neither
    can be written to, a warning says so and nothing is kept. The folder is that of the vectors
    that functions are made of: Numba sees when a function's own file changes, but not these.
    """

    if not options.get("cache"):
        return numba.njit(*signatures, **options)

    def decorate(function: Callable[..., Any]) -> Any:
        with _folder() as found:
            return numba.njit(*signatures, **{**options, "cache": found})(function)

    return decorate


def for_dtypes(signature: Callable[[Any], Any]) -> Callable[[Any], Callable[[str], Any]]:
    """Decorate a function, to be compiled for a dtype when that is first asked for.

    Args:
        signature: returns that of the function, given Numba's type of its numbers.

    What it makes is a function of a dtype's name, such as "float32", that returns the compiled one.
    Threads that ask at the same time wait for it.
    """

    def decorate(function: Callable[..., Any]) -> Callable[[str], Any]:
        compiled: dict[str, Any] = {}
        compiling = Lock()

        def of(dtype: str) -> Any:
            if dtype not in compiled:
                with compiling:
                    if dtype not in compiled:
                        signatures = [signature(getattr(numba.types, dtype))]
                        compiled[dtype] = njit(signatures, nogil=True, cache=True)(function)
            return compiled[dtype]

        return of

    return decorate


@lru_cache(maxsize=1)
def _vectors() -> str:
    """Return a short name of the vectors' definitions, `lanes.py` and `simd.py` as they are now."""
    texts = [Path(__file__).with_name(name).read_bytes() for name in ("lanes.py", "simd.py")]
    return sha256(b"".join(texts)).hexdigest()[:8]


@contextmanager
def _folder() -> Iterator[bool]:
    """Let Numba use our folder for the function that is decorated now, and for no other.

    Numba asks for the folder once, when it decorates. Yields whether there is one.
    """
    with _lock:
        given = _settings.CACHE_DIR
        if given:
            yield True
            return
        try:
            _settings.CACHE_DIR = str(cache.folder(f"numba/{_vectors()}"))
        except UserError as error:
            warnings.warn(f"compiling anew in each process: {error}", RuntimeWarning, stacklevel=4)
            yield False
            return
        try:
            yield True
        finally:
            _settings.CACHE_DIR = given
