"""Small video files for tests, and the pictures that are in them."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def numbered(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Pictures (T, H, W, 3) that say which they are: 8 vertical bars spell the index in binary."""
    pictures = np.full((count, height, width, 3), 128, np.uint8)
    edges = np.linspace(0, width, 9).astype(int)
    for i, picture in enumerate(pictures):
        for bit in range(8):
            picture[:, edges[bit] : edges[bit + 1]] = 230 if i >> bit & 1 else 25
    return pictures


def number_of(picture: np.ndarray) -> int:
    """The index that a picture of `numbered` spells."""
    edges = np.linspace(0, picture.shape[1], 9)
    centres = ((edges[:-1] + edges[1:]) / 2).astype(int)
    return sum(1 << bit for bit, x in enumerate(centres) if picture[:, x].mean() > 128)


def write_video(
    path: str | Path,
    pictures: np.ndarray,
    *,
    codec: str = "libx264",
    fps: int = 25,
    gop: int = 12,
    b_frames: int = 2,
    pix_fmt: str = "yuv420p",
    times: np.ndarray | None = None,
    skip_packets: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode `pictures`; `times` (seconds) makes the frame rate variable, and the first
    `skip_packets` packets are left out of the file."""
    path = Path(path)
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        if codec in ("libx264", "libx265", "mpeg4"):
            stream.codec_context.max_b_frames = b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[i]), Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet in packets[skip_packets:]:
            container.mux(packet)
    return path


def write_sound(path: str | Path) -> Path:
    """A file with half a second of silence and no picture."""
    path = Path(path)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for _ in range(8):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_mp4(path: str | Path, quarter_turns: int) -> Path:
    """Rewrite the matrix in an MP4's track header: to be shown turned clockwise."""
    path = Path(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: the matrix of a version 0 header
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns % 4]
    unit = 1 << 16
    matrix = [cos * unit, sin * unit, 0, -sin * unit, cos * unit, 0, 0, 0, 1 << 30]
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path
