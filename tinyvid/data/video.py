"""Video files: what is in them, and their frames by exact index.

A frame's index counts decoded frames in presentation order from 0. Nothing that the container
says about their number is believed: a count here is a count of frames that were decoded.
PyAV is imported when the first file is opened, not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinyvid.errors import UserError

# fmt: off
EXTENSIONS = frozenset((
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp",
    ".ogv", ".ts", ".mts", ".m2ts", ".gif",
))
# fmt: on

# Codecs in whose streams a picture says of itself that no other refers to it.
UNREFERRED = ("h264", "mpeg4")


class VideoError(UserError):
    """A video file cannot be used: it is missing, unreadable, damaged, or has no picture."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self):  # pickling would otherwise pass the whole message as `path`
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class VideoInfo:
    """What decoding a video from end to end has shown.

    `height` and `width` are those of the upright picture, after the rotation (degrees
    counter-clockwise) that the file asks for. `seconds` runs from the first frame to the end of
    the last; `fps` is frames / seconds. `times` holds the second at which each frame is shown,
    the first at 0; `pts` the time stamps behind it; `keys` the frames at which decoding can start.
    """

    frames: int
    fps: float
    height: int
    width: int
    seconds: float
    codec: str = ""
    rotation: int = 0
    times: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)
    pts: tuple[int, ...] = field(default=(), compare=False, repr=False)
    keys: tuple[int, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def constant_rate(cls, frames: int, fps: float, height: int, width: int) -> VideoInfo:
        """Describe `frames` frames that are `1 / fps` seconds apart."""
        times = np.arange(frames) / fps
        return cls(frames, fps, height, width, frames / fps, times=times)


def probe(path: str | Path) -> VideoInfo:
    """Decode a whole file, keeping no picture, and say what it holds.

    Raises VideoError for a file that is missing, is no video, has sound only, has not one frame,
    or is damaged: one in which decoding fails after the first frame, or a packet is incomplete,
    as in a file cut short. A stream that was cut between two packets (Matroska and MPEG streams
    have no table that would tell) is a shorter video like any other.
    """
    pts: list[int | None] = []
    keys: list[int] = []
    with _Decoder(path) as decoder:
        for index, frame in enumerate(decoder.frames()):
            if index == 0:
                rotation = _rotation(frame)
                height, width = _upright(frame.height, frame.width, rotation)
            pts.append(frame.pts)
            if frame.key_frame:
                keys.append(index)
            duration = getattr(frame, "duration", None) or 0
        time_base, rate = float(decoder.stream.time_base or 1), decoder.rate
        codec = decoder.stream.codec_context.codec.canonical_name

    stamps = np.array([-1 if p is None else p for p in pts], dtype=np.int64)
    usable = None not in pts and bool((np.diff(stamps) > 0).all())
    if usable:
        times = (stamps - stamps[0]) * time_base
        if duration:
            last = duration * time_base
        else:
            last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / rate
    else:  # no time stamps (a raw stream) or nonsensical ones: trust the nominal rate
        times, last = np.arange(len(pts)) / rate, 1 / rate
    seconds = float(times[-1] + last)
    return VideoInfo(
        frames=len(pts),
        fps=len(pts) / seconds,
        height=height,
        width=width,
        seconds=seconds,
        codec=codec,
        rotation=rotation,
        times=times,
        pts=tuple(int(p) for p in stamps) if usable else (),
        keys=tuple(keys) if usable else (),
    )


def read_frames(
    path: str | Path,
    indices: Sequence[int] | np.ndarray | None = None,
    short_side: int | None = None,
    info: VideoInfo | None = None,
) -> np.ndarray:
    """Return the frames at `indices` (all of them if None), uint8 (T, H, W, 3) in RGB.

    Indices may repeat and come in any order. `short_side` scales each picture so that its
    shorter side has that many pixels. With the `info` of an earlier `probe`, decoding starts at
    the key frame before a wanted frame instead of at the beginning of the file; the frames are
    the same. Raises VideoError as `probe` does, and for an index that the file does not have.
    """
    if indices is None:
        return np.stack(list(iter_frames(path, short_side)))
    wanted = np.asarray(indices, dtype=np.int64)
    if wanted.ndim != 1 or wanted.size == 0:
        raise UserError(f"indices must be a list of frames, at least one, not {indices!r}")
    distinct = np.unique(wanted)
    if distinct[0] < 0 or (info is not None and distinct[-1] >= info.frames):
        raise _no_frame(path, distinct, info)
    pictures: dict[int, np.ndarray] = {}
    if info is not None and info.keys:
        with suppress(VideoError):  # whatever it is, decoding from the start will say it better
            pictures = _read_from_keys(path, distinct, short_side, info)
    if len(pictures) < len(distinct):  # no usable time stamps, or a seek that missed
        pictures = {}
        last = int(distinct[-1])
        members = set(distinct.tolist())
        for index, picture in enumerate(iter_frames(path, short_side, only=members)):
            if picture is not None:
                pictures[index] = picture
            if index == last:
                break
        else:
            raise _no_frame(path, distinct, info)
    return np.stack([pictures[int(i)] for i in wanted])


def iter_frames(
    path: str | Path, short_side: int | None = None, only: set[int] | None = None
) -> Iterator[Any]:
    """Yield every frame in turn as uint8 (H, W, 3) RGB; None in place of those not in `only`."""
    with _Decoder(path) as decoder:
        to_picture = _Picture(short_side)
        for index, frame in enumerate(decoder.frames()):
            yield to_picture(frame) if only is None or index in only else None


def _read_from_keys(
    path: str | Path, distinct: np.ndarray, short_side: int | None, info: VideoInfo
) -> dict[int, np.ndarray]:
    """Read the sorted frames `distinct`, jumping to the key frame before each where that helps.

    A frame is recognised by its time stamp. Frames are only taken at or after the key frame in
    presentation order, so that none is used whose references lie before the jump. Of the frames
    in between, those that no other refers to are passed over, see `_Decoder.only`. Should the
    container land elsewhere, fewer pictures come back and the caller decodes from the start.
    """
    index_of = {p: i for i, p in enumerate(info.pts)}
    to_picture = _Picture(short_side)
    pictures: dict[int, np.ndarray] = {}
    with _Decoder(path) as decoder:
        if info.codec in UNREFERRED:
            # key frames too: by them we see where we are
            decoder.only = {info.pts[i] for i in (*distinct.tolist(), *info.keys)}
        frames, position = decoder.frames(), -1  # `position`: the last frame that was seen
        landed = False  # whether the key frame that decoding starts at has come
        for want in distinct.tolist():
            key = info.keys[int(np.searchsorted(info.keys, want, side="right")) - 1]
            if key > want:  # the file does not begin with a key frame
                key = 0
            if key > position + 1:
                decoder.seek(info.pts[key])
                frames, position, landed = decoder.frames(), key - 1, False
            for frame in frames:
                index = index_of.get(frame.pts, -1)
                if index < position + 1:  # leading frames of the key frame, or an unknown one
                    continue
                if index > want or not (landed or index == position + 1):
                    return {}
                position, landed = index, True
                if index == want:
                    pictures[want] = to_picture(frame)
                    break
    return pictures


class _Decoder:
    """An open file and its first video stream, decoded in the calling thread alone.

    Parallel work is over files, so a decoder's own threads would only compete with it.

    Attributes:
        only: time stamps of the frames that are needed; None for all. Of the others, those that
            no other frame refers to (most of the B pictures) are not decoded.
    """

    only: set[int] | None = None

    def __init__(self, path: str | Path):
        import av

        self.path, self._av = path, av
        if not Path(path).is_file():
            raise VideoError(path, "is a folder" if Path(path).is_dir() else "no such file")
        try:
            self.container = av.open(str(path))
        except (av.error.FFmpegError, OSError, UnicodeError) as error:
            raise VideoError(path, f"unreadable: {_plain(error)}") from error
        videos = [
            s
            for s in self.container.streams.video
            if s.codec_context is not None and not _is_cover(s)
        ]
        if not videos:
            sound = bool(self.container.streams.audio)
            self.container.close()
            raise VideoError(path, "has sound only, no picture" if sound else "no video stream")
        self.stream = videos[0]
        self.stream.thread_type = "NONE"

    def __enter__(self) -> _Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def rate(self) -> float:
        """The nominal frame rate: a guess for files without time stamps."""
        return float(self.stream.average_rate or self.stream.guessed_rate or 25)

    def seek(self, pts: int) -> None:
        """Go to the key frame at `pts`, or to whichever the container finds before it."""
        self.container.seek(pts, stream=self.stream, backward=True)

    def frames(self) -> Iterator[Any]:
        """Yield the decoded frames in presentation order.

        Errors before the first frame are the packets of a stream that does not begin with a key
        frame, and are passed over. Any later one means that the file is damaged.
        """
        count = 0
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                cut = packet.is_corrupt
                if self.only is not None:
                    needed = packet.pts is None or packet.pts in self.only
                    self.stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
                frames = packet.decode()
            except self._av.error.FFmpegError as error:
                if count:
                    raise self._damaged(count, _plain(error)) from error
                if not isinstance(error, self._av.error.InvalidDataError):
                    raise VideoError(self.path, f"unreadable: {_plain(error)}") from error
                continue
            for frame in frames:
                count += 1
                yield frame
            if cut and count:
                raise self._damaged(count, "a packet is incomplete")
        if not count:
            raise VideoError(self.path, "not one frame can be decoded")

    def _damaged(self, count: int, why: str) -> VideoError:
        return VideoError(self.path, f"damaged or cut short: {why} after {count} frames")


class _Picture:
    """Turns decoded frames into arrays of one size: that of the first frame, upright, scaled.

    It keeps its converter, whose set-up for a size and format costs more than a conversion.
    """

    def __init__(self, short_side: int | None):
        from av.video.reformatter import VideoReformatter

        self.short_side = short_side
        self.size: tuple[int, int] | None = None
        self.converter = VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        if self.size is None:
            self.size = (frame.height, frame.width)
            if self.short_side is not None:
                self.size = scaled_size(frame.height, frame.width, self.short_side)
            self.rotation = _rotation(frame)
        height, width = self.size
        scaled = self.converter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="AREA", threads=1
        )
        picture = view_of(scaled)
        return np.rot90(picture, self.rotation // 90) if self.rotation else picture


def view_of(frame: Any) -> np.ndarray:
    """Return the picture of an `rgb24` frame, uint8 (H, W, 3), as a view of its memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)


class VideoWriter:
    """A new video file, written picture by picture, uint8 (H, W, 3) RGB of one size.

    Sides must be even: colour is kept at half their resolution.
    """

    def __init__(self, path: str | Path, fps: float, codec: str = "libx264"):
        import av

        self._frame_of = av.VideoFrame.from_ndarray
        self._container = av.open(str(path), "w")
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = cast(Any, self._container.add_stream(codec, rate=rate))
        self._stream.pix_fmt = "yuv420p"
        self._begun = False

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, picture: np.ndarray) -> None:
        """Write the next picture."""
        if not self._begun:
            self._stream.height, self._stream.width = picture.shape[:2]
            self._begun = True
        frame = self._frame_of(np.ascontiguousarray(picture), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the end of the file."""
        if self._begun:
            self._container.mux(self._stream.encode())
        self._container.close()


def write_video(
    path: str | Path, pictures: Iterable[np.ndarray], fps: float, codec: str = "libx264"
) -> None:
    """Write pictures as they come; see `VideoWriter`."""
    with VideoWriter(path, fps, codec) as writer:
        for picture in pictures:
            writer.add(picture)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the size of the same shape whose shorter side is `short_side`."""
    if height <= width:
        return short_side, max(1, round(width * short_side / height))
    return max(1, round(height * short_side / width)), short_side


def _rotation(frame: Any) -> int:
    """Degrees counter-clockwise to the upright picture, a multiple of 90."""
    return round(frame.rotation / 90) * 90 % 360


def _upright(height: int, width: int, rotation: int) -> tuple[int, int]:
    return (width, height) if rotation % 180 else (height, width)


def _is_cover(stream: Any) -> bool:
    """Whether the stream is the picture on the cover of a piece of music."""
    return bool(int(stream.disposition) & 0x400)  # AV_DISPOSITION_ATTACHED_PIC


def _plain(error: Exception) -> str:
    """The library's own words without its number and the path, which we name ourselves."""
    return str(getattr(error, "strerror", None) or error)


def _no_frame(path: str | Path, distinct: np.ndarray, info: VideoInfo | None) -> VideoError:
    has = f"it has {info.frames}" if info is not None else "it has fewer"
    return VideoError(path, f"no frame {distinct[0] if distinct[0] < 0 else distinct[-1]}: {has}")
