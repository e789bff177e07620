"""The bytes of video, against the numbers of the lecture's first section."""

import pytest

from tinyvid.budget import RAW_VIDEOS, binary, budget
from tinyvid.errors import UserError

GIB = 2**30


def test_training_clip():
    clip = budget(3.2, 5, 112, 112)
    assert clip.frames == 16
    assert clip.clip_bytes == 602_112
    assert binary(clip.clip_bytes) == "588 KiB"


def test_raw_video_a_minute():
    minutes = {name: budget(60, fps, h, w).clip_bytes for name, h, w, fps in RAW_VIDEOS}
    assert minutes == {"640×480": 640 * 480 * 3 * 1800, "1920×1080": 1920 * 1080 * 3 * 1800}
    assert round(minutes["640×480"] / GIB, 3) == 1.545
    assert round(minutes["1920×1080"] / GIB, 2) == 10.43
    assert binary(minutes["640×480"]) == "1.545 GiB"
    assert binary(minutes["1920×1080"]) == "10.43 GiB"


def test_minute_does_not_depend_on_the_clip():
    short, long = budget(1, 30, 480, 640), budget(9, 30, 480, 640)
    assert short.minute_bytes == long.minute_bytes == 1_658_880_000


def test_frames_are_whole_and_bits_round_up():
    assert budget(1.0, 29.97, 8, 8).frames == 30
    assert budget(1, 1, 3, 3, bits=12).frame_bytes == 14  # 13.5


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1023 * 1024, "1023 KiB"),
        (2**20, "1 MiB"),
        (2**40, "1 TiB"),
        (5 * 2**50, "5120 TiB"),
    ],
)
def test_binary_units(size, text):
    assert binary(size) == text


@pytest.mark.parametrize("wrong", ["seconds", "fps", "height", "width", "bits"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_what_is_not_positive_is_refused(wrong, value):
    given = {"seconds": 1.0, "fps": 5.0, "height": 4, "width": 4, "bits": 24, wrong: value}
    with pytest.raises(UserError, match=f"{wrong}="):
        budget(**given)


def test_no_whole_frame():
    with pytest.raises(UserError, match="no whole frame"):
        budget(0.01, 5, 4, 4)
