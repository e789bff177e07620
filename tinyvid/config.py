"""The configuration of a run: every choice that decides its result, in one TOML file.

A run reads defaults (below), then what suits the built-in set if that is what it trains on,
then a TOML file, then `--set section.key=value`. Each value is checked against the type of its
field as it comes in, and an unknown key is an error that names the nearest one. `to_toml`
writes all of them back, each under a line that explains it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tinyvid.device import DEVICES
from tinyvid.errors import UserError, nearest
from tinyvid.keys import convert, key, section_toml, types_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# ruff: noqa: RUF009 - `key` makes a field, which is what the rule asks for

RECIPES = Path(__file__).parent / "recipes"  # configs that come with the package, by name


@dataclass
class ModelConfig:
    """Which network."""

    name: str = key("slow_fusion", "the network; `tinyvid models` lists them")
    options: dict[str, Any] = key({}, "keyword arguments of the network")
    weights: str | None = key(
        None, "a file of weights to train from; its last layer may be for other classes"
    )


@dataclass
class DataConfig:
    """Which videos, and which of them are for what."""

    path: str = key("verbs", "a folder of class folders, a CSV of path,label,group, or verbs")
    options: dict[str, Any] = key(
        {}, "keyword arguments of the data set, such as per_class for verbs"
    )
    strict: bool = key(False, "stop at a file that cannot be read, instead of skipping it")
    test_group: list[str] = key([], "groups held out for testing; never trained on")
    fold: str = key("", "hold out the k-th of K parts of the groups for testing: 'k/K', from 1")
    val_fraction: float = key(
        0.2,
        "share of the training videos that validates, by whole groups; 0 for none",
        least=0,
        most=0.9,
    )
    workers: int = key(2, "threads that decode", least=0, most=64)
    prefetch: int = key(4, "batches decoded ahead", least=1, most=64)
    cache: str | None = key(None, "folder for decoded, resized videos; speeds up later epochs")
    memory: int = key(
        1024,
        "MiB: training videos that take no more, decoded and resized, are kept in memory",
        least=0,
    )


@dataclass
class ClipConfig:
    """What a clip is; its size is the one that the network is meant for, unless given."""

    input: str | None = key(
        None,
        "rgb, or flow: the optical flow from each frame to the next; none: the network's own",
        choices=("rgb", "flow"),
    )
    frames: int | None = key(None, "frames of a clip; none: the network's own", least=1)
    stride: int | None = key(None, "take each stride-th frame; instead of fps", least=1)
    fps: float | None = key(8.0, "frames per second of the clip; instead of stride", least=1e-3)
    height: int | None = key(None, "pixels; none: the network's own", least=1)
    width: int | None = key(None, "pixels; none: the network's own", least=1)
    short_side: int | None = key(
        None, "resize the short side to this before cropping; none: the clip's longer side", least=1
    )
    pad_policy: str = key(
        "repeat_last",
        "what a video shorter than a clip goes on with",
        choices=("repeat_last", "loop", "reflect", "error"),
    )
    mean: tuple[float, float, float] = key((0.45, 0.45, 0.45), "subtracted, in units of 0..1")
    std: tuple[float, float, float] = key(
        (0.225, 0.225, 0.225), "divided by, in units of 0..1", least=1e-6
    )
    flow_bound: float | None = key(
        None,
        "pixels; longer displacements are cut; none: a tenth of the short side",
        least=0.1,
    )
    flow_unit: float = key(1.0, "pixels of displacement that the network sees as 1", least=1e-3)


@dataclass
class AugmentConfig:
    """How training clips are varied; each clip as a whole, the same way in every frame. Flow has no
    colours, and is mirrored and scaled with its displacements."""

    flip: float = key(
        0.0, "probability of a mirror image; 0 where left and right tell classes apart"
    )
    scale: tuple[float, float] | None = key(
        (0.6, 1.0), "share of the picture's area that is cut out, least and most; none: no scaling"
    )
    ratio: tuple[float, float] = key((0.8, 1.25), "aspect ratio of that cut, least and most")
    shift: float = key(0.0, "cut up to this share of the clip's size beyond the border")
    rotate: float = key(0.0, "degrees, to either side")
    brightness: float = key(0.2, "factor from 1 - v to 1 + v")
    contrast: float = key(0.2, "factor from 1 - v to 1 + v")
    saturation: float = key(0.2, "factor from 1 - v to 1 + v")
    hue: float = key(0.0, "turns of the colour circle, to either side")
    speed: float = key(0.2, "0.2 plays up to 1.2 times faster or slower")


@dataclass
class OptimConfig:
    """How the weights are changed."""

    name: str = key("adamw", "the optimiser", choices=("adamw", "adam", "sgd"))
    lr: float = key(2e-3, "the highest learning rate", least=0)
    weight_decay: float = key(0.02, "on weights; never on biases and norms", least=0)
    momentum: float = key(0.9, "of sgd", least=0, most=1)
    nesterov: bool = key(True, "of sgd")
    betas: tuple[float, float] = key((0.9, 0.999), "of adam and adamw")
    clip_norm: float | None = key(5.0, "longest gradient; a longer one is shortened", least=0)
    label_smoothing: float = key(0.1, "share of the target spread evenly", least=0, most=1)
    ema: float | None = key(
        None, "decay of a running mean of the weights, which then is tested", least=0, most=0.99999
    )


@dataclass
class ScheduleConfig:
    """How the learning rate changes over the epochs."""

    name: str = key(
        "cosine",
        "warm-up then half a cosine; drops by gamma; or warm-up then constant",
        choices=("cosine", "step", "constant"),
    )
    warmup_epochs: float = key(2.0, "epochs in which it rises from 0", least=0)
    final: float = key(0.01, "where cosine ends, as a share of lr", least=0, most=1)
    step_epochs: int = key(10, "epochs between the drops of step", least=1)
    gamma: float = key(0.1, "factor at each drop of step", least=0, most=1)


@dataclass
class RunConfig:
    """How long, how many at once, from which seed."""

    epochs: int = key(60, "passes over the training videos", least=1)
    batch_size: int = key(8, "clips of a step", least=1)
    train_clips: int = key(1, "random clips of each training video in an epoch", least=1)
    val_clips: int = key(2, "uniform clips of each video in validation", least=1)
    seed: int = key(0, "decides the split, the initial weights, the order and each clip", least=0)
    device: str = key("cpu", "where the kernels run", choices=DEVICES)


@dataclass
class Config:
    """All of a run's choices, with defaults for a few dozen to a few hundred real videos."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def set(self, dotted: str, value: Any) -> None:
        """Set one key, such as `set("optim.lr", 0.01)`.

        Raises:
            UserError: no such key (the message names the nearest), or a value of a wrong type.
        """
        section, found, inside = _find(self, dotted)
        if not inside:
            value = convert(dotted, value, types_of(section)[found.name], found)
            setattr(section, found.name, value)
            if found.name == "stride" and value is not None:
                section.fps = None  # one takes the place of the other
            elif found.name == "fps" and value is not None:
                section.stride = None
            return
        place = getattr(section, found.name)  # a free table, such as model.options
        for name in inside[:-1]:
            place = place.setdefault(name, {})
        place[inside[-1]] = value

    def update(self, tree: Mapping[str, Any]) -> None:
        """Set every key of a tree of sections, as read from TOML.

        Raises:
            UserError: as `set`.
        """
        for name, values in tree.items():
            if name not in _sections(self):
                raise UserError(
                    f"unknown section [{name}] of the config.{_hint(self, name, values)}"
                )
            if not isinstance(values, Mapping):
                raise UserError(f"{name} is a section of the config: write [{name}] above its keys")
            for inner, value in values.items():
                self.set(f"{name}.{inner}", value)

    def override(self, assignment: str) -> None:
        """Set one key from text, `optim.lr=0.01`; the value is TOML, or a bare word for a string.

        Raises:
            UserError: no `=`, or as `set`.
        """
        dotted, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: write key=value, such as optim.lr=0.01")
        dotted, text = dotted.strip(), text.strip()
        _find(self, dotted)  # an unknown key is the better message
        try:
            parsed = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            parsed = {}
        self.set(dotted, parsed["value"] if list(parsed) == ["value"] else text)

    def to_dict(self) -> dict[str, Any]:
        """Return the tree of sections, with None where a key is unset."""
        return asdict(self)

    def to_toml(self) -> str:
        """Return the whole config as TOML, each key under a line that explains it."""
        return "\n".join(section_toml(name, getattr(self, name)) for name in _sections(self))


