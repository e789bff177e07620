"""Features of frames that are frozen and kept, and the LSTM that reads them."""

import shutil

import numpy as np
import pytest
from compare import assert_close
from typer.testing import CliRunner

import tinyvid
from tinyvid import models, nn
from tinyvid.cli import app
from tinyvid.config import load_config
from tinyvid.crossval import cross_validate
from tinyvid.data import write_verbs
from tinyvid.data.clips import ClipSpec, whole_video
from tinyvid.data.video import VideoInfo
from tinyvid.errors import UserError
from tinyvid.evaluate import Scores, open_videos
from tinyvid.frame_features import FrameFeatures, frozen_layers
from tinyvid.lrcn import (
    FeatureLstm,
    LstmSettings,
    fit_lstm,
    load_lstm,
    lstm_on_features,
    padded,
    step_probabilities,
)
from tinyvid.predict import predict
from tinyvid.train import fit

TINY = ["clip.frames=4", "clip.height=24", "clip.width=24", "model.options.width=2"]
SETTINGS = LstmSettings(hidden=8, epochs=3, batch_size=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lrcn")
    write_verbs(folder / "videos", 3, frames=13, size=24, fps=10)
    for file in sorted((folder / "videos").glob("*/*.mp4")):
        group = file.parent / f"g{int(file.stem) // 8}"
        group.mkdir()
        file.rename(group / file.name)
    return folder


@pytest.fixture(scope="module")
def run(data):
    named = {"model.name": "single_frame", "data.path": str(data / "videos"), "run.epochs": 1}
    held = ["data.val_fraction=0.34", 'data.test_group=["g0"]', "clip.stride=2"]
    return fit(load_config(None, [*TINY, *held], named), data / "run").run


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        (ClipSpec(16), range(11)),
        (ClipSpec(4, stride=3), [0, 3, 6, 9]),
        (ClipSpec(4, fps=5.0), [0, 2, 4, 6, 8, 10]),
        (ClipSpec(4, stride=20), [0]),
    ],
)
def test_a_whole_video_goes_from_its_first_frame_to_its_last(spec, want):
    info = VideoInfo.__new__(VideoInfo)
    times = np.arange(11) / 10
    for name, value in {"frames": 11, "times": times, "seconds": 1.1}.items():
        object.__setattr__(info, name, value)
    clip = whole_video(spec, info)
    assert clip.indices.tolist() == list(want)
    assert clip.start == 0


@pytest.mark.parametrize("name", ["single_frame", "late_fusion", "cnn_lstm"])
def test_frozen_layers_are_all_but_the_classes_own(name):
    model = models.build(name, 3, clip=(3, 4, 32, 32)).eval()
    layers = frozen_layers(model, name)
    assert not [m for m in layers.modules() if isinstance(m, nn.Linear | nn.Dropout)]
    x = tinyvid.tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 32, 32), np.float32))
    if name == "single_frame":
        assert_close(model.frames.fc(layers(x)).numpy(), model.frames(x).numpy(), rtol=1e-5)
    else:
        assert_close(layers(x).numpy(), model.frames(x).numpy())


def test_a_network_without_frames_is_refused():
    with pytest.raises(UserError, match="slow_fusion has no layers that run on each frame alone"):
        frozen_layers(models.build("slow_fusion", 3), "slow_fusion")


def test_features_are_those_of_every_frame_and_are_kept(run, tmp_path, monkeypatch):
    videos = open_videos(run.config)
    video = videos.videos[0]
    times, features = FrameFeatures(run, tmp_path).of(videos, video)
    assert times.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    assert features.shape == (7, 8)
    alone, _ = run.model()
    frames = videos.read(video, np.array([4]), 24).transpose(3, 0, 1, 2)[None]
    x = tinyvid.tensor(tinyvid.data.normalise(frames, run.config.clip.mean, run.config.clip.std))
    assert_close(frozen_layers(alone, "").eval()(x).numpy()[0, 0], features[2], rtol=1e-4)
    monkeypatch.setattr(FrameFeatures, "_compute", None)  # what is kept is not computed again
    assert_close(FrameFeatures(run, tmp_path).of(videos, video)[1], features)
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(b"cut off")
    with pytest.raises(TypeError):
        FrameFeatures(run, tmp_path).of(videos, video)


