"""Checkpoints: arrays as safetensors, the rest as JSON in the same file, replaced at once.

A file holds the weights under their own names (so that any reader of safetensors finds them),
and whatever else a run needs to continue: a tree of dicts, lists and numbers, in whose place
each array has a reference to a tensor of the file. Nothing is pickled, so opening a
checkpoint runs no code. Writing goes to a temporary file beside the target, which then takes
its name: a kill or a full disk leaves the old checkpoint as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tinyvid.errors import UserError

_STATE = "state:"  # prefix of the arrays that are not weights
_REFERENCE = "$array"


@dataclass
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        weights: the network's `state_dict`, as arrays.
        state: anything else: a tree of dicts, lists, numbers, strings and arrays.
    """

    weights: dict[str, np.ndarray]
    state: dict[str, Any] = field(default_factory=dict)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write `content` so that `path` holds either all of it or what it held before.

    Raises:
        UserError: it cannot be written, for instance because the disk is full.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes it private
        os.replace(name, path)
    except OSError as error:
        kept = f"; the earlier {path.name} is intact" if path.exists() else ""
        raise UserError(f"{path} cannot be written: {error.strerror or error}{kept}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        UserError: it cannot be written; what stood there before is intact.
    """
    arrays = {name: _plain(array) for name, array in checkpoint.weights.items()}
    tree = _take_arrays(checkpoint.state, _STATE, arrays)
    # One key only: safetensors writes several in any order, and equal runs give equal files.
    content = save(arrays, metadata={"tinyvid": json.dumps({"format": 1, "state": tree})})
    write_atomically(path, content)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; a safetensors file from elsewhere gives weights and no state.

    Raises:
        UserError: the file is missing, truncated, or not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tree = json.loads(metadata["tinyvid"])["state"] if "tinyvid" in metadata else {}
    except (SafetensorError, ValueError, OSError, KeyError, TypeError) as error:
        raise UserError(
            f"checkpoint {path} cannot be read, it is damaged or truncated: {error}"
        ) from error
    weights = {name: a for name, a in arrays.items() if not name.startswith(_STATE)}
    return Checkpoint(weights, _put_arrays(tree, arrays, path))


def check_weights(
    weights: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], source: str | Path
) -> None:
    """Check that the weights of a file are those of the network that is to load them.

    Raises:
        UserError: names the file and the first keys or shapes that differ.
    """
    missing = [name for name in expected if name not in weights]
    surplus = [name for name in weights if name not in expected]
    wrong = [
        f"{name} is {weights[name].shape} in the file and {expected[name].shape} in the network"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    parts = [
        f"the file lacks {_some(missing)}" if missing else "",
        f"the network has no {_some(surplus)}" if surplus else "",
        _some(wrong) if wrong else "",
    ]
    told = "; ".join(part for part in parts if part)
    if told:
        raise UserError(f"{source} holds the weights of another network: {told}")


def with_counters(
    weights: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the weights with a 0 for every `num_batches_tracked` that they lack.

    Files of other programs often leave these counters out, and no result of a trained network
    depends on them.
    """
    counters = [name for name in expected if name.rpartition(".")[2] == "num_batches_tracked"]
    return {name: np.zeros_like(expected[name]) for name in counters} | dict(weights)


def _some(names: list[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _plain(value: Any) -> np.ndarray:
    """The array of a Tensor or an array, in C order (`ascontiguousarray` would make 0-d 1-d)."""
    array = value.numpy() if hasattr(value, "numpy") else value
    return np.array(array, order="C", copy=None)


def _take_arrays(tree: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return the tree as JSON knows it; its arrays go into `arrays` under their paths."""
    if isinstance(tree, Mapping):
        # Pairs, because the keys of an optimiser's state are ints, which JSON would make strings.
        pairs = [[k, _take_arrays(v, f"{name}{k}/", arrays)] for k, v in tree.items()]
        return {"$dict": pairs}
    if isinstance(tree, list | tuple):
        return [_take_arrays(v, f"{name}{i}/", arrays) for i, v in enumerate(tree)]
    if isinstance(tree, np.ndarray) or hasattr(tree, "numpy"):
        arrays[name.rstrip("/")] = _plain(tree)
        return {_REFERENCE: name.rstrip("/")}
    if isinstance(tree, np.generic):
        return tree.item()
    return tree


def _put_arrays(tree: Any, arrays: Mapping[str, np.ndarray], path: Path) -> Any:
    if isinstance(tree, list):
        return [_put_arrays(v, arrays, path) for v in tree]
    if isinstance(tree, dict) and "$dict" in tree:
        return {k: _put_arrays(v, arrays, path) for k, v in tree["$dict"]}
    if isinstance(tree, dict) and _REFERENCE in tree:
        if tree[_REFERENCE] not in arrays:
            raise UserError(f"checkpoint {path} lacks the array {tree[_REFERENCE]!r}")
        return arrays[tree[_REFERENCE]]
    return tree


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
