"""Testing and predicting, on a network whose answers are known."""

import csv
import gc
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import nn
from tinyvid.checkpoint import load_checkpoint, save_checkpoint
from tinyvid.config import load_config
from tinyvid.crossval import cross_validate, fold_names
from tinyvid.data import ClipLoader, normalise, open_data, write_verbs
from tinyvid.errors import UserError
from tinyvid.evaluate import (
    Scores,
    hit_5,
    open_videos,
    save_results,
    score,
    video_rows,
    videos_to_test,
)
from tinyvid.inputs import clip_spec
from tinyvid.metrics import measure
from tinyvid.predict import predict
from tinyvid.runs import Run, load_weights
from tinyvid.train import fit

TINY = [
    "data.options.per_class=3",
    "data.options.size=16",
    "data.options.frames=12",
    'data.options.classes=["grow", "move_left", "move_right"]',
    "data.workers=0",
    "data.val_fraction=0.34",
    "clip.frames=8",
    "clip.stride=1",
    "clip.height=16",
    "clip.width=16",
    "model.options.width=2",
    "run.batch_size=8",
    "run.epochs=1",
]


class MeanColour(nn.Module):
    """Logits are the means of the colours: what it says of a clip can be worked out."""

    def forward(self, x):
        return x.mean(dim=(2, 3, 4))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return fit(load_config(overrides=TINY), tmp_path_factory.mktemp("evaluate") / "run").run