# The built-in set is generated, so new videos cost no more than old ones: it takes many of them,
# few epochs and no variation.
VERBS: dict[str, Any] = {
    "data.options": {"per_class": 400},
    "data.val_fraction": 0.05,
    "augment.scale": None,
    "augment.brightness": 0.0,
    "augment.contrast": 0.0,
    "augment.saturation": 0.0,
    "optim.lr": 0.004,
    "schedule.warmup_epochs": 0.5,
    "run.epochs": 8,
    "run.batch_size": 16,
    "run.val_clips": 1,
}

VERBS_FRAMES = 20  # of a video, where the clip does not ask for more


def suited_to_verbs(name: str) -> Config:
    """Return the defaults for training the network `name` on the built-in set.

    Small pictures and every second frame show its motion, so the small networks get clips of
    8x32x32. The others were drawn for one size of clip and keep it: the videos are made to
    cover it.

    Raises:
        UserError: no such network.
    """
    from tinyvid import models  # here: the networks stand on much that a config does not need

    entry = models.entry(name)
    small = entry.clip in (models.SMALL, models.FLOW)
    _, frames, height, width = (3, 8, 32, 32) if small else entry.clip
    stride = 2 if 2 * frames <= VERBS_FRAMES else 1
    span = (frames - 1) * stride + 1
    config = Config()
    for dotted, value in VERBS.items():
        config.set(dotted, value)
    config.data.options |= {"size": height}
    if span > VERBS_FRAMES - 4:  # some room for clips to start at different moments
        config.data.options |= {"frames": span + 4}
    config.set("clip.frames", frames)
    config.set("clip.height", height)
    config.set("clip.width", width)
    config.set("clip.stride", stride)
    if "dropout" in entry.defaults:
        config.set("model.options.dropout", 0.0)
    return config


