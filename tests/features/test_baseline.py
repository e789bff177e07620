"""The baselines on small videos: the splits of the networks, and results that can be fused."""

import json
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close
from test_cli import run

from tinyvid.config import load_config
from tinyvid.crossval import config_of_fold
from tinyvid.data import open_data
from tinyvid.data.video import write_video
from tinyvid.errors import UserError
from tinyvid.evaluate import Scores
from tinyvid.features import BASELINES, cross_validate_baseline, fit_baseline
from tinyvid.features.baseline import Features
from tinyvid.features.histograms import HistogramNetwork, pyramid_histograms
from tinyvid.folds import finished_folds
from tinyvid.fusion_sources import fuse_sources
from tinyvid.metrics import measure
from tinyvid.parts import split_parts


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three people, each moving a textured square to the right and downwards."""
    root = tmp_path_factory.mktemp("data") / "moves"
    rng = np.random.default_rng(0)
    for label, (dy, dx) in (("down", (3, 0)), ("right", (0, 3))):
        for person in ("ann", "ben", "cy"):
            (root / label / person).mkdir(parents=True)
            square = rng.integers(60, 255, size=(6, 6, 1)).repeat(4, 0).repeat(4, 1)
            pictures = np.full((10, 64, 64, 3), 40, np.uint8)
            y, x = rng.integers(0, 12, size=2)
            for i, picture in enumerate(pictures):
                top, left = y + dy * i, x + dx * i
                picture[top : top + 24, left : left + 24] = square
            write_video(root / label / person / "0.mp4", pictures, fps=8)
    return root


@pytest.fixture(autouse=True)
def _unplotted(monkeypatch):
    """Pictures of confusion matrices take most of the time, and are tested where they are drawn."""
    for module in ("folds", "evaluate"):
        monkeypatch.setattr(f"tinyvid.{module}.plot_confusion", lambda *args: None)


def config(data: Path, *more: str):
    return load_config(overrides=[f"data.path={data}", "data.val_fraction=0", *more])


def test_features_of_a_pyramid_by_hand():
    clip = np.zeros((3, 2, 2, 17))
    clip[..., 0] = 1
    clip[0, 0, 0, 8:10] = [3, 9]
    x = pyramid_histograms(clip, [(1, 1, 1), (3, 2, 2)])
    assert x.shape == (13 * 17,)
    assert_close(x[:8], np.eye(8)[0])
    assert_close(x[8:17], np.r_[0.5, np.sqrt(0.75), np.zeros(7)], rtol=1e-12)
    assert_close(x[17:25], np.eye(8)[0])  # the first of 12 parts
    flow = x[17 + 12 * 8 :].reshape(3, 2, 2, 9)
    assert_close(flow[0, 0, 0, :2], np.sqrt([0.25, 0.75]), rtol=1e-12)
    assert flow.sum() == flow[0, 0, 0].sum()  # where nothing is counted there are zeros
    assert pyramid_histograms(clip[:1]).shape == x.shape  # shorter than the pyramid's parts


def test_the_network_is_equal_to_the_bit():
    clips = list(np.random.default_rng(0).uniform(size=(12, 4, 4, 4, 17)))
    labels = np.arange(12) % 3
    found = []
    for seed in (0, 0, 1):
        network = HistogramNetwork()
        network.fit(clips, labels, 3, seed)
        found.append(network.scores(clips))
    assert found[0].dtype == np.float32
    assert_close(found[1], found[0])
    assert np.abs(found[2] - found[0]).max() > 1e-3


@pytest.mark.parametrize("name", BASELINES)
def test_a_cross_validation(data, tmp_path, name):
    pytest.importorskip("sklearn")
    told = []
    options = {"clips": 2, "cache": data.parent / "cells"}
    out = tmp_path / "out"

    def again():
        told.clear()
        return cross_validate_baseline(
            name, config(data), out, on_fold=lambda *fold: told.append(fold[3]), **options
        )

    result = again()
    assert told == [False] * 3
    assert result.folds == ["ann", "ben", "cy"]
    assert result.mean() == 1.0
    files = finished_folds(out)[0]
    for fold, file in files.items():
        parts = split_parts(open_data(data), config_of_fold(config(data), 0, fold, "group"))
        assert Scores.load(file).names == [v.name for v in parts["test"].videos]
    pooled = Scores.load(out / "seed0" / "scores.npz")
    assert pooled.logits.shape == (12, 2)
    assert (pooled.clips, pooled.crops) == (2, 1)

    first = Scores.load(files["ben"])
    files["ben"].unlink()
    again()
    assert told == [True, False, True]
    assert_close(Scores.load(files["ben"]).logits, first.logits)
    with pytest.raises(UserError, match=r"holds results with features .* choose another --out"):
        cross_validate_baseline(name, config(data), out, clips=3)


def test_results_can_be_fused(data, tmp_path):
    pytest.importorskip("sklearn")
    outs = [tmp_path / name for name in BASELINES]
    for name, out in zip(BASELINES, outs, strict=True):
        cross_validate_baseline(
            name, config(data), out, by="2", clips=2, cache=data.parent / "cells"
        )
    found = fuse_sources(outs, tmp_path / "fused")
    assert found.by_clip
    assert found.crossval.mean() == 1.0


def test_clips_are_those_of_networks(data):
    from tinyvid.data import ClipSpec
    from tinyvid.data.clips import uniform_clips

    features = Features(config(data, "clip.frames=6"), 3, data.parent / "cells")
    videos = open_data(data)
    found = features.of(videos)
    spec = ClipSpec(6, fps=8.0, size=(32, 32))
    for video in videos.videos:
        want = [clip.start for clip in uniform_clips(spec, videos.probe(video), 3)]
        assert [start for start, _ in found[video.name]] == want
        assert {cells.shape for _, cells in found[video.name]} == {(5, 8, 8, 17)}


def test_a_single_split_and_the_synthetic_verbs(data, tmp_path):
    cache = data.parent / "cells"
    held = config(data, 'data.test_group=["cy"]')
    held.data.val_fraction = 0.5
    metrics = fit_baseline("histograms", held, tmp_path / "held", clips=2, cache=cache)
    scores = Scores.load(tmp_path / "held" / "test" / "scores.npz")
    assert {name.split("/")[1] for name in scores.names} == {"cy"}
    val = Scores.load(tmp_path / "held" / "test-val" / "scores.npz")
    assert {name.split("/")[1] for name in val.names} in ({"ann"}, {"ben"})
    assert metrics.video_hit_1 == measure(scores.logits, scores.labels, scores.videos).video_hit_1
    with pytest.raises(UserError, match="nothing is held out"):
        fit_baseline("histograms", config(data), tmp_path / "none", clips=2, cache=cache)
    validated = config(data, "data.val_fraction=0.34")
    assert fit_baseline("histograms", validated, tmp_path / "val", clips=2, cache=cache).videos == 2
    verbs = load_config(
        overrides=[
            "data.options.per_class=2",
            "data.options.frames=8",
            'data.options.classes=["move_left", "move_right"]',
            "data.options.size=32",
        ]
    )
    assert fit_baseline("histograms", verbs, tmp_path / "verbs", clips=1).videos == 4


def test_what_the_baselines_refuse(data, tmp_path):
    out = tmp_path / "out"
    for overrides, options, message in (
        (["clip.stride=2"], {}, "give clip.fps, no stride"),
        (["clip.frames=1"], {}, "at least 2 frames"),
        ([], {"clips": 0}, "clips=0"),
        ([], {"seeds": []}, "at least one seed"),
        (["data.fold=1/2"], {}, "unset them"),
    ):
        with pytest.raises(UserError, match=message):
            cross_validate_baseline("histograms", config(data, *overrides), out, **options)
    with pytest.raises(UserError, match=r"no baseline 'fischer'.*Did you mean 'fisher'"):
        cross_validate_baseline("fischer", config(data), out)
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        cross_validate_baseline("histograms", config(data), out)


def test_the_command(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["baseline", "histograms", "--data", data, "--clips", 2]
    (data / "stray.mp4").write_bytes(b"no video")
    result = run(*args, "--by", 3)
    (data / "stray.mp4").unlink()
    assert result.exit_code == 0, result.output
    assert "note: skipped 1 files that cannot be used" in result.stdout
    about = json.loads((tmp_path / "runs" / "histograms-moves-by3" / "baseline.json").read_text())
    assert about["data"]["val_fraction"] == 0  # as in a cross-validation of networks
    assert "in runs/histograms-moves-by3: crossval.csv" in result.stdout
    assert len(list((tmp_path / "runs" / "cells").glob("*.npz"))) == 6
    result = run(*args, "--by", 3)
    assert result.stdout.count("(finished before)") == 3
    result = run(*args, "--test-group", "ann", "--out", "one")
    assert result.exit_code == 0, result.output
    assert "in one: test/" in result.stdout
    assert json.loads((tmp_path / "one" / "test" / "metrics.json").read_text())["videos"] == 2
    for wrong, message in (
        ([*args, "--by", 3, "--fold", "1/3"], "--by 3 chooses what is tested"),
        (["baseline", "histograms"], "--data: name the videos"),
        ([*args, "--seeds", "0,0"], "--seeds 0,0: seeds must be different"),
    ):
        result = run(*wrong)
        assert (result.exit_code, message in result.output) == (2, True), result.output