def test_scores_are_those_of_each_clip():
    config = load_config(overrides=TINY)
    videos = open_videos(config)
    seen = []
    got = score(
        MeanColour(),
        videos,
        config,
        clips=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert got.logits.shape == (27, 3)
    assert got.names == [v.name for v in videos.videos]
    assert_close(got.videos, np.repeat(np.arange(9), 3))
    assert_close(got.labels, np.array([videos.videos[i].label for i in got.videos]))
    assert_close(got.starts.reshape(9, 3), np.tile([0.0, 0.2, 0.4], (9, 1)), atol=1e-12)
    for i in (0, 13, 26):
        video = videos.videos[got.videos[i]]
        first = round(got.starts[i] * 10)
        frames = videos.read(video, np.arange(first, first + 8)).astype(np.float64)
        want = (frames / 255).mean(axis=(0, 1, 2))
        want = (want - np.array(config.clip.mean)) / np.array(config.clip.std)
        assert_close(got.logits[i].astype(np.float64), want, atol=1e-4)
    assert seen[-1] == (27, 27)


def test_three_crops_are_three_clips():
    config = load_config(overrides=[*TINY, "clip.width=8", "clip.short_side=16"])
    videos = open_videos(config)
    got = score(MeanColour(), videos, config, clips=2, crops=3)
    assert got.logits.shape == (54, 3)
    with pytest.raises(UserError, match="crops must be 1 or"):
        score(MeanColour(), videos, config, crops=2)
    with pytest.raises(UserError, match="clips=0"):
        score(MeanColour(), videos, config, clips=0)


def test_the_network_is_tested_in_evaluation_mode(run):
    model, _ = run.model()
    model.train()
    videos = open_videos(run.config)
    one = score(model, videos, run.config, clips=1)
    assert not model.training
    two = score(model, videos, run.config, clips=1)
    assert_close(one.logits, two.logits)  # no dropout


def example_scores() -> Scores:
    """Video 0 (class a): right in the mean; video 1 (class b): taken for a; video 2 (b): right."""
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    return Scores(
        np.log(probabilities).astype(np.float32),
        np.array([0, 0, 1, 1]),
        np.array([0, 0, 1, 2]),
        np.array([0.0, 0.5, 0.0, 0.0]),
        ["x.mp4", "y.mp4", "ü.mp4"],
        ["a", "b"],
    )


def test_scores_are_saved_without_pickle(tmp_path):
    scores = example_scores()
    scores.save(tmp_path / "s.npz")
    got = Scores.load(tmp_path / "s.npz")
    for name in ("logits", "labels", "videos", "starts"):
        assert_close(getattr(got, name), getattr(scores, name))
    assert (got.names, got.classes) == (scores.names, scores.classes)
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        arrays = ["logits", "labels", "videos", "starts", "names", "classes"]
        assert sorted(file) == sorted([*arrays, "clips", "crops"])
        np.savez(tmp_path / "old.npz", **{name: file[name] for name in arrays})
    assert (got.clips, got.crops) == (None, None)
    old = Scores.load(tmp_path / "old.npz")  # of a version that did not keep them
    assert (old.clips, old.crops) == (None, None)
    replace(scores, clips=2, crops=3).save(tmp_path / "s.npz")
    again = Scores.load(tmp_path / "s.npz")
    assert (again.clips, again.crops) == (2, 3)


def test_hit_5_keeps_its_name():
    labels = np.arange(6)
    logits = -np.abs(np.arange(6.0) - labels[:, None]).astype(np.float32)
    logits[0] = [0, 1, 2, 3, 4, 5]  # the last of 6
    for classes, expected in ((6, 5 / 6), (5, 1.0), (4, None)):
        some = measure(logits[:classes, :classes], labels[:classes], labels[:classes])
        assert hit_5(some) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\3\4 cut off", None])
def test_damaged_scores_are_named(tmp_path, content):
    path = tmp_path / "s.npz"
    if content is None:
        np.savez(path, logits=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"s\.npz holds no scores, or is damaged"):
        Scores.load(path)
    gc.collect()  # a file left open is a ResourceWarning, and so an error
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        Scores.load(tmp_path / "none.npz")


def test_results_by_hand(tmp_path):
    metrics = save_results(example_scores(), "mean_prob", "t", tmp_path / "test")
    assert metrics.video_hit_1 == pytest.approx(2 / 3)
    assert metrics.clip_hit_1 == 0.5
    with open(tmp_path / "test" / "videos.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["video"] for r in rows] == ["x.mp4", "y.mp4", "ü.mp4"]
    assert [r["predicted"] for r in rows] == ["a", "a", "b"]
    assert [r["rank"] for r in rows] == ["1", "2", "1"]
    assert [r["probability"] for r in rows] == ["0.65", "0.7", "0.8"]
    assert [r["clips"] for r in rows] == ["2", "1", "1"]
    about = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert about["video_hit_1"] == pytest.approx(2 / 3)
    assert about["video_hit_5"] is None  # of two classes; the key is there all the same
    assert (about["clips_per_video"], about["crops"]) == (None, None)  # not made by `score`
    text = (tmp_path / "test" / "confusion.csv").read_text().splitlines()
    assert text == ["true class,a,b", "a,1,0", "b,1,1"]
    assert (tmp_path / "test" / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_another_fusion_from_the_same_scores():
    scores = example_scores()
    assert [r["predicted"] for r in video_rows(scores, "max")] == ["a", "a", "b"]
    assert video_rows(scores, "max")[0]["probability"] == 0.6  # 0.9 / (0.9 + 0.6)


def test_which_videos_are_tested(run, tmp_path):
    videos, name = videos_to_test(run)
    assert name == "the test split of verbs"  # other shapes and textures than in training
    assert len(videos) == 9
    assert all(v.name.startswith("verbs/test/") for v in videos.videos)
    val, name = videos_to_test(run, part="val")
    assert name == "part 'val' of verbs"
    assert {v.name for v in val.videos} == set(run.split["val"])
    assert len(videos_to_test(run, part="train")[0]) + len(val) == 9
    with pytest.raises(UserError, match="part 'tset': a run has the parts train, val, test"):
        videos_to_test(run, part="tset")
    with pytest.raises(UserError, match="leave out --data"):
        videos_to_test(run, part="val", data="verbs")
    narrow = Run(run.path, run.config, ["grow", "move_right"], run.split)
    with pytest.raises(UserError, match=r"verbs has a class 'move_left' that .* grow, move_right"):
        videos_to_test(narrow, data="verbs")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "set"
    write_verbs(folder, 2, size=32, frames=12)
    for verb in folder.iterdir():
        if verb.name not in ("move_right", "grow"):
            shutil.rmtree(verb)
    return folder


def test_other_data_is_matched_by_the_names_of_its_classes(run, files):
    videos, name = videos_to_test(run, data=str(files))
    assert name == str(files)
    assert videos.classes == ["grow", "move_left", "move_right"]
    for video in videos.videos:
        assert videos.classes[video.label] in video.path


def test_a_part_whose_videos_are_gone(files, tmp_path):
    config = load_config(overrides=[*TINY, f"data.path={files}", "data.val_fraction=0.5"])
    config.data.options = {}
    made = fit(config, tmp_path / "run").run
    assert not made.split["test"]
    assert videos_to_test(made)[1].startswith("part 'val' of ")
    with pytest.raises(UserError, match=r"no videos in part 'test', it has train \(2\), val \(2\)"):
        videos_to_test(made, part="test")
    made.split["val"].append("grow/none.mp4")
    with pytest.raises(UserError, match=r"1 of the 3 videos .* first is 'grow/none\.mp4'"):
        videos_to_test(made)


def test_prediction_says_when(run, files):
    file = sorted(files.rglob("*.mp4"))[0]
    [found] = predict(run, [file], clips=3)
    assert found.path == file
    assert found.classes == run.classes
    assert found.clips.shape == (3, 3)
    assert_close(found.probabilities, found.clips.mean(axis=0), atol=1e-12)
    top = found.top(2)
    assert len(top) == 2
    assert top[0][1] == found.probabilities.max() >= top[1][1]
    # 12 frames at 10 a second, clips of 8 frames: 0–0.8, 0.2–1.0, 0.4–1.2 s
    want = np.array([[0.0, 0.8], [0.2, 1.0], [0.4, 1.2]])
    assert_close(np.array(found.times), want, atol=0.011)
    [covering] = predict(run, [file])
    assert len(covering.times) == 2  # 1.2 s need two clips of 0.8 s


def test_prediction_agrees_with_the_network(run, files):
    file = sorted(files.rglob("*.mp4"))[0]
    [found] = predict(run, [file], clips=1)
    model, _ = run.model()
    batch = next(
        ClipLoader(
            open_data(files), clip_spec(run.config), batch_size=1, train=False, workers=0
        ).epoch()
    )
    x = normalise(batch.clips, run.config.clip.mean, run.config.clip.std)
    want = tinyvid.softmax(model(tinyvid.from_numpy(x)), 1).numpy()
    assert_close(found.probabilities, want[0].astype(np.float64), atol=1e-5)


def test_files_that_cannot_be_predicted(run, tmp_path):
    with pytest.raises(UserError, match=r"none\.mp4: no such file"):
        predict(run, [tmp_path / "none.mp4"])
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4: "):
        predict(run, [tmp_path / "text.mp4"])
    with pytest.raises(UserError, match="clips=0"):
        predict(run, [tmp_path / "none.mp4"], clips=0)


def test_weights_that_give_nan_predict_nothing(run, files, tmp_path):
    broken = Run.open(shutil.copytree(run.path, tmp_path / "broken"))
    checkpoint = load_checkpoint(broken.best)
    checkpoint.weights = {
        k: w * w.dtype.type(np.nan if "fc" in k else 1) for k, w in checkpoint.weights.items()
    }
    save_checkpoint(broken.best, checkpoint)
    file = sorted(files.rglob("*.mp4"))[0]
    with pytest.raises(UserError, match=r"\.mp4: the network of .*broken gives NaN"):
        predict(broken, [file])


def test_a_run_that_is_none(tmp_path, run):
    with pytest.raises(UserError, match=r"nothing is no run: it has no config\.toml"):
        Run.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="Did you mean 'run'"):
        Run.open(run.path.parent / "runn")


def test_weights_of_another_network(run, tmp_path):
    other = fit(load_config(overrides=[*TINY, "model.options.width=3"]), tmp_path / "other").run
    with pytest.raises(UserError, match=r"of another network: .* in the file and .* in the netwo"):
        run.model(other.best)
    other = fit(load_config(overrides=[*TINY, "model.name=single_frame"]), tmp_path / "frame").run
    with pytest.raises(UserError, match="another network"):
        run.model(other.best)


def test_weights_may_lack_the_counters_of_batch_norm(tmp_path):
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    weights = {name: t.numpy() + 1 for name, t in model.state_dict().items()}
    del weights["1.num_batches_tracked"]
    load_weights(model, weights, "w.safetensors")
    got = {name: t.numpy() for name, t in model.state_dict().items()}
    assert got.pop("1.num_batches_tracked") == np.int64(0)
    assert got.keys() == weights.keys()
    for name, array in weights.items():
        assert_close(got[name], array)
    load_weights(model, {**weights, "1.num_batches_tracked": np.array(7)}, "w.safetensors")
    assert model[1].num_batches_tracked.item() == 7
    del weights["1.running_mean"]
    with pytest.raises(UserError, match=r"another network: the file lacks 1\.running_mean$"):
        load_weights(model, weights, "w.safetensors")


def test_a_run_without_a_finished_epoch(run, tmp_path):
    Run.create(tmp_path / "new", run.config, run.classes, run.split)
    with pytest.raises(UserError, match=r"has finished no epoch yet"):
        Run.open(tmp_path / "new").model()
    (tmp_path / "new" / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run\.json or split\.json lacks 'classes'"):
        Run.open(tmp_path / "new")
    (tmp_path / "new" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        Run.open(tmp_path / "new")
    (tmp_path / "new" / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json: No such file"):
        Run.open(tmp_path / "new")


# Cross-validation


def test_the_validation_part_of_a_fold_is_scored_too(tmp_path):
    config = load_config(overrides=TINY)
    cross_validate(config, tmp_path, by="3", seeds=[0], clips=1)
    for fold in sorted(tmp_path.glob("seed0-*")):
        split = Run.open(fold).split
        assert split["val"]
        assert Scores.load(fold / "test-val" / "scores.npz").names == split["val"]
        assert Scores.load(fold / "test" / "scores.npz").names == split["test"]


def test_every_video_is_tested_once_a_seed(tmp_path):
    config = load_config(overrides=[*TINY, "data.val_fraction=0"])
    told = []
    result = cross_validate(
        config, tmp_path, by="3", seeds=[0, 1], clips=2, on_fold=lambda *fold: told.append(fold)
    )
    assert result.folds == ["1/3", "2/3", "3/3"]
    assert [(s, f, before) for s, f, _, before in told] == [
        (s, f, False) for s in (0, 1) for f in result.folds
    ]
    for seed in (0, 1):
        assert result.pooled[seed].videos == 9
        assert result.pooled[seed].confusion.sum(axis=1).tolist() == [3, 3, 3]
        hits = sum(
            result.metrics[seed, f].video_hit_1 * result.metrics[seed, f].videos
            for f in result.folds
        )
        assert result.pooled[seed].video_hit_1 == pytest.approx(hits / 9)
    shares = [result.pooled[s].video_hit_1 for s in (0, 1)]
    assert result.mean() == pytest.approx(sum(shares) / 2)
    assert result.spread() == pytest.approx(abs(shares[0] - shares[1]) / np.sqrt(2))
    assert result.majority == pytest.approx(1 / 3)
    tested = [set(Run.open(p).split["test"]) for p in sorted(tmp_path.glob("seed0-*"))]
    assert len(set.union(*tested)) == sum(map(len, tested)) == 9
    with open(tmp_path / "crossval.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["seed"], r["fold"]) for r in rows] == [
        (str(s), f) for s in (0, 1) for f in (*result.folds, "all")
    ]

    for seed in (0, 1):
        together = Scores.load(tmp_path / f"seed{seed}" / "scores.npz")
        assert set(together.names) == set.union(*tested)
        found = measure(together.logits, together.labels, together.videos)
        assert_close(found.confusion, result.pooled[seed].confusion)

    # What is finished is kept; what is not goes on.
    (tmp_path / "seed1-fold3" / "test" / "scores.npz").unlink()
    kept = (tmp_path / "seed0-fold1" / "best.safetensors").stat().st_mtime_ns
    told.clear()
    again = cross_validate(
        config, tmp_path, by="3", seeds=[0, 1], clips=2, on_fold=lambda *fold: told.append(fold)
    )
    assert [before for *_, before in told] == [True] * 5 + [False]
    assert (tmp_path / "seed0-fold1" / "best.safetensors").stat().st_mtime_ns == kept
    assert again.mean() == result.mean()

    # Three clips are not three crops of one clip.
    file = tmp_path / "seed0-fold1" / "test" / "metrics.json"
    for clips, crops in ((3, 1), (1, 3)):
        cross_validate(config, tmp_path, by="3", seeds=[0], clips=clips, crops=crops)
        about = json.loads(file.read_text())
        assert (about["clips_per_video"], about["crops"]) == (clips, crops)
        assert about["clips"] == 3 * about["videos"]

    config.optim.lr = 0.5
    with pytest.raises(UserError, match=r"seed0-fold1 was started with optim\.lr"):
        cross_validate(config, tmp_path, by="3", seeds=[0])


def test_one_group_is_left_out_at_a_time(tmp_path, files):
    csv_file = files / "list.csv"
    rows = ["path,label,group"]
    for i, file in enumerate(sorted(files.rglob("*.mp4"))):
        rows.append(f"{file.relative_to(files)},{file.parent.name},person {i % 2}")
    csv_file.write_text("\n".join(rows) + "\n")
    config = load_config(overrides=[*TINY, f"data.path={csv_file}", "data.val_fraction=0"])
    config.data.options = {}
    result = cross_validate(config, tmp_path, by="group", seeds=[3], clips=1)
    assert result.folds == ["person 0", "person 1"]
    assert np.isnan(result.spread())
    folders = sorted(p.name for p in tmp_path.iterdir() if p.is_dir())
    assert folders == ["seed3", "seed3-fold1-person_0", "seed3-fold2-person_1"]
    assert Run.open(tmp_path / folders[1]).config.data.test_group == ["person 0"]
    pooled = result.pooled[3]
    parts = [Scores.load(tmp_path / f / "test" / "scores.npz") for f in folders[1:]]
    hits = [measure(p.logits, p.labels, p.videos).video_hit_1 for p in parts]
    assert pooled.video_hit_1 == pytest.approx(np.mean(hits))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "grup"}, "by='grup': give 'group', or a number of folds from 2 to 9"),
        ({"by": "10"}, "from 2 to 9"),
        ({"by": "1"}, "from 2 to 9"),
        ({"seeds": []}, "at least one seed"),
    ],
)
def test_impossible_cross_validation(tmp_path, options, message):
    config = load_config(overrides=TINY)
    with pytest.raises(UserError, match=message):
        cross_validate(config, tmp_path, **options)


def test_cross_validation_chooses_the_test_part_itself(tmp_path):
    with pytest.raises(UserError, match=r"chooses data\.test_group and data.fold itself"):
        cross_validate(load_config(overrides=[*TINY, "data.fold=1/3"]), tmp_path)
    with pytest.raises(UserError, match="the data has one group"):
        fold_names(open_data("verbs", per_class=1, classes=["grow"]), "group")
