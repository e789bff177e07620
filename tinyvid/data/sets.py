"""Sets of labelled videos: a folder of class folders, a CSV list, or the synthetic verbs."""

from __future__ import annotations

import copy
import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyvid.data.cache import FrameCache
from tinyvid.data.clips import ClipSpec, is_short
from tinyvid.data.official import Fold, find_files, read_lists, split_spec
from tinyvid.data.video import EXTENSIONS, VideoError, VideoInfo, probe, read_frames
from tinyvid.errors import UserError, nearest

CSV_COLUMNS = ("path", "label", "group")
CSV_IN_FOLDER = "clips.csv"

MOST_TOLD = 20  # unusable files of an error; data sets have thousands
STRAY = "lies beside the class folders, so its class is unknown"


@dataclass(frozen=True)
class Video:
    """One labelled video. `name` is unique in its set; `label` is an index into its classes."""

    path: str
    label: int
    group: str
    name: str


class VideoSet(ABC):
    """Videos with their classes, and how to read them.

    classes: the names of the labels. videos: the usable ones. skipped: (path, reason) of each
    file that could not be used. source: what names them, such as a folder or a CSV file. folds: of
    a set with official ones, the names that train and those that test, fold by fold.
    """

    classes: list[str]
    videos: list[Video]
    skipped: list[tuple[str, str]]
    source: str = ""
    folds: Sequence[Fold] = ()

    @abstractmethod
    def probe(self, video: Video) -> VideoInfo:
        """Return the number of frames, their times and their size."""

    @abstractmethod
    def read(
        self, video: Video, frames: np.ndarray | None = None, short_side: int | None = None
    ) -> np.ndarray:
        """Return the frames of these indices (all if None), uint8 (T, H, W, 3) RGB, scaled so
        that the shorter side has `short_side` pixels (as they are if None)."""

    def subset(self, indices: Iterable[int]) -> VideoSet:
        """Return a set of the videos at these positions, with the same classes."""
        part = copy.copy(self)
        part.videos = [self.videos[int(i)] for i in indices]
        return part

    def counts(self) -> dict[str, int]:
        """Return the number of videos of each class."""
        labels = np.array([v.label for v in self.videos], dtype=np.int64)
        counts = np.bincount(labels, minlength=len(self.classes))
        return {name: int(n) for name, n in zip(self.classes, counts, strict=True)}

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{type(self).__name__}({len(self)} videos, {len(self.classes)} classes{skipped})"


class FileSet(VideoSet):
    """Videos in files. Each is decoded once, `workers` at a time, to find out what it holds.

    With `strict` the first unusable file raises its VideoError, otherwise it is listed in
    `skipped`. `unusable` are (path, reason) of those known to be so before they are looked into:
    they belong to no class, or are not there. `cache` names a folder that remembers what was found.
    `progress` is called with (files looked into, files in all) after each.
    """

    def __init__(
        self,
        classes: list[str],
        videos: list[Video],
        *,
        strict: bool = False,
        unusable: Sequence[tuple[str, str]] = (),
        folds: Sequence[Fold] = (),
        source: str = "",
        workers: int = 2,
        cache: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ):
        self.classes, self.videos, self.source, self.folds = classes, [], source, folds
        self.skipped = list(unusable)
        if strict and unusable:
            raise VideoError(*unusable[0])
        self._infos: dict[str, VideoInfo] = {}
        look = FrameCache(cache).probe if cache is not None else probe

        def examine(video: Video) -> VideoInfo | VideoError:
            try:
                return look(video.path)
            except VideoError as error:
                return error

        with ThreadPoolExecutor(max(1, workers)) as pool:
            found = pool.map(examine, videos)
            for done, (video, info) in enumerate(zip(videos, found, strict=True), start=1):
                if progress is not None:
                    progress(done, len(videos))
                if isinstance(info, VideoInfo):
                    self.videos.append(video)
                    self._infos[video.path] = info
                elif strict:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise info
                else:
                    self.skipped.append((video.path, info.reason))
        empty = [f"\n  {name}" for name, n in self.counts().items() if n == 0]
        if empty:
            bad = [f"\n  {path}: {reason}" for path, reason in self.skipped]
            more = f"\n  and {len(bad) - MOST_TOLD} more" if len(bad) > MOST_TOLD else ""
            told = "".join(bad[:MOST_TOLD]) + more
            raise UserError(
                f"no usable video of {len(empty)} of {len(classes)} classes:{''.join(empty)}\n"
                + (f"{len(bad)} files cannot be used:{told}\n" if bad else "")
                + "add videos, or take the classes out"
            )

    def probe(self, video: Video) -> VideoInfo:
        return self._infos[video.path]

    def read(
        self, video: Video, frames: np.ndarray | None = None, short_side: int | None = None
    ) -> np.ndarray:
        return read_frames(video.path, frames, short_side, self._infos[video.path])


