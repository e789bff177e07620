"""Data sets with official lists of what trains and what tests: UCF-101, HMDB-51, Sports-1M.

The lists come with the data sets, as text files, and are read as they are:

    ucf101     classInd.txt; trainlist01.txt and testlist01.txt, and so on to 03
               group: the 25 sources that each action's clips were cut from, `_g07_` in the name
    hmdb51     CLASS_test_split1.txt, and so on to 3: 1 trains, 2 tests, 0 is not used
               group: an action of a film or upload, the name up to `_CLASS_`
    sports1m   labels.txt; train_partition.txt and test_partition.txt, of a URL and its labels each
               group: the video itself; of several labels the first

Soomro, Zamir and Shah, "UCF101", CRCV-TR-12-01, 2012. Kuehne et al., "HMDB", ICCV 2011. Karpathy
et al., "Large-scale video classification with convolutional neural networks", CVPR 2014.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinyvid.data.video import EXTENSIONS
from tinyvid.errors import UserError

Fold = tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True)
class Listed:
    """What the lists of a data set say.

    Attributes:
        classes: their names, in the official order.
        videos: official name -> (index of its class, its group).
        folds: the names that train and those that test, fold by fold.
        source: name -> the file that names it.
    """

    classes: list[str]
    videos: Mapping[str, tuple[int, str]]
    folds: list[Fold]
    source: Mapping[str, Path]


def split_spec(spec: str | Path) -> tuple[str, Path]:
    """Return the name of an official set and the folder, of "ucf101:FOLDER"; else "" and the path.

    Raises:
        UserError: a name without a folder.
    """
    name, _, folder = str(spec).partition(":")
    if name not in OFFICIAL or Path(spec).exists():
        return "", Path(spec)
    if not folder:
        raise UserError(
            f"data {str(spec)!r}: say where the videos are, {name}:FOLDER; nothing is downloaded"
        )
    return name, Path(folder)


def read_lists(name: str, folder: Path) -> Listed:
    """Read the official lists of a data set.

    Args:
        name: one of `OFFICIAL`.
        folder: where they lie, at any depth.

    Raises:
        UserError: there are none, or one is damaged: the message names the file and the line.
    """
    first, read = OFFICIAL[name]
    found = sorted(folder.rglob(first))
    if not found:
        raise UserError(
            f"{folder}: no {first} in it, of the official lists of {name}: put them there, or say "
            "where they are with --set data.options.lists=FOLDER"
        )
    return read(found[0].parent)


def find_files(names: Iterable[str], root: Path) -> dict[str, Path]:
    """Return where the videos of these names lie below `root`, those that are there.

    They are known by their file names without extension, so that folders may be arranged in any
    way and videos be converted.
    """
    there = {
        file.stem: file
        for file in sorted(root.rglob("*"), reverse=True)
        if file.suffix.lower() in EXTENSIONS
    }
    found = ((name, there.get(_stem(name))) for name in names)
    return {name: path for name, path in found if path is not None}


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    stem, dot, extension = base.rpartition(".")
    return stem if dot and f".{extension.lower()}" in EXTENSIONS else base


def _ucf101(folder: Path) -> Listed:
    classes = [name for (name,) in _rows(folder / "classInd.txt", r"\d+ (\w+)")]
    index = {name: i for i, name in enumerate(classes)}
    videos: dict[str, tuple[int, str]] = {}
    source: dict[str, Path] = {}
    folds: list[Fold] = []
    for train in sorted(folder.glob("trainlist*.txt")):
        sides = []
        for file in (train, train.with_name(train.name.replace("train", "test"))):
            rows = list(_rows(file, r"((\w+)/\w+_(g\d+)_c\d+\.avi)(?: \d+)?"))
            for name, action, group in rows:
                if action not in index:
                    raise UserError(f"{file}: {name} is of no class of classInd.txt")
                videos[name] = index[action], f"{action}/{group}"
                source.setdefault(name, file)
            sides.append(frozenset(name for name, _, _ in rows))
        folds.append((sides[0], sides[1]))
    return Listed(classes, videos, folds, source)


def _hmdb51(folder: Path) -> Listed:
    lists = sorted(folder.glob("*_test_split[123].txt"))
    classes = sorted({file.name.rpartition("_test_split")[0] for file in lists})
    videos: dict[str, tuple[int, str]] = {}
    source: dict[str, Path] = {}
    folds: list[Fold] = []
    for fold in "123":
        sides: dict[str, set[str]] = {"0": set(), "1": set(), "2": set()}
        for label, action in enumerate(classes):
            file = folder / f"{action}_test_split{fold}.txt"
            for base, side in _rows(file, r"(.+\.avi) ([012])"):
                name = f"{action}/{base}"
                videos[name] = label, f"{action}/{base.rpartition(f'_{action}_')[0] or base}"
                source.setdefault(name, file)
                sides[side].add(name)
        folds.append((frozenset(sides["1"]), frozenset(sides["2"])))
    return Listed(classes, videos, folds, source)


def _sports1m(folder: Path) -> Listed:
    classes = [name for (name,) in _rows(folder / "labels.txt", r"(.+)")]
    videos: dict[str, tuple[int, str]] = {}
    source: dict[str, Path] = {}
    sides = []
    for file in (folder / "train_partition.txt", folder / "test_partition.txt"):
        rows = list(_rows(file, r".*[?&]v=([\w-]+)\S* (\d+)(?:,\d+)*"))
        for name, label in rows:
            if int(label) >= len(classes):
                raise UserError(f"{file}: {name} has label {label}, and labels.txt {len(classes)}")
            videos[name] = int(label), name
            source[name] = file
        sides.append(frozenset(name for name, _ in rows))
    return Listed(classes, videos, [(sides[0], sides[1])], source)


def _rows(file: Path, pattern: str) -> list[tuple[str, ...]]:
    """Return what the pattern's groups find in each line that is not empty."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = re.fullmatch(pattern, line.strip())
        if match is None:
            raise UserError(
                f"{file}, line {number}: {line.strip()!r} is not as in the official file"
            )
        rows.append(match.groups())
    if not rows:
        raise UserError(f"{file} is empty")
    return rows


# name -> a file that is sure to be among its lists, and what reads them in a folder.
OFFICIAL: Mapping[str, tuple[str, Callable[[Path], Listed]]] = {
    "ucf101": ("classInd.txt", _ucf101),
    "hmdb51": ("*_test_split1.txt", _hmdb51),
    "sports1m": ("labels.txt", _sports1m),
}