def test_other_weights_have_other_features(run, tmp_path):
    videos = open_videos(run.config)
    FrameFeatures(run, tmp_path).of(videos, videos.videos[0])
    copy = shutil.copytree(run.path, tmp_path / "copy")
    weights = (copy / "best.safetensors").read_bytes()
    (copy / "best.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    FrameFeatures(type(run).open(copy), tmp_path).of(videos, videos.videos[0])
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_what_is_behind_the_end_of_a_sequence_changes_nothing():
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 5)).astype(np.float32) for n in (3, 7, 1)]
    model = FeatureLstm(np.zeros(5, np.float32), np.ones(5, np.float32), 4, 6, 0.5).eval()
    x, lengths = padded(sequences)
    assert lengths.tolist() == [3, 7, 1]
    together = model(tinyvid.tensor(x), lengths).numpy()
    x[0, 3:], x[2, 1:] = 1e3, -1e3
    assert_close(model(tinyvid.tensor(x), lengths).numpy()[0, :3], together[0, :3])
    for row, sequence in zip(together, sequences, strict=True):
        scores = row[: len(sequence)].astype(np.float64)
        want = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        assert_close(step_probabilities(model, sequence), want, rtol=1e-5)


def test_it_learns_what_only_the_order_tells():
    """Two classes of the same frames, forwards and backwards, of unequal lengths."""
    rng = np.random.default_rng(0)
    sequences, labels = [], np.tile([0, 1], 24)
    for label in labels:
        ramp = np.linspace(-1, 1, rng.integers(6, 15))[:: 1 - 2 * label, None]
        noise = 0.1 * rng.standard_normal((len(ramp), 3))
        sequences.append((ramp + noise).astype(np.float32))
    settings = LstmSettings(hidden=8, epochs=40, batch_size=8, lr=1e-2)
    model = fit_lstm(sequences[:32], labels[:32], 2, settings)
    said = [step_probabilities(model, s).mean(0).argmax() for s in sequences[32:]]
    assert said == labels[32:].tolist()
    again = fit_lstm(sequences[:32], labels[:32], 2, settings)
    for name, t in model.state_dict().items():
        assert np.array_equal(t.numpy(), again.state_dict()[name].numpy()), name


def test_cnn_lstm_takes_clips_of_unequal_lengths():
    model = models.build("cnn_lstm", 3, clip=(3, 6, 32, 32)).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 32, 32), np.float32)
    together = model(tinyvid.tensor(x), lengths=[2, 6]).numpy()
    assert_close(together[:1], model(tinyvid.tensor(x[:1, :, :2])).numpy(), rtol=1e-4, atol=1e-6)
    assert_close(together[1:], model(tinyvid.tensor(x[1:])).numpy(), rtol=1e-4, atol=1e-6)


