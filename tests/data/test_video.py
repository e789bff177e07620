"""Exact frames of every kind of file, and a reason for every file that cannot be used."""

import pickle
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
from compare import assert_close
from video_files import number_of, numbered, turn_mp4, write_sound, write_video

from tinyvid.data import VideoError, probe, read_frames, verb_video
from tinyvid.data.video import _Decoder, _Picture, _read_from_keys, iter_frames, scaled_size
from tinyvid.errors import UserError

CODECS = {
    "h264.mp4": {"codec": "libx264"},
    "h264_open_gop.mp4": {
        "codec": "libx264",
        "options": {"x264-params": "open-gop=1:bframes=4:scenecut=0:b-pyramid=normal"},
    },
    "h264.mkv": {"codec": "libx264", "b_frames": 3},
    "h264.ts": {"codec": "libx264"},
    "raw_without_times.h264": {"codec": "libx264"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:pools=1:frame-threads=1"},
    },
}


@pytest.fixture(params=CODECS, scope="module")
def encoded(request, tmp_path_factory):
    settings = CODECS[request.param]
    if settings["codec"] not in av.codecs_available:
        pytest.skip(f"this PyAV has no {settings['codec']}")
    path = tmp_path_factory.mktemp("codecs") / request.param
    return write_video(path, numbered(40), **settings)


def test_import_leaves_pyav_alone():
    code = "import sys, tinyvid.data; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_frame_is_decoded_in_presentation_order(encoded):
    frames = read_frames(encoded)
    assert (frames.dtype, frames.shape) == (np.uint8, (40, 48, 64, 3))
    assert [number_of(f) for f in frames] == list(range(40))


def test_an_index_gives_exactly_that_frame(encoded):
    frames, info = read_frames(encoded), probe(encoded)
    for index in (0, 1, 7, 11, 12, 13, 25, 38, 39):
        assert_close(read_frames(encoded, [index])[0], frames[index])
        assert_close(read_frames(encoded, [index], info=info)[0], frames[index])
    many = np.array([39, 3, 3, 24, 0, 25])
    assert_close(read_frames(encoded, many), frames[many])
    assert_close(read_frames(encoded, many, info=info), frames[many])


def test_probe(encoded):
    info = probe(encoded)
    assert (info.frames, info.height, info.width, info.rotation) == (40, 48, 64, 0)
    assert info.codec == {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9"}.get(
        CODECS[encoded.name]["codec"], "mpeg4"
    )
    assert info.seconds == pytest.approx(1.6)
    assert info.fps == pytest.approx(25)
    assert_close(info.times, np.arange(40) / 25, atol=1e-9)


def test_key_frames_are_used_where_they_can_be(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(40))
    info = probe(path)
    assert len(info.keys) >= 3
    late = np.array([info.keys[-2], info.keys[-1] + 1])
    assert list(_read_from_keys(path, late, None, info)) == late.tolist()


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "mpeg4")])
def test_what_no_frame_refers_to_is_not_decoded(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered(40), codec=codec, gop=40)
    frames, info = read_frames(path), probe(path)
    assert info.keys[0] == 0
    with _Decoder(path) as decoder:
        decoder.only = {info.pts[38]}
        seen = {frame.pts: frame for frame in decoder.frames()}
        assert len(seen) < 30
        last = _Picture(None)(seen[info.pts[38]])
    assert_close(last, frames[38])


def test_seeks_that_miss_fall_back_on_decoding_from_the_start(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(40))
    info = probe(path)
    wrong = type(info)(**{**vars(info), "pts": tuple(p + 1 for p in info.pts)})
    assert number_of(read_frames(path, [30], info=wrong)[0]) == 30


def test_open_gop_pictures_after_a_seek_are_whole(tmp_path):
    pictures = verb_video(0, 3, "move_left", frames=60)
    options = {"x264-params": "open-gop=1:bframes=4:scenecut=0"}
    path = write_video(tmp_path / "a.mp4", pictures, gop=20, options=options)
    frames, info = read_frames(path), probe(path)
    assert info.keys == (0, 20, 40)
    for index in range(60):
        assert_close(read_frames(path, [index], info=info)[0], frames[index])


def test_colours_survive(tmp_path):
    pictures = np.zeros((3, 48, 64, 3), np.uint8)
    pictures[:] = (200, 60, 20)
    path = write_video(tmp_path / "a.mp4", pictures, options={"crf": "5"})
    assert_close(read_frames(path).astype(float), pictures.astype(float), atol=6)


