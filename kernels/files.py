"""The kernel files of this package, and where their launches are written."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

KERNELS = Path(__file__).parent

# Folder -> functions that yield (name, callable) for each launch of one of its files, which other
# operations may launch too. They load the file through `launch.load`, so that a copy may stand in.
LAUNCHES: dict[str, tuple[str, ...]] = {
    "conv3d": (
        "tinyvid.kernels.conv3d.launches:launches",
        "tinyvid.kernels.conv2d.launches:launches",
    ),
    "lstm": ("tinyvid.kernels.lstm.launches:launches",),
    "conv3d_relu_max_pool": ("tinyvid.kernels.conv3d_relu_max_pool.launches:launches",),
    "pool3d": ("tinyvid.kernels.pool3d.launches:launches",),
    "flow": ("tinyvid.kernels.flow.launches:launches",),
}


def original_of(file: str | Path) -> Path | None:
    """Return which of our files this one is, or is a changed copy of; None if it is neither.

    A copy is told by its name and by a kernel, `<folder>_...`, that both define.
    """
    path = Path(file).resolve()
    for folder in LAUNCHES:
        for ours in sorted((KERNELS / folder).glob("*.cu")):
            if ours == path:
                return ours
            if ours.name != path.name or not path.is_file():
                continue
            if _kernels(ours, folder) & _kernels(path, folder):
                return ours
    return None


def launches_of(original: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each launch of one of our files: its name, and a function that makes it."""
    for path in LAUNCHES[original.parent.name]:
        module, _, name = path.partition(":")
        yield from getattr(importlib.import_module(module), name)(original.name)


def _kernels(file: Path, folder: str) -> set[str]:
    return set(re.findall(rf"\b{folder}_\w+(?=\()", file.read_text(errors="replace")))
