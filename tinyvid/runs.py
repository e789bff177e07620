"""The folder of a run, and what is kept in it.

config.toml         every choice that decided the result
run.json            versions, platform, seed and classes
split.json          the names of the videos of each part: train, val, test
log.csv             a row for each epoch
curves.png          the same as a picture
best.safetensors    the weights of the best epoch
last.safetensors    the latest epoch with all that is needed to continue
test/               scores, per-video results, confusion matrix; test-train/, test-NAME/ and
                    so on of other parts, data, weights and fusions
"""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from tinyvid.checkpoint import (
    Checkpoint,
    check_weights,
    load_checkpoint,
    with_counters,
    write_atomically,
)
from tinyvid.config import Config, load_config
from tinyvid.data.official import split_spec
from tinyvid.data.sets import absolute
from tinyvid.errors import UserError, nearest
from tinyvid.weights.from_rgb import cross_modality, same_first_layer

if TYPE_CHECKING:
    from tinyvid import nn
    from tinyvid.data import VideoSet

CHANNELS = {"rgb": 3, "flow": 2}  # of a clip
LOCK = ".lock"

PARTS = ("train", "val", "test")


@dataclass
class Run:
    """A run's folder, read.

    Attributes:
        classes: the names of the classes, in the order of the network's outputs.
        split: the names of the videos of each part.
    """

    path: Path
    config: Config
    classes: list[str]
    split: dict[str, list[str]]

    @classmethod
    def create(
        cls, path: str | Path, config: Config, classes: list[str], split: Mapping[str, list[str]]
    ) -> Run:
        """Make the folder and write down how the run is meant to go.

        Args:
            split: the names of the videos of each of `PARTS`.

        Raises:
            UserError: the folder cannot be made or written to.
        """
        path = make_folder(path)
        for leftover in (path / "best.safetensors", path / "log.csv"):  # of a run that was killed
            leftover.unlink(missing_ok=True)
        about = {**versions(), "seed": config.run.seed, "classes": classes}
        write_json(path / "run.json", about)
        write_json(path / "split.json", dict(split))
        # The last one: a folder that has it is whole.
        write_atomically(path / "config.toml", config.to_toml().encode())
        return cls(path, config, classes, dict(split))

    @classmethod
    def reopen(cls, path: str | Path, config: Config) -> Run:
        """Read a run's folder to go on with it; it keeps all but the config as it is.

        Raises:
            UserError: as `open`, or the folder cannot be written to.
        """
        run = cls.open(path)
        write_atomically(run.path / "config.toml", config.to_toml().encode())
        return replace(run, config=config)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a run's folder.

        Raises:
            UserError: it is no folder of a run, or a file in it is damaged.
        """
        path = Path(path)
        if not (path / "config.toml").is_file():
            near = nearest(path.name, [p.name for p in _siblings(path)])
            raise UserError(f"{path} is no run: it has no config.toml.{near}")
        config = load_config(path / "config.toml")
        about, split = read_json(path / "run.json"), read_json(path / "split.json")
        try:
            classes = [str(name) for name in about["classes"]]
            return cls(path, config, classes, {name: list(split[name]) for name in PARTS})
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: run.json or split.json lacks {error}") from error

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    def epochs(self) -> int:
        """Return how many epochs are finished, as far as the log says."""
        log = self.path / "log.csv"
        return max(0, len(log.read_text().splitlines()) - 1) if log.exists() else 0

    def part(self, videos: VideoSet, name: str) -> VideoSet:
        """Return the videos of a part of this run.

        Raises:
            UserError: the part is empty, or some of its videos are gone.
        """
        known = {video.name: i for i, video in enumerate(videos.videos)}
        names = self.split[name]
        gone = [n for n in names if n not in known]
        if gone:
            raise UserError(
                f"{len(gone)} of the {len(names)} videos of part {name!r} of {self.path} are not "
                f"in the data any more, the first is {gone[0]!r}"
            )
        return videos.subset([known[n] for n in names])

    def model(
        self, weights: str | Path | None = None, device: str | None = None
    ) -> tuple[nn.Module, Checkpoint]:
        """Return the network with the weights of the best epoch, in evaluation mode.

        Args:
            weights: a file to take instead of `best.safetensors`.
            device: where it shall run; None for where it was trained.

        Raises:
            UserError: there is no such file yet, it is damaged, or holds another network; or
                the device cannot be used.
        """
        path = Path(weights) if weights is not None else self.best
        if weights is None and not path.exists():
            raise UserError(f"{self.path} has finished no epoch yet: it has no {path.name}")
        checkpoint = load_checkpoint(path)
        model = build_model(self.config, len(self.classes), device)
        load_weights(model, checkpoint.weights, path)
        return model.eval(), checkpoint


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep a run's folder, which is made if need be, to this process.

    Raises:
        UserError: another process trains in it, or it cannot be made.
    """
    lock = FileLock(make_folder(path) / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{path} is being trained by another process: choose another --out, or wait for it"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be written to: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
        (Path(path) / LOCK).unlink(missing_ok=True)


def is_locked(path: str | Path) -> bool:
    """Return whether a process trains in the folder; one that was killed does not."""
    if not (Path(path) / LOCK).exists():
        return False
    try:
        with locked(path):
            return False
    except UserError:
        return True


def clip_shape(config: Config) -> tuple[int, int, int, int]:
    """Return `C T H W` of the config's clips; what it leaves open is what the network is meant for.

    Raises:
        UserError: no such network.
    """
    from tinyvid import models

    c, own = config.clip, models.entry(config.model.name).clip
    channels = CHANNELS[input_of(config)]
    return channels, c.frames or own[1], c.height or own[2], c.width or own[3]


def input_of(config: Config) -> str:
    """Return what the network takes, "rgb" or "flow".

    Raises:
        UserError: no such network, or one for flow is to take pictures.
    """
    from tinyvid import models

    name = config.model.name
    own = "flow" if models.entry(name).clip[0] == CHANNELS["flow"] else "rgb"
    if own == "flow" and config.clip.input == "rgb":
        raise UserError(
            f"clip.input = rgb: {name} takes optical flow, {CHANNELS['flow']} numbers a pixel; "
            "leave clip.input out"
        )
    return config.clip.input or own


def resolved(config: Config) -> Config:
    """Return the config with every size filled in and paths that hold from any folder, as it is
    kept in a run's folder."""
    full = copy.deepcopy(config)
    if split_spec(full.data.path)[1].exists():
        full.data.path = absolute(full.data.path)
    if full.data.cache is not None:
        full.data.cache = str(Path(full.data.cache).resolve())
    if full.model.weights is not None:
        full.model.weights = str(Path(full.model.weights).resolve())
    _, full.clip.frames, full.clip.height, full.clip.width = clip_shape(config)
    full.clip.input = input_of(config)
    return full


def build_model(config: Config, num_classes: int, device: str | None = None) -> nn.Module:
    """Return the network of a config, on its device or the one given, with initial weights
    drawn from the run's seed."""
    from tinyvid import manual_seed, models

    manual_seed(config.run.seed)
    clip = clip_shape(config)
    model = models.build(config.model.name, num_classes, clip=clip, **config.model.options)
    return model.to(device or config.run.device)


def load_weights(model: nn.Module, weights: Mapping[str, Any], source: str | Path) -> None:
    """Give the network the weights of a file.

    Raises:
        UserError: they are those of another network; names the first keys that differ.
    """
    expected = {name: t.numpy() for name, t in model.state_dict().items()}
    weights = with_counters(weights, expected)
    check_weights(weights, expected, source)
    model.load_state_dict(weights)


def start_from(
    model: nn.Module,
    path: str | Path,
    flow: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Give the network the weights of a file; return the names of those that it keeps.

    It keeps those of its last layer where the file has none, or some for other classes.

    Args:
        flow: the network takes flow, and may start from weights for pictures: where the first
            layer does not fit, see `tinyvid.weights.from_rgb`.
        note: called with what the user should know.

    Raises:
        UserError: the file cannot be read, or another layer is missing or of another shape.
    """
    expected = {name: t.numpy() for name, t in model.state_dict().items()}
    weights = load_checkpoint(path).weights
    if flow and not same_first_layer(weights, expected):
        weights = cross_modality(weights, expected, path)
        note(f"{path} was trained on pictures: its first filters are averaged over the colours")
    last = list(expected)[-1].rpartition(".")[0] + "."
    kept = [
        name
        for name, array in expected.items()
        if name.startswith(last) and getattr(weights.get(name), "shape", None) != array.shape
    ]
    load_weights(model, weights | {name: expected[name] for name in kept}, path)
    return kept


def versions() -> dict[str, str]:
    """Return the versions of everything that may change a result's last bits."""
    found = {}
    for package in ("tinyvid", "numpy", "numba", "av"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a bare checkout
            from tinyvid import __version__

            found[package] = __version__
    return {**found, "python": sys.version.split()[0], "platform": platform.platform()}


def data_name(path: str) -> str:
    """Return a short name for data: of an official set, of their folder, or of a CSV that is not
    called clips.csv."""
    official, _ = split_spec(path)
    if official:
        return official
    place = Path(os.path.abspath(path))
    if place.name == "clips.csv":
        place = place.parent
    return place.stem if place.suffix == ".csv" else place.name


def make_folder(path: str | Path) -> Path:
    """Make a folder where there is none.

    Raises:
        UserError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made a folder: {error.strerror or error}") from error
    return path


def claim(path: str | Path, file: str, about: Mapping[str, object]) -> Path:
    """Make a folder for results, and write into `file` in it what they are of.

    Raises:
        UserError: it cannot be made, or holds results of anything else.
    """
    path = Path(path)
    if not (path / file).exists():
        if path.is_dir() and any(path.iterdir()):
            raise UserError(f"{path} holds something else: choose another --out")
        write_json(make_folder(path) / file, about)
    there = read_json(path / file)
    for key, value in about.items():
        if there.get(key) != value:
            raise UserError(
                f"{path} holds results with {key} {there.get(key)}, not {value}: "
                "choose another --out"
            )
    return path


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file is a UserError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys as CSV with a header, atomically; None becomes an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _siblings(path: Path) -> list[Path]:
    parent = path.parent
    return [p.parent for p in parent.glob("*/config.toml")] if parent.is_dir() else []
