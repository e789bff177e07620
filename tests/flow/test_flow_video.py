"""`tinyvid flow`: every pair of a video, in every kind of file, or nothing at all."""

import shutil

import cupy_stand_in
import numpy as np
import pytest
from compare import assert_close
from typer.testing import CliRunner

from tinyvid.cli import app
from tinyvid.data import VideoError, probe, read_frames
from tinyvid.data.video import write_video
from tinyvid.flow import flows_of, grey, read_flo, read_npz
from tinyvid.flow import video as module
from tinyvid.kernels.flow import horn_schunck_flow, tvl1_flow


def moving(count, height=34, width=46, step=2):
    """Pictures of a texture that moves to the right by `step` pixels a frame."""
    rng = np.random.default_rng(0)
    texture = rng.uniform(0, 255, (height + 8, width + step * count + 8, 3))
    for _ in range(3):
        texture = (texture[1:, 1:] + texture[:-1, 1:] + texture[1:, :-1] + texture[:-1, :-1]) / 4
    starts = [step * (count - i) for i in range(count)]
    return np.stack([texture[:height, s : s + width] for s in starts]).astype(np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "video.mp4"
    write_video(path, moving(12), fps=10)
    return path


def run(*args):
    return CliRunner().invoke(app, ["flow", *map(str, args)])


def test_grey():
    assert_close(grey(np.array([[255, 0, 0], [255] * 3], np.uint8)),
                 np.array([76.245, 255], np.float32), atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("pairs", [1, 4, 11, 50])
def test_each_pair_once_whatever_is_worked_on_together(path, monkeypatch, pairs):
    monkeypatch.setattr(module, "PAIRS", pairs)
    frames = grey(read_frames(path))
    want = horn_schunck_flow(frames[:-1], frames[1:])
    info, flows = flows_of(path, method=horn_schunck_flow)
    assert info.frames == 12
    assert_close(np.stack(list(flows)), want)


def test_the_motion_is_found(path):
    _, flows = flows_of(path)
    found = np.stack(list(flows))
    assert found.shape == (11, 2, 34, 46)
    assert found.dtype == np.float32
    middle = found[:, :, 8:-8, 8:-8].mean(axis=(0, 2, 3))
    assert_close(middle, np.array([2, 0], np.float32), atol=0.15)
    _, small = flows_of(path, short_side=17)
    assert next(small).shape == (2, 17, 23)


def test_files(path, tmp_path):
    outs = tmp_path / "a.npz", tmp_path / "a.mp4", tmp_path / "flows"
    result = run(path, *outs)
    assert result.exit_code == 0, result.output
    assert "11 flows of 46 by 34 pixels" in result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "a.npz", "flows"]
    flows = read_npz(outs[0])
    frames = grey(read_frames(path))
    assert_close(flows, tvl1_flow(frames[:-1], frames[1:]))
    assert_close(read_flo(outs[2] / "000010.flo"), flows[10])
    info = probe(outs[1])
    assert (info.frames, info.height, info.width) == (11, 34, 46)
    assert info.fps == pytest.approx(10)
    red, green, _ = read_frames(outs[1])[5, 8:-8, 8:-8].mean(axis=(0, 1))
    assert red > green + 30  # to the right


def test_odd_sizes_bounds_and_the_other_method(path, tmp_path):
    outs = tmp_path / "a.npz", tmp_path / "a.mp4"
    result = run(path, *outs, "--short-side", 17, "--bound", 4, "--method", "horn_schunck")
    assert result.exit_code == 0, result.output
    assert probe(outs[1]).height == 16
    _, flows = flows_of(path, 17, horn_schunck_flow)
    found = np.stack(list(flows)).clip(-4, 4)
    assert_close(read_npz(outs[0]), found, atol=4 / 254 + 1e-6)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("device", ["emulator", "cuda"])
@pytest.mark.parametrize("method", ["tvl1", "horn_schunck"])
def test_one_flag_sends_it_to_a_device(tmp_path, cupy, device, method):
    video = tmp_path / "short.mp4"
    write_video(video, moving(3)[:, :20, :24], fps=10)
    out = tmp_path / "a.npz"
    result = run(video, out, "--method", method, "--device", device)
    assert result.exit_code == 0, result.output
    assert (sum(cupy_stand_in.reads) > 2 * 2 * 20 * 24 * 4) == (device == "cuda")
    chosen = {"tvl1": tvl1_flow, "horn_schunck": horn_schunck_flow}[method]
    _, flows = flows_of(video, method=chosen)
    assert_close(read_npz(out), np.stack(list(flows)), atol=5e-3)


def test_bad_usage(path, tmp_path):
    (tmp_path / "there.npz").touch()
    single = tmp_path / "single.mp4"
    write_video(single, moving(1), fps=10)
    for args, message in (
        ((path, tmp_path / "there.npz"), "is there already"),
        ((path, tmp_path / "a.txt"), "end it in .npz"),
        ((path, tmp_path / "a.npz", "--method", "farneback"), "one of tvl1, horn_schunck"),
        ((path, tmp_path / "a.npz", "--weight", "-1"), "weight=-1"),
        ((path, tmp_path / "a.npz", "--device", "gpu"), "Did you mean 'cuda'?"),
        ((path, tmp_path / "a.npz", "--bound", "0"), "bound=0"),
        ((path, tmp_path / "a.mp4", "--full", "0"), "--full 0"),
        ((path, tmp_path / "none" / "a.npz"), "cannot be written"),
        ((tmp_path / "none.mp4", tmp_path / "a.npz"), "no such file"),
        ((single, tmp_path / "a.npz"), "has one frame only"),
    ):
        result = run(*args)
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.output.split())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["single.mp4", "there.npz"]
    with pytest.raises(VideoError, match="one frame only"):
        flows_of(single)


def test_a_stopped_run_leaves_nothing(path, tmp_path, monkeypatch):
    calls = []

    def stop(first, second, settings=None, device="cpu"):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return horn_schunck_flow(first, second, iterations=1)

    monkeypatch.setattr("tinyvid.kernels.flow.tvl1_flow", stop)
    result = run(path, tmp_path / "a.npz", tmp_path / "a.mp4", tmp_path / "flows")
    assert result.exit_code == 130
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_help():
    shown = CliRunner().invoke(app, ["flow", "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for text in ("tinyvid flow video.mp4 flow.npz flow.mp4", "--short-side", "[OUT]..."):
        assert text in shown