def load_config(
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    named: Mapping[str, Any] | None = None,
) -> Config:
    """Return the defaults, changed by a TOML file, `key=value` overrides and named keys in turn.

    Args:
        path: the TOML file, or the name of a recipe that comes with the package (see `recipes`).
        overrides: texts such as "optim.lr=0.01".
        named: values by key, such as {"run.epochs": 3}.

    Raises:
        UserError: the file is missing or not TOML, or a key or value is wrong; the message
            names the file. Or clip.stride and clip.fps are both given at once.
    """
    tree = {} if path is None else _read_toml(_config_file(path))
    overrides = list(overrides)
    _refuse_stride_and_fps(f"config {path}", tree.get("clip"))
    _refuse_stride_and_fps("--set", _overridden_clip(overrides))

    def change(config: Config) -> Config:
        try:
            config.update(tree)
        except UserError as error:
            raise UserError(f"config {path}: {error}") from error
        for assignment in overrides:
            config.override(assignment)
        for dotted, value in (named or {}).items():
            config.set(dotted, value)
        return config

    config = change(Config())
    if config.data.path != "verbs":
        return config
    return change(suited_to_verbs(config.model.name))


def recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(file.stem for file in RECIPES.glob("*.toml"))


def _config_file(path: str | Path) -> Path:
    """Return the file that `path` names, be it by a recipe's name."""
    path = Path(path)
    if path.exists() or path.suffix or path.name != str(path):
        return path
    if path.name not in recipes():
        raise UserError(
            f"config {path}: no such file, and no recipe: there is {', '.join(recipes())}."
            + nearest(path.name, recipes())
        )
    return RECIPES / f"{path.name}.toml"


def _overridden_clip(overrides: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in overrides if text.strip().startswith("clip.")]
    return {name.strip().partition(".")[2]: value.strip().strip("\"'") for name, _, value in pairs}


def _refuse_stride_and_fps(where: str, clip: Any) -> None:
    """One takes the place of the other; given at once, neither can be meant."""
    given = [clip.get(k, "none") for k in ("stride", "fps")] if isinstance(clip, Mapping) else []
    if given and "none" not in given:
        raise UserError(
            f"{where}: clip.stride = {given[0]} and clip.fps = {given[1]} both say how far apart "
            "the frames of a clip are: give one"
        )


def _read_toml(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"config {path} is not TOML: {error}") from error


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Return the config that `to_dict` gave, for instance out of a checkpoint."""
    config = Config()
    config.update(tree)
    return config


def _sections(config: Config) -> list[str]:
    return [f.name for f in fields(config)]


def _all_keys(config: Config) -> list[str]:
    return [f"{s}.{f.name}" for s in _sections(config) for f in fields(getattr(config, s))]


def _hint(config: Config, name: str, values: Any) -> str:
    """A key without its section is the likeliest slip: `lr` for `optim.lr`."""
    homes = [k for k in _all_keys(config) if k.partition(".")[2] == name]
    return (
        f" Did you mean {homes[0]!r}?"
        if homes and not isinstance(values, Mapping)
        else nearest(name, _sections(config))
    )


def _find(config: Config, dotted: str) -> tuple[Any, Field, list[str]]:
    """Return the section, the field, and what the dotted key names inside a free table."""
    name, _, rest = dotted.partition(".")
    inner, *inside = rest.split(".")
    if name in _sections(config):
        section = getattr(config, name)
        for found in fields(section):
            if found.name == inner and not (inside and found.name != "options"):
                return section, found, inside
    homes = [k for k in _all_keys(config) if k.partition(".")[2] == dotted]
    hint = f" Did you mean {homes[0]!r}?" if homes else nearest(dotted, _all_keys(config))
    raise UserError(f"unknown config key {dotted!r}.{hint}")
