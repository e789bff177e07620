import sys

import pytest

from tinyvid import models
from tinyvid.config import Config, from_dict, load_config
from tinyvid.data import open_data
from tinyvid.data.clips import is_short
from tinyvid.errors import UserError
from tinyvid.inputs import clip_spec
from tinyvid.runs import build_model, clip_shape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_what_is_written_is_what_is_read(tmp_path):
    config = load_config(
        overrides=[
            "model.name=c3d",
            "model.options.width=8",
            'model.options.kind="a = b"',
            'data.path="odd \\"name\\" # no comment"',
            'data.test_group=["P1", "P2"]',
            "clip.fps=12.5",
            "optim.ema=0.99",
            "optim.clip_norm=none",
            "augment.scale=none",
            "optim.betas=[0.8, 0.9]",
            "augment.flip=0.5",
        ]
    )
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert load_config(path) == config
    assert from_dict(config.to_dict()) == config
    assert config != Config()
    assert config.clip.fps == 12.5
    assert config.model.options == {"width": 8, "kind": "a = b"}


def test_defaults_survive_the_round_trip(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(Config().to_toml(), encoding="utf-8")
    config = from_dict(Config().to_dict())
    assert config == Config()
    tree = tomllib.loads(Config().to_toml())
    assert list(tree) == ["model", "data", "clip", "augment", "optim", "schedule", "run"]
    assert tree["optim"]["name"] == "adamw"
    assert tree["clip"]["stride"] == "none"  # unset, in a word that TOML has


def test_the_built_in_set_has_defaults_of_its_own(tmp_path):
    own = load_config(named={"data.path": "verbs"})
    other = load_config(named={"data.path": "videos"})
    assert (own.clip.height, own.augment.scale, own.data.options) == (
        32,
        None,
        {"size": 32, "per_class": 400},
    )
    assert (other.clip.height, other.data.options) == (None, {})
    assert other.augment.scale is not None
    changed = load_config(overrides=["clip.height=48", "data.options.seed=3"])
    assert changed.clip.height == 48
    assert changed.data.options == {"size": 32, "per_class": 400, "seed": 3}
    path = tmp_path / "c.toml"
    path.write_text(changed.to_toml(), encoding="utf-8")
    assert load_config(path) == changed
    plain = from_dict(Config().to_dict())  # every key is given: nothing is left to choose
    path.write_text(plain.to_toml(), encoding="utf-8")
    assert load_config(path) == plain


@pytest.mark.parametrize("name", models.names())
def test_every_network_fits_the_built_in_set(name):
    """A size of clip that does not fit, or an option that it does not have, would raise."""
    defaults = models.entry(name).defaults
    few = {"width": 4, "hidden": 8}  # weights of full size take seconds to draw
    named = {f"model.options.{k}": v for k, v in few.items() if k in defaults}
    config = load_config(named={"model.name": name, "data.path": "verbs", **named})
    videos = open_data("verbs", **{**config.data.options, "per_class": 1})
    info = videos.probe(videos.videos[0])
    assert not is_short(clip_spec(config), info)
    assert (info.height, info.width) == (config.clip.height, config.clip.width)
    model = build_model(config, len(videos.classes))
    assert tuple(model.config["clip"]) == clip_shape(config)
    assert config.model.options.get("dropout") == (0.0 if "dropout" in defaults else None)


def test_the_built_in_set_keeps_the_clip_of_a_network_drawn_for_one():
    worked = load_config(named={"model.name": "worked_slow_fusion"})
    assert clip_shape(worked) == (3, 20, 64, 64)
    assert worked.data.options == {"per_class": 400, "size": 64, "frames": 24}
    assert worked.clip.stride == 1
    with pytest.raises(UserError, match="no network is called 'worked_slow'"):
        load_config(named={"model.name": "worked_slow"})


def test_stride_and_fps_take_each_others_place(tmp_path):
    assert load_config(overrides=["clip.stride=2"]).clip.fps is None
    path = tmp_path / "c.toml"
    path.write_text("[clip]\nstride = 2\n", encoding="utf-8")
    clip = load_config(path, ["clip.fps=5"]).clip
    assert (clip.stride, clip.fps) == (None, 5.0)
    clip = load_config(overrides=["clip.stride=none", "clip.fps=5"]).clip
    assert (clip.stride, clip.fps) == (None, 5.0)


def test_stride_and_fps_at_once_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^--set: clip\.stride = 2 and clip\.fps = 8 .* one$"):
        load_config(overrides=["clip.stride=2", "clip.fps=8"])
    path = tmp_path / "c.toml"
    path.write_text("[clip]\nfps = 5\nstride = 2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"c\.toml: clip\.stride = 2 and clip\.fps = 5 .* give one"):
        load_config(path)


def test_a_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config("small_sets", named={"data.path": "somewhere"})
    assert (config.clip.width, config.run.train_clips) == (80, 4)
    with pytest.raises(UserError, match=r"no recipe: there is small_sets\. Did you mean 'small_s"):
        load_config("small_set")
    (tmp_path / "small_sets").write_text("[run]\ntrain_clips = 7\n", encoding="utf-8")
    assert load_config("small_sets").run.train_clips == 7  # a file of that name comes first


def test_what_none_means_is_written_down():
    text = Config().to_toml()
    for key in ("frames", "height", "width"):
        line = text.splitlines().index(f'{key} = "none"')
        assert "none: the network's own" in text.splitlines()[line - 1]


def test_two_configs_share_nothing():
    a, b = Config(), Config()
    a.set("model.options.width", 3)
    a.data.test_group.append("x")
    assert b == Config()
    assert b.model.options == {}


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("optim.lr=1", "lr", 1.0),
        ("optim.lr = 0.5", "lr", 0.5),
        ("optim.clip_norm=none", "clip_norm", None),
        ("optim.nesterov=false", "nesterov", False),
        ("optim.name=sgd", "name", "sgd"),
        ('optim.name="sgd"', "name", "sgd"),
    ],
)
def test_overrides_are_toml_or_bare_words(assignment, key, value):
    got = getattr(load_config(overrides=[assignment]).optim, key)
    assert got == value
    assert type(got) is type(value)


