"""How many bytes video takes: why networks see short, small clips of few frames."""

from __future__ import annotations

from dataclasses import dataclass

from tinyvid.errors import UserError

# What the lecture calls raw video: (name, height, width, frames per second).
RAW_VIDEOS = (("640×480", 480, 640, 30.0), ("1920×1080", 1080, 1920, 30.0))


@dataclass(frozen=True)
class Budget:
    """The size of uncompressed video.

    Attributes:
        frames: frames in the clip.
        height, width: pixels.
        bits: bits a pixel, all channels together; 24 is RGB of one byte each.
        fps: frames per second.
    """

    frames: int
    height: int
    width: int
    bits: int
    fps: float

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, rounded up to a whole byte."""
        return -(-self.height * self.width * self.bits // 8)

    @property
    def clip_bytes(self) -> int:
        """Bytes of the clip as it is stored."""
        return self.frames * self.frame_bytes

    @property
    def minute_bytes(self) -> int:
        """Bytes of one minute of such video."""
        return round(60 * self.fps * self.frame_bytes)


def budget(seconds: float, fps: float, height: int, width: int, bits: int = 24) -> Budget:
    """Return the budget of a clip of `seconds` at `fps`, rounded to whole frames.

    Raises:
        UserError: an argument that is not positive, or a clip of less than half a frame.
    """
    given = {"seconds": seconds, "fps": fps, "height": height, "width": width, "bits": bits}
    for name, value in given.items():
        if not 0 < value < float("inf"):
            raise UserError(f"{name}={value}: give a number above 0")
    frames = round(seconds * fps)
    if frames < 1:
        raise UserError(f"{seconds} s at {fps} frames per second hold no whole frame")
    return Budget(frames, height, width, bits, fps)


def binary(size: int) -> str:
    """Return a number of bytes in the largest binary unit that fits, to four digits.

    >>> binary(602_112)
    '588 KiB'
    >>> binary(1_658_880_000)
    '1.545 GiB'
    """
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    # Four digits, none of them for the sake of it; 1023.9 must not become 1.024e+03.
    return f"{value:.4g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