def test_a_run_and_what_the_lstm_says_of_a_file(run, data, tmp_path):
    calls = []
    found = lstm_on_features(
        run.path,
        tmp_path / "lstm",
        SETTINGS,
        cache=tmp_path / "c",
        progress=lambda *c: calls.append(c),
    )
    assert found.videos == len(run.split["test"]) == 8
    assert calls[-1] == (24, 24)
    assert Scores.load(tmp_path / "lstm" / "test" / "scores.npz").names == run.split["test"]
    assert Scores.load(tmp_path / "lstm" / "test-val" / "scores.npz").names == run.split["val"]
    file = data / "videos" / run.split["test"][0]
    (said,) = predict(tmp_path / "lstm", [file])
    scores = Scores.load(tmp_path / "lstm" / "test" / "scores.npz")
    assert_close(np.log(said.probabilities), scores.logits[0].astype(np.float64), rtol=1e-4)
    assert said.steps[1].shape == (7, 8)
    assert said.times[-1][1] == pytest.approx(1.3)
    with pytest.raises(UserError, match="reads whole videos"):
        predict(tmp_path / "lstm", [file], clips=2)
    shutil.rmtree(tmp_path / "c")
    again = lstm_on_features(run.path, tmp_path / "lstm", SETTINGS)
    assert again.video_hit_1 == found.video_hit_1
    with pytest.raises(UserError, match="with hidden 8, not 9"):
        lstm_on_features(run.path, tmp_path / "lstm", LstmSettings(9, 3, batch_size=4))


def test_a_cross_validation_fold_by_fold(data, tmp_path):
    named = {"model.name": "single_frame", "data.path": str(data / "videos"), "run.epochs": 1}
    config = load_config(None, [*TINY, "data.val_fraction=0"], named)
    cross_validate(config, tmp_path / "cv", clips=1)
    found = lstm_on_features(tmp_path / "cv", tmp_path / "out", SETTINGS)
    assert found.folds == ["g0", "g1", "g2"]
    assert found.pooled[0].videos == 24
    _, run = load_lstm(tmp_path / "out" / "seed0-fold2-g1")
    assert run.path.name == "seed0-fold2-g1"


def test_the_commands(run, data, tmp_path):
    cli = CliRunner()
    out, picture = tmp_path / "lstm", tmp_path / "when.png"
    options = ["--hidden", "4", "--epochs", "1", "--cache", str(tmp_path / "c"), "--out", str(out)]
    told = cli.invoke(app, ["lstm", str(run.path), *options])
    assert told.exit_code == 0, told.output
    assert "Video Hit@1" in told.output
    file = str(data / "videos" / run.split["test"][0])
    for source in (out, run.path):
        told = cli.invoke(app, ["predict", str(source), file, "--plot", str(picture)])
        assert told.exit_code == 0, told.output
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()
    other = str(data / "videos" / run.split["test"][1])
    told = cli.invoke(app, ["predict", str(out), file, other, "--plot", str(picture)])
    assert told.exit_code == 2
    assert "name a folder" in told.output


def test_a_network_without_frames_leaves_no_folder(data, tmp_path):
    named = {"model.name": "early_fusion", "data.path": str(data / "videos"), "run.epochs": 1}
    other = fit(load_config(None, TINY, named), tmp_path / "run").run
    with pytest.raises(UserError, match="no layers that run on each frame alone"):
        lstm_on_features(other.path, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("held", ["0.34", "0"])
def test_without_test_videos_the_validation_part_is_tested_if_there_is_one(held, data, tmp_path):
    named = {"model.name": "single_frame", "data.path": str(data / "videos"), "run.epochs": 1}
    config = load_config(None, [*TINY, f"data.val_fraction={held}"], named)
    run, out = fit(config, tmp_path / "run").run, tmp_path / "out"
    if held == "0":
        with pytest.raises(UserError, match="has no videos in part 'test', it has train"):
            lstm_on_features(run.path, out, SETTINGS)
        assert not out.exists()
        return
    assert lstm_on_features(run.path, out, SETTINGS).videos == len(run.split["val"]) > 0
    assert Scores.load(out / "test" / "scores.npz").names == run.split["val"]
    assert not (out / "test-val").exists()  # or a fusion would learn from what it is tested on


def test_errors(run, tmp_path):
    with pytest.raises(UserError, match="hidden=0"):
        LstmSettings(hidden=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(UserError, match="holds something else"):
        lstm_on_features(run.path, tmp_path / "full", SETTINGS)
    with pytest.raises(UserError, match=r"lstm\.safetensors"):
        load_lstm(tmp_path)
