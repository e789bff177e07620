"""Arrays that are worth keeping on disk, computed once."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from tinyvid.checkpoint import write_atomically
from tinyvid.runs import make_folder

Arrays = Mapping[str, np.ndarray]


def kept_arrays(
    folder: str | Path | None, video: str | Path, how: object, compute: Callable[[], Arrays]
) -> Arrays:
    """Return what `compute` returns, from `folder` where it is kept already.

    A file is written whole or not at all, under a lock: a second process waits for it rather than
    doing the work again. One that is damaged is made anew.

    Args:
        folder: None to keep nothing.
        video: the file that the arrays are of; changed in place, it counts as another. Of one that
            is no file, such as a generated video, nothing is kept.
        how: everything else that the arrays depend on; its `repr` counts.

    Raises:
        UserError: the folder cannot be made or written to; and what `compute` raises.
    """
    video = Path(video)
    if folder is None or not video.is_file():
        return compute()
    folder = make_folder(folder)
    status = video.resolve().stat()
    key = repr((str(video.resolve()), status.st_mtime_ns, status.st_size, how))
    entry = folder / f"{video.stem[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    with FileLock(make_folder(folder / "locks") / entry.name):
        try:
            with np.load(io.BytesIO(entry.read_bytes()), allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            found = compute()
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **found)
        write_atomically(entry, content.getvalue())
    return found
