"""Videos seen as their flow: what is kept, what it means, and what training makes of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close
from typer.testing import CliRunner

from tinyvid import models
from tinyvid.cli import app
from tinyvid.config import load_config
from tinyvid.data import Augment, ClipLoader, ClipSpec, normalise, open_data
from tinyvid.data.transforms import flip, resize, scale_flow
from tinyvid.data.video import VideoError, write_video
from tinyvid.errors import UserError
from tinyvid.evaluate import Scores
from tinyvid.flow.files import from_bytes, to_bytes
from tinyvid.flow.sets import FlowSet
from tinyvid.inputs import as_input, normalisation, numbers
from tinyvid.predict import predict
from tinyvid.train import fit

SIZE, FRAMES = (40, 56), 8


def moving(dx, dy, frames=FRAMES, seed=0):
    """A textured disc that moves over a textured ground, uint8 (T, H, W, 3)."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = rng.uniform(0.2, 0.7, (2, 4, 2))

    def texture(of, shift_x, shift_y):
        parts = [np.sin(a * (x - shift_x) + b * (y - shift_y)) for a, b in waves[of]]
        return 128 + 30 * np.sum(parts, axis=0)

    pictures = []
    for t in range(frames):
        inside = (x - 28 - dx * (t - 4)) ** 2 + (y - 20 - dy * (t - 4)) ** 2 < 100
        picture = np.where(inside, texture(0, dx * t, dy * t), texture(1, 0, 0))
        pictures.append(np.repeat(np.clip(picture, 0, 255)[..., None], 3, axis=-1))
    return np.array(pictures).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two classes, right and left, of two groups."""
    for label, dx in (("left", -1.5), ("right", 1.5)):
        for group in ("a", "b"):
            place = tmp_path / "videos" / label / group
            place.mkdir(parents=True)
            for i in range(2):
                write_video(place / f"{i}.mp4", moving(dx, 0.2 * i, seed=i), 10)
    return tmp_path / "videos"


@pytest.fixture
def flows(folder, tmp_path):
    return FlowSet(open_data(folder), tmp_path / "flow")


def test_flow_is_that_of_the_video_less_its_mean(flows):
    video = flows.videos[-1]
    assert video.name.startswith("right/")
    info = flows.probe(video)
    assert info.frames == FRAMES - 1
    assert info.times.tolist() == pytest.approx([i / 10 for i in range(FRAMES - 1)])
    found = flows.read(video, None, 40)
    assert (found.dtype, found.shape) == (np.uint8, (FRAMES - 1, *SIZE, 2))
    pixels = from_bytes(found, 4.0)  # a tenth of 40
    assert np.abs(pixels.mean(axis=(1, 2))).max() < 4 / 127
    disc, ground = pixels[3, 15:25, 24:32, 0].mean(), pixels[3, :, :6, 0].mean()
    assert disc - ground == pytest.approx(1.5, abs=0.3)
    chosen = np.array([5, 0, 0])
    assert_close(flows.read(video, chosen, 40), found[chosen])
    assert flows.subset([7]).read(video, None, 40).shape == found.shape


def test_bytes_are_wrong_by_half_a_step_and_cut_at_the_bound():
    flow = np.linspace(-3, 3, 601)
    back = from_bytes(to_bytes(flow, 2.0), 2.0)
    inside = np.abs(flow) <= 2
    assert np.abs(back - flow)[inside].max() <= 2 / 254 + 1e-6
    assert_close(back[~inside], np.where(flow > 0, 2.0, -2.0)[~inside].astype(np.float32))
    assert to_bytes(np.zeros(1), 2.0) == 128


def test_flow_of_the_mirror_image_is_the_mirror_image_of_the_flow(tmp_path):
    for name, pictures in (("a", moving(1.5, 0.7)), ("b", moving(1.5, 0.7)[:, :, ::-1])):
        (tmp_path / name / name).mkdir(parents=True)
        write_video(tmp_path / name / name / "0.mp4", np.ascontiguousarray(pictures), 10, "ffv1")
    one, other = (FlowSet(open_data(tmp_path / n), tmp_path / "flow") for n in "ab")
    flow, mirrored = (s.read(s.videos[0], None, 40) for s in (one, other))
    assert np.abs(flip(flow).astype(int) - mirrored).mean() < 1.5  # of 254 steps
    assert np.abs(flow[:, :, ::-1].astype(int) - mirrored).mean() > 6  # dx not negated
    assert_close(flip(flip(flow)), flow)


def test_a_scaled_picture_moves_as_far_as_it_is_scaled():
    flow = np.full((2, 10, 20, 2), 128, np.uint8)
    flow[..., 0], flow[..., 1] = 128 + 20, 128 - 30
    scaled = resize(flow, (20, 10))
    assert scaled.shape == (2, 20, 10, 2)
    assert (scaled[..., 0] == 128 + 10).all()
    assert (scaled[..., 1] == 128 - 60).all()
    assert (scale_flow(flow, (10, 10)) == [255, 1]).all()  # cut at the bound


def test_colours_of_an_augmentation_leave_flow_alone():
    flow = np.random.default_rng(0).integers(1, 256, (3, 12, 12, 2)).astype(np.uint8)
    plain = Augment()(flow, (8, 8), np.random.default_rng(1))
    bright = Augment(brightness=0.9, contrast=0.9, hue=0.5)(flow, (8, 8), np.random.default_rng(1))
    assert_close(bright, plain)


def test_what_is_kept_is_not_found_again(flows, monkeypatch):
    calls = []
    found = FlowSet._found
    monkeypatch.setattr(FlowSet, "_found", lambda *args: calls.append(1) or found(*args))
    assert flows.fill(24) == (0, [])
    assert len(calls) == 8
    told = []
    assert flows.fill(24, lambda *now: told.append(now)) == (8, [])
    assert (len(calls), told[-1]) == (8, (8, 8))
    flows.read(flows.videos[0], None, 24)
    assert len(calls) == 8
    flows.read(flows.videos[0], None, 32)  # at another scale it is another
    FlowSet(flows._frames, flows._cache.folder, bound=1.0).read(flows.videos[0], None, 24)
    assert len(calls) == 10


FILL = """
import sys
from tinyvid.data import open_data
from tinyvid.flow import sets
found = sets.FlowSet._found
def slowly(*args):
    for part in found(*args):
        print("found", flush=True)
        yield part
        {after}
