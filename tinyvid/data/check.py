"""What a set of videos holds, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyvid.data.sets import Video, VideoSet
from tinyvid.errors import UserError


@dataclass(frozen=True)
class Leak:
    """Videos that must not be on both sides of a split, and may be.

    Attributes:
        where: "fold 1", or "copies" where files of the same bytes are of different groups.
        what: the group, or the names of the files.
    """

    where: str
    what: str


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        characteristics: (what, value) of the whole set, as papers tabulate them.
        counts: videos of each class.
        unusable: (path, reason) of files that are missing, damaged or of no class.
        leaks: what makes a test on this set doubtful.
    """

    characteristics: list[tuple[str, str]]
    counts: dict[str, int]
    unusable: list[tuple[str, str]]
    leaks: list[Leak]


def check(
    videos: VideoSet, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> Check:
    """Look into an open set of video files.

    Opening it has decoded every file from end to end; here they are read once more, as bytes, to
    find copies, and asked for sound.

    Args:
        workers: files read at once.
        progress: called with (files read, files in all) after each.

    Raises:
        UserError: they are not files.
    """
    if not all(Path(video.path).is_file() for video in videos.videos):
        raise UserError(
            f"{videos.source or 'the set'} is not made of files: there is none to check"
        )
    sums, sound = [], 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, (sum_, heard) in enumerate(pool.map(_look, videos.videos), start=1):
            sums.append(sum_)
            sound += heard
            if progress is not None:
                progress(done, len(videos))
    return Check(
        _characteristics(videos, sound),
        videos.counts(),
        videos.skipped,
        _leaks(videos, sums),
    )


def _look(video: Video) -> tuple[bytes, bool]:
    """Return a checksum of a file, and whether it has sound."""
    import av

    with open(video.path, "rb") as file:
        sum_ = hashlib.blake2b(digest_size=16)
        while block := file.read(1 << 20):
            sum_.update(block)
    with av.open(video.path) as container:
        return sum_.digest(), bool(container.streams.audio)


def _characteristics(videos: VideoSet, sound: int) -> list[tuple[str, str]]:
    infos = [videos.probe(video) for video in videos.videos]
    seconds = np.array([info.seconds for info in infos])
    groups = Counter((video.label, video.group) for video in videos.videos)
    of_class = Counter(label for label, _ in groups)
    rates = Counter(f"{info.fps:.3g}" for info in infos)
    sizes = Counter(f"{info.width}×{info.height}" for info in infos)
    return [
        ("actions", f"{len(videos.classes):,}"),
        ("clips", f"{len(videos):,}"),
        ("clips an action", _span(list(videos.counts().values()))),
        ("groups an action", _span(list(of_class.values()))),
        ("clips a group of an action", _span(list(groups.values()))),
        ("mean length", f"{seconds.mean():.2f} s"),
        ("shortest", f"{seconds.min():.2f} s"),
        ("longest", f"{seconds.max():.2f} s"),
        ("total length", f"{seconds.sum() / 60:,.1f} min"),
        ("frame rate", _most(rates, " fps")),
        ("resolution", _most(sizes)),
        ("with sound", f"{sound:,} of {len(videos):,} clips"),
    ]


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _most(counts: Counter[str], unit: str = "") -> str:
    """Return the most frequent values, with how many clips have each where they differ."""
    if len(counts) == 1:
        return next(iter(counts)) + unit
    told = [f"{value}{unit} ({count:,})" for value, count in counts.most_common(3)]
    more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    return ", ".join(told) + more


def _leaks(videos: VideoSet, sums: list[bytes]) -> list[Leak]:
    leaks = []
    for number, (train, test) in enumerate(videos.folds, start=1):
        sides = [{v.group for v in videos.videos if v.name in names} for names in (train, test)]
        leaks += [Leak(f"fold {number}", f"group {group}") for group in sorted(sides[0] & sides[1])]
        leaks += [Leak(f"fold {number}", name) for name in sorted(train & test)]
    copies: dict[bytes, list[Video]] = defaultdict(list)
    for video, sum_ in zip(videos.videos, sums, strict=True):
        copies[sum_].append(video)
    for same in copies.values():
        if len({video.group for video in same}) > 1:
            leaks.append(Leak("copies", " = ".join(sorted(video.name for video in same))))
    return leaks
