"""The configuration of a run: every choice that decides its result, in one TOML file.

A run reads defaults (below), then what suits the built-in set if that is what it trains on,
then a TOML file, then `--set section.key=value`. Each value is checked against the type of its
field as it comes in, and an unknown key is an error that names the nearest one. `to_toml`
writes all of them back, each under a line that explains it.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import tomli_w

from tinyvid.device import DEVICES
from tinyvid.errors import UserError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# ruff: noqa: RUF009 - `key` makes a field, which is what the rule asks for


def key(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """Return a dataclass field that explains itself and knows which values it may take."""
    metadata = {"help": help, "choices": tuple(choices), "least": least, "most": most}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """Which network."""

    name: str = key("slow_fusion", "the network; `tinyvid models` lists them")
    options: dict[str, Any] = key({}, "keyword arguments of the network")


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


@dataclass
class ClipConfig:
    """What a clip is; its size is the one that the network is meant for, unless given."""

    frames: int | None = key(None, "frames of a clip", least=1)
    stride: int | None = key(None, "take each stride-th frame; instead of fps", least=1)
    fps: float | None = key(8.0, "frames per second of the clip; instead of stride", least=1e-3)
    height: int | None = key(None, "pixels", least=1)
    width: int | None = key(None, "pixels", least=1)
    short_side: int | None = key(None, "resize the short side to this before cropping", least=1)
    pad_policy: str = key(
        "repeat_last",
        "what a video shorter than a clip goes on with",
        choices=("repeat_last", "loop", "reflect", "error"),
    )
    mean: tuple[float, float, float] = key((0.45, 0.45, 0.45), "subtracted, in units of 0..1")
    std: tuple[float, float, float] = key(
        (0.225, 0.225, 0.225), "divided by, in units of 0..1", least=1e-6
    )


@dataclass
class AugmentConfig:
    """How training clips are varied; each clip as a whole, the same way in every frame."""

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
            value = _convert(dotted, value, _types(section)[found.name], found)
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
        return "\n".join(_section_toml(name, getattr(self, name)) for name in _sections(self))


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
    small = entry.clip == models.SMALL
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
        path: the TOML file.
        overrides: texts such as "optim.lr=0.01".
        named: values by key, such as {"run.epochs": 3}.

    Raises:
        UserError: the file is missing or not TOML, or a key or value is wrong; the message
            names the file.
    """
    tree = {} if path is None else _read_toml(path)
    overrides = list(overrides)

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


def _types(section: Any) -> dict[str, Any]:
    return typing.get_type_hints(type(section))


_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _convert(dotted: str, value: Any, wanted: Any, found: Field | None = None) -> Any:
    """Return `value` as the type `wanted`; int passes as float, a list as a tuple."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        if value is None or value == "none":
            return None
        wanted = next(a for a in args if a is not type(None))
        origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(args):
            raise UserError(f"{dotted} = {value!r}: give a list of {len(args)} numbers")
        values = tuple(_convert(dotted, v, a) for v, a in zip(value, args, strict=True))
        if found is not None:
            for number in values:
                _check_range(dotted, number, found.metadata)
        return values
    if origin is list:
        # One bare word is a list of one: --set data.test_group=P1
        items = value if isinstance(value, list | tuple) else [value]
        return [_convert(dotted, v, args[0]) for v in items]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{dotted} = {value!r}: it is a table; set {dotted}.NAME=value")
        return dict(value)
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted is str and type(value) in (int, float) and found is None:
        value = str(value)  # a group may be called 3
    if type(value) is not wanted:
        raise UserError(f"{dotted} = {value!r}: give {_NAMES[wanted]}")
    if found is not None:
        _check_range(dotted, value, found.metadata)
    return value


def _check_range(dotted: str, value: Any, limits: Mapping[str, Any]) -> None:
    choices, least, most = limits["choices"], limits["least"], limits["most"]
    if choices and value not in choices:
        listed = ", ".join(choices)
        raise UserError(f"{dotted} = {value!r}: give one of {listed}.{nearest(value, choices)}")
    if (least is not None and not value >= least) or (most is not None and not value <= most):
        within = f"at least {least:g}" if most is None else f"between {least:g} and {most:g}"
        raise UserError(f"{dotted} = {value!r}: must be {within}")


def _section_toml(name: str, section: Any) -> str:
    lines, tables = [f"[{name}]"], []
    for found in fields(section):
        value = getattr(section, found.name)
        note = f"# {found.metadata['help']}"
        if found.metadata["choices"]:
            note += f" ({', '.join(found.metadata['choices'])})"
        if isinstance(value, dict):
            body = tomli_w.dumps(value)
            tables += ["", note, f"[{name}.{found.name}]", *body.splitlines()]
        elif value is None:  # TOML has no word for it
            lines += [note, f'{found.name} = "none"']
        elif isinstance(value, tuple | list):
            inner = ", ".join(tomli_w.dumps({"v": v}).strip()[4:] for v in value)
            lines += [note, f"{found.name} = [{inner}]"]
        else:
            lines += [note, tomli_w.dumps({found.name: value}).strip()]
    return "\n".join([*lines, *tables, ""])