sets.FlowSet._found = slowly
sets.FlowSet(open_data(sys.argv[1]), sys.argv[2]).fill(24)
"""


def start(folder, cache, after="pass"):
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", FILL.format(after=after), str(folder), str(cache)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def test_a_kill_loses_one_video_and_leaves_no_half(folder, tmp_path):
    process = start(folder, tmp_path / "flow", "import time; time.sleep(0.3)")
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    flows = FlowSet(open_data(folder), tmp_path / "flow")
    there, failed = flows.fill(24)
    assert there in (2, 3)
    assert not failed
    fresh = FlowSet(open_data(folder), tmp_path / "other")
    for video in flows.videos:
        assert_close(flows.read(video, None, 24), fresh.read(video, None, 24))


def test_two_processes_find_each_flow_once(folder, tmp_path):
    both = [start(folder, tmp_path / "flow", "import time; time.sleep(0.05)") for _ in range(2)]
    found = sum(process.communicate(timeout=120)[0].count("found") for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert found == 8
    assert FlowSet(open_data(folder), tmp_path / "flow").fill(24)[0] == 8


def test_generated_videos_keep_theirs_in_memory(tmp_path, monkeypatch):
    verbs = open_data("verbs", per_class=1, size=24, frames=6)
    flows = FlowSet(verbs, tmp_path)
    first = flows.read(verbs.videos[0], None, 24)
    assert first.shape == (5, 24, 24, 2)
    monkeypatch.setattr(type(verbs), "read", None)
    assert_close(flows.subset([0]).read(verbs.videos[0], None, 24), first)


def config_for(folder, *overrides, model="temporal_stream"):
    small = ["clip.frames=4", "clip.height=24", "clip.width=24", "model.options.width=4"]
    named = {"model.name": model, "data.path": str(folder), "run.epochs": 12}
    plain = ["augment.scale=none", "data.test_group=b", "data.val_fraction=0", "clip.stride=1"]
    return load_config(None, [*small, *plain, *overrides], named)


def test_numbers_are_displacements(folder, tmp_path):
    config = config_for(folder, f"data.cache={tmp_path / 'c'}", "clip.flow_unit=0.5")
    videos = as_input(config, open_data(folder))
    assert as_input(config, videos) is videos
    clips = np.zeros((1, 2, 4, 24, 24), np.uint8) + to_bytes(np.float64(0.75), 2.4)
    assert np.abs(numbers(config, clips) - 0.75 / 0.5).max() < 2.4 / 254 / 0.5
    mean, std = normalisation(config)
    assert_close(numbers(config, clips), normalise(clips, mean, std))
    loader = ClipLoader(videos, ClipSpec(4, size=(24, 24)), batch_size=8, train=False)
    assert next(loader.epoch()).clips.shape == (8, 2, 4, 24, 24)


def test_a_temporal_stream_learns_where_things_move(folder, tmp_path):
    config = config_for(folder, f"data.cache={tmp_path / 'cache'}", "run.train_clips=4")
    result = fit(config, tmp_path / "run")
    assert result.run.config.clip.input == "flow"
    assert result.rows[-1].train_loss < 0.6 < result.rows[0].train_loss
    told = CliRunner().invoke(app, ["test", str(tmp_path / "run"), "--clips", "2"])
    assert told.exit_code == 0, told.output
    scores = Scores.load(tmp_path / "run" / "test" / "scores.npz")
    assert (scores.logits.argmax(1) == scores.labels).all()
    (said,) = predict(tmp_path / "run", [folder / "left" / "b" / "1.mp4"])
    assert said.top(1)[0][0] == "left"
    assert said.times[-1][1] <= FRAMES / 10


def test_other_networks_take_flow_if_they_are_told_to(folder, tmp_path):
    config = config_for(
        folder, f"data.cache={tmp_path / 'c'}", "clip.input=flow", "run.epochs=1",
        model="single_frame",
    )  # fmt: skip
    assert fit(config, tmp_path / "run").model.frames.conv1.weight.shape[1] == 2


def test_the_command(folder, tmp_path):
    cli, cache = CliRunner(), str(tmp_path / "flow")
    options = ["flow", "--data", str(folder), "--short-side", "24", "--cache", cache]
    told = cli.invoke(app, options)
    assert told.exit_code == 0, told.output
    assert "the flow of 8 videos, 0 of them from before" in told.output
    (folder / "left" / "a" / "broken.mp4").write_bytes(b"no video")
    write_video(folder / "left" / "a" / "one.mp4", moving(0, 0)[:1], 10)
    told = cli.invoke(app, options)
    assert told.exit_code == 0
    assert "the flow of 8 videos, 8 of them from before, 2 have none" in told.output
    assert "one frame only" in told.output
    assert cli.invoke(app, [*options, "--strict"]).exit_code == 2
    for wrong in (["flow"], [*options, "--method", "horn_schunck"], ["flow", "--data", "verbs"]):
        assert cli.invoke(app, wrong).exit_code == 2


def test_errors(folder, tmp_path):
    with pytest.raises(UserError, match="bound=0"):
        FlowSet(open_data(folder), tmp_path, bound=0)
    with pytest.raises(UserError, match="temporal_stream takes optical flow"):
        fit(config_for(folder, "clip.input=rgb"), tmp_path / "run")
    with pytest.raises(UserError, match=r"augment\.rotate = 5"):
        fit(config_for(folder, "augment.rotate=5", f"data.cache={tmp_path}"), tmp_path / "run")
    place = tmp_path / "still" / "a"
    place.mkdir(parents=True)
    write_video(place / "0.mp4", moving(0, 0)[:1], 10)
    one = FlowSet(open_data(tmp_path / "still"), tmp_path / "flow")
    with pytest.raises(VideoError, match="one frame only"):
        one.probe(one.videos[0])
    assert models.entry("temporal_stream").clip == (2, 10, 64, 64)