def test_variable_frame_rate(tmp_path):
    times = np.cumsum([0.0, *np.tile([0.02, 0.04, 0.1], 6)])
    path = write_video(tmp_path / "a.mp4", numbered(len(times)), times=times + 0.3)
    info = probe(path)
    assert_close(info.times, times, atol=1e-3)
    assert info.seconds == pytest.approx(times[-1] + 0.02, abs=0.1)
    assert [number_of(f) for f in read_frames(path)] == list(range(len(times)))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_is_applied(tmp_path, turns):
    pictures = np.zeros((3, 48, 64, 3), np.uint8)
    pictures[:, :16, :16] = 255  # the top left corner is white
    path = turn_mp4(write_video(tmp_path / "a.mp4", pictures), turns)
    frames, info = read_frames(path), probe(path)
    assert info.rotation == -90 * turns % 360
    assert (info.height, info.width) == frames.shape[1:3] == ((64, 48) if turns % 2 else (48, 64))
    clockwise = [(0, 0), (0, -1), (-1, -1), (-1, 0)]  # where that corner goes
    corners = [int(frames[0, y, x, 0]) for y, x in clockwise]
    assert [c > 128 for c in corners] == [i == turns for i in range(4)]
    small = read_frames(path, short_side=24)
    assert small.shape[1:3] == ((32, 24) if turns % 2 else (24, 32))


@pytest.mark.parametrize(("pix_fmt", "codec"), [("yuv420p", "mpeg4"), ("yuv444p", "libx264")])
def test_odd_sizes(tmp_path, pix_fmt, codec):
    path = write_video(tmp_path / "a.mkv", numbered(3, 51, 67), codec=codec, pix_fmt=pix_fmt)
    assert (probe(path).height, probe(path).width) == (51, 67)
    assert [number_of(f) for f in read_frames(path)] == [0, 1, 2]
    assert read_frames(path, short_side=17).shape == (3, 17, 22, 3)


def test_a_stream_need_not_begin_with_a_key_frame(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(40), gop=10, skip_packets=3)
    frames = read_frames(path)
    first = number_of(frames[0])
    assert 0 < first <= 10
    assert [number_of(f) for f in frames] == list(range(first, 40))
    info = probe(path)
    assert info.frames == 40 - first
    assert number_of(read_frames(path, [20], info=info)[0]) == first + 20


def test_the_containers_count_is_not_believed(tmp_path):
    path = write_video(tmp_path / "a.avi", numbered(20), codec="mpeg4")
    data = bytearray(path.read_bytes())
    for at in (data.index(b"avih") + 24, data.index(b"strh") + 40):
        assert struct.unpack_from("<I", data, at) == (20,)
        struct.pack_into("<I", data, at, 77)
    path.write_bytes(data)
    assert probe(path).frames == 20
    with pytest.raises(VideoError, match=r"a\.avi: no frame 20"):
        read_frames(path, [20])


def test_short_side_averages(tmp_path):
    pictures = np.zeros((2, 64, 96, 3), np.uint8)
    pictures[:, ::2] = 255  # lines of one pixel: a filter that skips pixels would keep them
    path = write_video(tmp_path / "a.mp4", pictures, options={"crf": "1"})
    small = read_frames(path, short_side=16)
    assert small.shape == (2, 16, 24, 3)
    assert np.abs(small.astype(int) - 128).max() < 12


@pytest.mark.parametrize(
    ("size", "side", "want"), [((240, 320), 112, (112, 149)), ((320, 240), 112, (149, 112))]
)
def test_scaled_size(size, side, want):
    assert scaled_size(*size, side) == want


def test_frames_that_do_not_exist(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(5))
    for info in (None, probe(path)):
        with pytest.raises(VideoError, match=r"a\.mp4: no frame 5: it has"):
            read_frames(path, [0, 5], info=info)
        with pytest.raises(VideoError, match=r"a\.mp4: no frame -1"):
            read_frames(path, [-1], info=info)
    with pytest.raises(UserError, match="at least one"):
        read_frames(path, [])


def _empty(path):
    path.write_bytes(b"")


def _text(path):
    path.write_text("not a video " * 100)


def _no_frames(path):
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()


def _cut(path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    write_video(path, noise, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def _cut_before_its_index(path):
    write_video(path, numbered(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_empty, "unreadable"),
        (_text, "unreadable"),
        (_no_frames, "not one frame can be decoded"),
        (_cut, r"damaged or cut short: .* after \d+ frames"),
        (_cut_before_its_index, "unreadable"),
        (write_sound, "has sound only"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "no such file"),
    ],
)
def test_unusable_files_say_why(tmp_path, make, reason):
    path = tmp_path / "bad.mp4"
    make(path)
    for use in (probe, read_frames, lambda p: list(iter_frames(p))):
        with pytest.raises(VideoError, match=rf"bad\.mp4: ({reason})") as caught:
            use(path)
        assert isinstance(caught.value, UserError)
        assert caught.value.path == str(path)


def test_damage_in_the_middle_is_noticed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.avi", noise, codec="mpeg4", b_frames=0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(VideoError, match=r"a packet is incomplete after \d+ frames"):
        probe(path)


def test_the_error_can_be_sent_to_another_process():
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "no such file")))
    assert (str(error), error.reason) == ("a.mp4: no such file", "no such file")


def test_real_files(shared_data):
    info = probe(shared_data / "videos" / "bikes.mp4")
    assert (info.frames, info.height, info.width, info.codec) == (250, 272, 640, "h264")
    frames = read_frames(shared_data / "videos" / "bikes.mp4", short_side=34)
    late = np.array([249, 130, 131])
    jumped = read_frames(shared_data / "videos" / "bikes.mp4", late, short_side=34, info=info)
    assert_close(jumped, frames[late])