def open_data(
    spec: str | Path,
    *,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> VideoSet:
    """Open the data that `spec` names.

    A folder: its sub-folders are the classes, and every video file at any depth inside belongs
    to that class. A sub-folder of the class names the group, `left/anna/0.mp4` that of anna; a
    video right in the class's folder is a group of its own. Or the group is what the regular
    expression `group_pattern` finds in the path (its first group if it has one). A CSV file, or a
    folder with `clips.csv` in it: columns path (relative to the CSV), label, group; others are
    ignored, and without `group` each video is a group of its own. Semicolons may take the place of
    commas. Files take the options `workers`, `cache` (see FileSet).

    "ucf101:FOLDER", and so for `hmdb51` and `sports1m`: the videos below FOLDER that the official
    lists name, with their folds and groups; options `lists`, the folder of the lists where they
    lie elsewhere, and `classes`, some of the classes. Listed videos that are not there are skipped.

    Or "verbs", the synthetic
    set, whose options are those of `verbs.VerbSet`; nothing is read to open it, and `progress`
    not called.

    Unusable files are skipped and listed, unless `strict`. Raises UserError for what does not
    exist or holds no usable data, and for an unknown option.
    """
    from tinyvid.data.verbs import VerbSet

    path = Path(spec)
    if str(spec) == "verbs":
        known = ["split", "per_class", "seed", "frames", "size", "fps", "window", "classes"]
        _check_options(spec, options, known)
        return VerbSet(**options)
    check_exists(spec)
    stray: list[Path] = []
    name, folder = split_spec(spec)
    if name:
        _check_options(spec, options, ["workers", "cache", "lists", "classes"])
        given = {key: options.pop(key, None) for key in ("lists", "classes")}
        classes, videos, folds, absent = _from_lists(name, folder, **given)
        options |= {"unusable": absent, "folds": folds}
        return FileSet(
            classes, videos, strict=strict, source=str(spec), progress=progress, **options
        )
    if path.is_dir() and not (path / CSV_IN_FOLDER).is_file():
        _check_options(spec, options, ["workers", "cache", "group_pattern"])
        classes, videos, stray = _from_folder(path, options.pop("group_pattern", None))
    else:
        path = path / CSV_IN_FOLDER if path.is_dir() else path
        _check_options(spec, options, ["workers", "cache"])
        classes, videos = _from_csv(path)
    options |= {"strict": strict, "source": str(path), "progress": progress}
    return FileSet(classes, videos, unusable=[(str(file), STRAY) for file in stray], **options)


def check_exists(spec: str | Path) -> None:
    """Raise UserError unless `spec` is a folder, a file that may be a CSV, or "verbs"."""
    path = split_spec(spec)[1]
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        raise UserError(
            f"{spec} is a video: to train or test, give a folder of class folders or a CSV file; "
            "to have it classified, tinyvid predict RUN FILE"
        )
    if str(spec) != "verbs" and not path.exists():
        raise UserError(
            f"{spec}: no such file or folder: give a folder of class folders, a CSV file with "
            f"the columns {','.join(CSV_COLUMNS)}, or 'verbs' for the built-in synthetic set"
            + (f".{nearest(str(spec), ['verbs'])}" if nearest(str(spec), ["verbs"]) else "")
        )


def absolute(spec: str | Path) -> str:
    """Return a name of data that holds from any folder."""
    if str(spec) == "verbs":
        return "verbs"
    name, path = split_spec(spec)
    return f"{name}:{path.resolve()}" if name else str(path.resolve())


def describe(videos: VideoSet) -> str:
    """Return what a set has, such as "12 videos, 2 classes, 3 groups: anna, ben, carla"."""
    groups = sorted({v.group for v in videos.videos})
    counted = f"{len(videos)} videos, {len(videos.classes)} classes"
    if len(groups) == len(videos):
        return f"{counted}, each video a group of its own"
    return f"{counted}, {len(groups)} groups: {listed(groups)}"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return the names in order, with commas; of many only the first."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_clip_length(videos: VideoSet, spec: ClipSpec) -> int:
    """Return how many videos are shorter than a clip and will be padded.

    Raises UserError if all of them are, or if any is and the policy is "error".
    """
    infos = [videos.probe(v) for v in videos.videos]
    short = [i for i, info in enumerate(infos) if is_short(spec, info)]
    if not short or (len(short) < len(infos) and spec.pad_policy != "error"):
        return len(short)
    longest = max(short, key=lambda i: infos[i].seconds)
    every = f"every video (the longest is {videos.videos[longest].name})"
    every = every if len(short) == len(infos) else videos.videos[longest].name
    sampled = f"at {spec.fps:g} frames a second" if spec.fps else f"with stride {spec.stride or 1}"
    raise UserError(
        f"a clip of {spec.frames} frames {sampled} is longer than {every}, which has "
        f"{infos[longest].frames} frames in {infos[longest].seconds:.2f} s: take fewer frames, or "
        f"let them follow each other faster"
    )


def _check_options(spec: str | Path, options: dict[str, Any], known: Sequence[str]) -> None:
    for name in options:
        if name not in known:
            raise UserError(
                f"data {str(spec)!r} has no option {name!r}: it takes strict, {', '.join(known)}."
                + nearest(name, known)
            )


def _from_lists(
    name: str, root: Path, lists: str | Path | None, classes: Sequence[str] | None
) -> tuple[list[str], list[Video], list[Fold], list[tuple[str, str]]]:
    """Return the classes, the videos, the folds, and the listed videos that are not there."""
    listed = read_lists(name, root if lists is None else Path(lists))
    for action in classes or ():
        if action not in listed.classes:
            raise UserError(f"{name} has no class {action!r}.{nearest(action, listed.classes)}")
    kept = list(classes) if classes is not None else listed.classes
    labels = {listed.classes.index(action): i for i, action in enumerate(kept)}
    wanted = {v: (labels[old], g) for v, (old, g) in listed.videos.items() if old in labels}
    found = find_files(wanted, root)
    videos = [
        Video(str(found[v]), label, group, v) for v, (label, group) in wanted.items() if v in found
    ]
    absent = [
        (str(root / v), f"is not there, and {listed.source[v].name} names it")
        for v in wanted
        if v not in found
    ]
    return kept, videos, listed.folds, absent


def _from_folder(
    root: Path, group_pattern: str | None
) -> tuple[list[str], list[Video], list[Path]]:
    """Return the classes, the videos, and the video files that lie beside the class folders."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise UserError(
            f"{root}: no class folders in it: make one sub-folder for each class and put the "
            f"class's videos there, or add a {CSV_IN_FOLDER}"
        )
    videos = []
    for label, folder in enumerate(folders):
        for file in _video_files(folder.rglob("*")):
            name = file.relative_to(root).as_posix()
            videos.append(Video(str(file), label, _group(name, group_pattern), name))
    return [f.name for f in folders], videos, _video_files(root.iterdir())


def _video_files(files: Iterable[Path]) -> list[Path]:
    return sorted(f for f in files if f.suffix.lower() in EXTENSIONS and f.is_file())


def _group(name: str, pattern: str | None) -> str:
    if pattern is None:
        parts = name.split("/")  # class, perhaps a person, perhaps more, file
        return parts[1] if len(parts) > 2 else name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"group_pattern {pattern!r} is no regular expression: {error}") from error
    if found is None:
        raise UserError(f"group_pattern {pattern!r} finds no group in {name!r}")
    return found.group(1) if found.re.groups else found.group()


def _from_csv(file: Path) -> tuple[list[str], list[Video]]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as f:
            header = f.readline()
            f.seek(0)
            # A spreadsheet writes semicolons where the comma is the decimal point.
            reader = csv.DictReader(f, delimiter="," if "," in header else ";")
            columns = [c.strip() for c in reader.fieldnames or ()]
            reader.fieldnames = columns
            _check_columns(file, columns)
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise UserError(f"{file}: lists no video: add a line path,label,group for each")

    line_of: dict[str, int] = {}
    entries = []
    for line, row in rows:
        values = {c: (row[c] or "").strip() for c in CSV_COLUMNS if c in columns}
        for column, value in values.items():
            if not value:
                raise UserError(f"{file}, line {line}: no {column}: fill it in")
        path = values["path"]
        full = file.parent / path
        if not full.is_file():
            raise UserError(
                f"{file}, line {line}: no file {path!r} in {file.parent}: paths are relative to "
                f"the CSV file; correct it or take the line out"
            )
        if path in line_of:
            raise UserError(f"{file}, line {line}: {path!r} stands in line {line_of[path]} too")
        line_of[path] = line
        entries.append((path, str(full), values["label"], values.get("group", path)))
    classes = sorted({label for _, _, label, _ in entries})
    return classes, [Video(full, classes.index(lb), g, path) for path, full, lb, g in entries]


def _check_columns(file: Path, columns: list[str]) -> None:
    """Refuse a CSV without the columns that it needs, or with one that is likely meant for it."""
    others = [c for c in columns if c not in CSV_COLUMNS]
    for column in CSV_COLUMNS:
        near = nearest(column, others)
        if column not in columns and (near or column != "group"):
            raise UserError(
                f"{file}: column {column!r} is missing: the first line must name the columns "
                f"{','.join(CSV_COLUMNS)}, and it names {','.join(columns) or 'none'}.{near}"
            )
