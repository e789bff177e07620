"""Batches of clips, decoded in parallel ahead of their use, the same whatever the parallelism.

Every random choice comes from (seed, epoch, place in the epoch), never from a shared generator,
so the number of workers changes the time and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyvid.data.cache import FrameCache
from tinyvid.data.clips import ClipSpec, random_clip, uniform_clips
from tinyvid.data.memory import FrameMemory, bytes_of
from tinyvid.data.sets import FileSet, Video, VideoSet, check_clip_length
from tinyvid.data.transforms import Augment, centre_crop, three_crops
from tinyvid.errors import UserError


@dataclass
class Batch:
    """N clips with their origin.

    clips: uint8 N C T H W, channels-last in memory (a view of N T H W C). labels: int64 (N,).
    videos: int64 (N,), positions in the loader's `videos.videos`. starts: float64 (N,), seconds.
    clip: int64 (N,), which of its video's clips each is.
    """

    clips: np.ndarray
    labels: np.ndarray
    videos: np.ndarray
    starts: np.ndarray
    clip: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Sample:
    frames: np.ndarray  # (T, h, w, 3)
    video: int
    start: float
    clip: int


class _Job(NamedTuple):
    video: int
    clip: int = 0
    seed: tuple[int, int, int] | None = None  # None: every test clip of the video


class ClipLoader:
    """Cuts the videos of a set into batches of clips, an epoch at a time.

    Training: `clips_per_video` clips of each video at random moments, changed by `augment`, all
    in random order. Testing: `clips_per_video` clips spread evenly over each video, `crops` (1:
    the centre, or 3 along the longer side) of each moment, in the order of the videos, where a
    clip's number is moment * crops + crop.

    `workers` threads read at most `prefetch` batches ahead (PyAV lets go of the interpreter
    while it decodes); 0 reads in the calling thread. They stop when the iterator ends, is closed
    or is forgotten. With `cache`, videos are decoded once, scaled, and kept in that folder. Without
    it they are kept in memory instead, in training from files whose scaled frames take at most
    `memory` bytes in all; of larger sets nothing is kept, and only what a clip needs is decoded.
    `drop_last` leaves out an incomplete last batch. In training a last batch of a single clip is
    joined to the one before it: batch norm cannot tell how one value of a channel varies.

    Raises UserError for impossible values and for a clip longer than a video under the padding
    policy "error"; `check_clip_length` counts the videos that get padded.
    """

    def __init__(
        self,
        videos: VideoSet,
        spec: ClipSpec,
        *,
        batch_size: int,
        train: bool,
        clips_per_video: int = 1,
        crops: int = 1,
        seed: int = 0,
        workers: int = 2,
        prefetch: int = 2,
        augment: Augment | None = None,
        cache: str | Path | None = None,
        memory: int = 0,
        drop_last: bool = False,
    ):
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("clips_per_video", clips_per_video, 1),
            ("seed", seed, 0),
            ("workers", workers, 0),
            ("prefetch", prefetch, 1),
            ("memory", memory, 0),
        ):
            if value < least:
                raise UserError(f"{name} must be at least {least}, not {value}")
        if crops not in (1, 3) or (train and crops != 1):
            raise UserError(f"crops must be 1 or, in testing, 3, not {crops}")
        if not videos.videos:
            raise UserError("there are no videos to load")
        if spec.pad_policy == "error":
            check_clip_length(videos, spec)
        self.videos, self.spec, self.train = videos, spec, train
        self.batch_size, self.clips_per_video, self.crops = batch_size, clips_per_video, crops
        self.seed, self.workers, self.prefetch = seed, workers, prefetch
        self.augment = augment or Augment()
        self.drop_last = drop_last
        self._cache = FrameCache(cache) if cache is not None else None
        self._memory: FrameMemory | None = None
        if train and cache is None and isinstance(videos, FileSet):
            infos = (videos.probe(video) for video in videos.videos)
            if bytes_of(infos, spec.source_side) <= memory:
                self._memory = FrameMemory(videos, spec.source_side)

    @property
    def keeps(self) -> bool:
        """Whether videos are kept in memory once they were decoded."""
        return self._memory is not None

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self._sizes())

    def _sizes(self) -> list[int]:
        """The number of clips in each batch of an epoch."""
        clips = len(self.videos.videos) * self.clips_per_video * self.crops
        whole, rest = divmod(clips, self.batch_size)
        sizes = [self.batch_size] * whole
        if rest and not self.drop_last:
            if rest == 1 and whole and self.train:
                sizes[-1] += 1
            else:
                sizes.append(rest)
        return sizes

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number`; in testing all epochs are alike.

        A file that cannot be read raises here, with its name, when its turn comes.
        """
        samples: list[_Sample] = []
        with closing(self._in_parallel(self._plan(number))) as found:
            for size in self._sizes():
                while len(samples) < size:
                    samples += next(found)
                yield self._batch(samples[:size])
                del samples[:size]

    def _plan(self, number: int) -> list[_Job]:
        """The jobs of an epoch in order: one clip each in training; in testing all the clips of
        a video, which share the decoding."""
        count = len(self.videos.videos)
        if not self.train:
            return [_Job(v) for v in range(count)]
        order = np.random.default_rng((self.seed, number, 0)).permutation(
            count * self.clips_per_video
        )
        # each draws from (seed, epoch, 1 + its number): the order drew from (seed, epoch, 0)
        return [
            _Job(int(i) % count, int(i) // count, (self.seed, number, int(i) + 1)) for i in order
        ]

    def _in_parallel(self, plan: list[_Job]) -> Generator[list[_Sample], None, None]:
        """Yield the result of each job in order, with a bounded number of them under way."""
        if self.workers == 0:
            yield from (self._read(job) for job in plan)
            return
        per_job = 1 if self.train else self.clips_per_video * self.crops
        ahead = max(self.workers, -(-self.prefetch * self.batch_size // per_job))
        pending: deque[Future[list[_Sample]]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="tinyvid-clips")
        try:
            for job in plan:
                pending.append(pool.submit(self._read, job))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # also when the caller closes or forgets the iterator
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, job: _Job) -> list[_Sample]:
        video = self.videos.videos[job.video]
        try:
            return self._test_clips(job) if job.seed is None else [self._training_clip(job)]
        except UserError:
            raise  # it names the file already
        except Exception as error:
            name = video.path or video.name
            raise RuntimeError(f"{name}: cannot read a clip: {error}") from error

    def _training_clip(self, job: _Job) -> _Sample:
        video, rng = self.videos.videos[job.video], np.random.default_rng(job.seed)
        clip = random_clip(self.spec, self.videos.probe(video), rng, self.augment.speed)
        frames = self.augment(self._frames(video, clip.indices), self.spec.size, rng)
        # the copy lets go of the larger picture that a crop is a view of
        return _Sample(np.ascontiguousarray(frames), job.video, clip.start, job.clip)

    def _test_clips(self, job: _Job) -> list[_Sample]:
        video, size = self.videos.videos[job.video], self.spec.size
        clips = uniform_clips(self.spec, self.videos.probe(video), self.clips_per_video)
        distinct = np.unique(np.concatenate([c.indices for c in clips]))
        pictures = self._frames(video, distinct)
        samples: list[_Sample] = []
        for clip in clips:
            frames = pictures[np.searchsorted(distinct, clip.indices)]
            cuts = three_crops(frames, size) if self.crops == 3 else [centre_crop(frames, size)]
            for cut in cuts:
                kept = np.ascontiguousarray(cut)
                samples.append(_Sample(kept, job.video, clip.start, len(samples)))
        return samples

    def _frames(self, video: Video, indices: np.ndarray) -> np.ndarray:
        side = self.spec.source_side
        if self._memory is not None:
            return self._memory.frames(video)[indices]
        if self._cache is None or not isinstance(self.videos, FileSet):
            return self.videos.read(video, indices, side)
        info = self.videos.probe(video)
        return self._cache.frames(video.path, info, side)[indices]

    def _batch(self, samples: list[_Sample]) -> Batch:
        videos = np.array([s.video for s in samples], dtype=np.int64)
        labels = np.array([self.videos.videos[v].label for v in videos], dtype=np.int64)
        return Batch(
            clips=np.stack([s.frames for s in samples]).transpose(0, 4, 1, 2, 3),
            labels=labels,
            videos=videos,
            starts=np.array([s.start for s in samples], dtype=np.float64),
            clip=np.array([s.clip for s in samples], dtype=np.int64),
        )
