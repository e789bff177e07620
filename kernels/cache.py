"""Where compiled kernels are kept between runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tinyvid.errors import UserError


def folder(name: str) -> Path:
    """Return the folder `name` in the cache of compiled kernels, made if there is none.

    The cache is `kernels` in `$TINYVID_CACHE`, else in `$XDG_CACHE_HOME/tinyvid`, else in
    `~/.cache/tinyvid`. Deleting it is always safe.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    root = os.environ.get("TINYVID_CACHE")
    if not root:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tinyvid")
    path = Path(root).expanduser() / "kernels" / name
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(
            f"{path}: cannot keep compiled kernels there: {error.strerror}; set TINYVID_CACHE to "
            "a folder that can be written to"
        ) from error
    return path
