"""A folder that keeps decoded, scaled videos, and what decoding has shown of them.

One `.rgb` file holds the frames of one video at one scale, nothing but their bytes, and is mapped
into memory, so that taking a clip reads only its frames. (The header of NumPy's own format is
parsed as Python, which Python 3.11 cannot do in two threads at once.) Files are written aside and
renamed, under a lock: a second process finds a whole file or none, and waits rather than doing
the work again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinyvid.data.video import VideoError, VideoInfo, iter_frames, probe, scaled_size
from tinyvid.errors import UserError

FORMAT = 2  # part of every key: raise it when what is stored changes


class FrameCache:
    """Decoded videos in `folder`, keyed by path, time of change, length in bytes, and scale.

    A changed video gets a new entry. The old one stays until the folder is deleted, which is
    always safe. Raises UserError if the folder cannot be made.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be the cache: {error.strerror}") from error

    def probe(self, path: str | Path) -> VideoInfo:
        """Return what `video.probe` returns; the file is decoded the first time only."""
        entry = self.folder / f"{_key(path)}.json"

        def load() -> VideoInfo:
            values = json.loads(entry.read_text())
            values["times"] = np.array(values["times"])
            values["pts"], values["keys"] = tuple(values["pts"]), tuple(values["keys"])
            return VideoInfo(**values)

        def write(file: IO[bytes]) -> None:
            info = probe(path)
            values = {f.name: getattr(info, f.name) for f in fields(info)}
            file.write(json.dumps(values | {"times": info.times.tolist()}).encode())

        return self._get(entry, load, write)

    def frames(self, path: str | Path, info: VideoInfo, short_side: int | None) -> np.ndarray:
        """Return all the frames, uint8 (T, H, W, 3) RGB, read-only and mapped from the disk."""
        height, width = info.height, info.width
        if short_side is not None:
            height, width = scaled_size(height, width, short_side)
        shape = (info.frames, height, width, 3)
        return self.mapped(
            path, f"{short_side or 'full'}.rgb", shape, lambda: iter_frames(path, short_side)
        )

    def mapped(
        self,
        path: str | Path,
        name: str,
        shape: tuple[int, ...],
        parts: Callable[[], Iterable[np.ndarray]],
    ) -> np.ndarray:
        """Return bytes of this shape that belong to a video, read-only and mapped from the disk.

        Args:
            path: the video. name: tells them from other arrays of it.
            parts: called where they are not there yet; the parts, one after the other, are the
                whole, and never together in memory.
        """
        entry = self._entry(path, name)

        def load() -> np.ndarray:
            size, expected = entry.stat().st_size, math.prod(shape)
            if size != expected:
                raise ValueError(f"{entry} holds {size} bytes, expected {expected}")
            return np.memmap(entry, np.uint8, "r", shape=shape)

        def write(file: IO[bytes]) -> None:
            for part in parts():
                file.write(np.ascontiguousarray(part).data)

        return self._get(entry, load, write)

    def has(self, path: str | Path, name: str) -> bool:
        """Return whether `mapped` has such an array."""
        return self._entry(path, name).exists()

    def _entry(self, path: str | Path, name: str) -> Path:
        return self.folder / f"{_key(path)}_{name}"

    def _get(self, entry: Path, load: Callable[[], Any], write: Callable[[IO[bytes]], None]) -> Any:
        """Load an entry, making it first if it is not there or does not load."""
        from filelock import FileLock

        for locked in (False, True):  # look without the lock, then again with it
            with FileLock(self.folder / "locks" / entry.name) if locked else nullcontext():
                try:
                    return load()
                except (OSError, ValueError, KeyError, TypeError, EOFError):
                    if locked:
                        self._write(entry, write)
                        return load()
        raise AssertionError("unreachable")

    def _write(self, entry: Path, write: Callable[[IO[bytes]], None]) -> None:
        """Write aside and rename; leave nothing behind on failure."""
        aside = entry.with_name(f"{entry.name}.{os.getpid()}.part")
        try:
            with open(aside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, entry)
        except OSError as error:
            raise UserError(
                f"{self.folder}: the cache cannot be written: {error.strerror}: make room on the "
                f"disk, name another folder, or work without a cache"
            ) from error
        finally:
            aside.unlink(missing_ok=True)


def _key(path: str | Path) -> str:
    path = Path(path).resolve()
    try:
        status = path.stat()
    except OSError as error:
        raise VideoError(path, "no such file") from error
    identity = f"{FORMAT}|{path}|{status.st_mtime_ns}|{status.st_size}"
    return f"{path.stem[:40]}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"