def test_a_single_group_needs_no_list():
    assert load_config(overrides=["data.test_group=P1"]).data.test_group == ["P1"]
    assert load_config(overrides=["data.test_group=3"]).data.test_group == ["3"]


def test_nested_options():
    config = load_config(overrides=["data.options.window.start=0.5", "data.options.window.end=1"])
    assert config.data.options["window"] == {"start": 0.5, "end": 1}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lrr=1", r"unknown config key 'optim\.lrr'\. Did you mean 'optim\.lr'\?"),
        ("lr=1", r"unknown config key 'lr'\. Did you mean 'optim\.lr'\?"),
        ("optimm.lr=1", r"Did you mean 'optim\.lr'\?"),
        ("optim.lr.x=1", r"unknown config key 'optim\.lr\.x'"),
        ("optim=1", r"unknown config key 'optim'"),
        ("optim.lr", r"write key=value"),
        ("optim.lr=high", r"optim\.lr = 'high': give a number"),
        ("optim.lr=-1", r"optim\.lr = -1\.0: must be at least 0"),
        ("optim.lr=nan", r"optim\.lr = nan: must be at least 0"),
        ("optim.label_smoothing=2", r"must be between 0 and 1"),
        ("run.epochs=1.5", r"run\.epochs = 1\.5: give a whole number"),
        ("run.epochs=true", r"run\.epochs = True: give a whole number"),
        ("data.strict=1", r"data\.strict = 1: give true or false"),
        ("data.path=3", r"data\.path = 3: give a string"),
        ("optim.name=adamm", r"one of adamw, adam, sgd\. Did you mean 'adam"),
        ("clip.mean=[1, 2]", r"clip\.mean = \[1, 2\]: give a list of 3 numbers"),
        ("clip.mean=[1, 2, 'x']", r"clip\.mean = 'x': give a number"),
        ("clip.std=[0.2, 0, 0.2]", r"clip\.std = 0\.0: must be at least 1e-06"),
        ("run.device=gpu", r"run\.device = 'gpu': give one of cpu, emulator, cuda"),
        ("model.options=3", r"model\.options = 3: it is a table"),
        ("clip.fps=0", r"clip\.fps = 0\.0: must be at least 0\.001"),
    ],
)
def test_bad_overrides(assignment, message):
    with pytest.raises(UserError, match=message):
        load_config(overrides=[assignment])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nlrr = 1\n", r"config .*c\.toml: unknown config key 'optim\.lrr'"),
        ("[optin]\nlr = 1\n", r"unknown section \[optin\] of the config\. Did you mean 'optim'"),
        ("lr = 1\n", r"unknown section \[lr\] of the config\. Did you mean 'optim\.lr'"),
        ("optim = 1\n", r"write \[optim\] above its keys"),
        ("[optim\n", r"c\.toml is not TOML: "),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.toml: No such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"b\.toml is not TOML"):
        load_config(tmp_path / "b.toml")


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[optim]\nlr = 1\nname = 'sgd'\n", encoding="utf-8")
    config = load_config(path, ["optim.lr=2"])
    assert (config.optim.lr, config.optim.name) == (2.0, "sgd")
