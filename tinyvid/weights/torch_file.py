"""Files of `torch.save`, read without PyTorch and without running code.

Such a file is a pickle beside the bytes of its tensors. A pickle is a program: it may name any
function and have it called. The unpickler here knows by name the few that a tensor is made of, puts
our own in their place, and refuses every other, so that a file can make nothing but dicts, lists,
numbers, strings and arrays.

Both forms are read: the ZIP archive of PyTorch 1.6 and later, and the sequence of pickles before
it. Bytes come last in the latter, so tensors are put together once all has been read.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tinyvid.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C  # the first number of a file of the older form
# What a storage's class says of its numbers. NumPy has no bfloat16: it is widened afterwards.
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file of `torch.save` by name, as arrays in C order.

    The file holds a state dict, or a dict that holds one under "state_dict", "model_state_dict" or
    "model", as training programs write them.

    Raises:
        UserError: the file is missing, damaged or of another kind; it would run code, which the
            message names; or it holds no state dict.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = _read_zip(file) if zipfile.is_zipfile(file) else _read_sequence(file)
        return {name: tensor.array() for name, tensor in _state_dict(content, path).items()}
    except _Refused as error:
        raise UserError(
            f"{path} is refused: it would run code, by calling {error}. If you trust where it "
            "comes from, load it with PyTorch and save the network's state_dict alone"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except _Damaged as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except UserError:
        raise
    except Exception as error:  # an unpickler fails in as many ways as there are wrong bytes
        raise UserError(
            f"{path} cannot be read: it is no file of torch.save, or damaged ({error})"
        ) from error


class _Refused(Exception):
    """A pickle names something that is no part of a tensor."""


class _Damaged(Exception):
    """A file of torch.save that does not hold together."""


@dataclass
class _Storage:
    """The numbers of one or more tensors, in a row; filled in when their bytes are read."""

    kind: str
    size: int
    numbers: np.ndarray | None = None

    def fill(self, content: bytes) -> None:
        dtype = np.dtype(_DTYPES[self.kind])
        if len(content) < self.size * dtype.itemsize:
            raise _Damaged(f"it ends within a storage of {self.size} numbers")
        numbers = np.frombuffer(content, dtype, self.size)
        if self.kind == "BFloat16Storage":  # the upper half of a float32
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        self.numbers = numbers


class _Tensor(NamedTuple):
    """Where a tensor's elements stand in its storage; offsets and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        numbers = self.storage.numbers
        if numbers is None:
            raise _Damaged("a tensor's numbers are missing")
        if len(self.shape) != len(self.strides) or min((self.offset, *self.shape, 0)) < 0:
            raise _Damaged(f"a tensor of shape {self.shape} has the strides {self.strides}")
        if 0 in self.shape:
            return np.empty(self.shape, numbers.dtype)
        steps = [(n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        if min(self.strides, default=0) < 0 or self.offset + sum(steps) >= len(numbers):
            raise _Damaged(f"a tensor of shape {self.shape} reaches beyond its storage")
        view = np.lib.stride_tricks.as_strided(
            numbers[self.offset :],
            self.shape,
            tuple(stride * numbers.itemsize for stride in self.strides),
            writeable=False,
        )
        return np.array(view, order="C")


class _Kind(str):
    """The class of a storage, as a pickle names it."""


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """Stand in for `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`."""
    return _Tensor(storage, int(offset), tuple(shape), tuple(strides))


def _parameter(tensor: _Tensor, *rest: Any) -> _Tensor:
    """Stand in for `torch._utils._rebuild_parameter`."""
    return tensor


def _size(shape: Any = ()) -> tuple[int, ...]:
    """Stand in for `torch.Size`."""
    return tuple(shape)


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that can make nothing but tensors, containers and plain values.

    Args:
        storages: by their keys; filled as the pickle names them.
    """

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage]):
        super().__init__(file, encoding="latin1")  # as Python 2 wrote them
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _Kind(name)
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        label, kind, key, _, size = pid[:5]
        if label != "storage" or not isinstance(kind, _Kind) or any(pid[5:]):
            raise _Damaged(f"a storage is given as {pid!r}")
        return self.storages.setdefault(str(key), _Storage(str(kind), int(size)))


def _read_zip(file: BinaryIO) -> Any:
    """Read an archive: NAME/data.pkl, and the bytes of each storage in NAME/data/KEY."""
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Damaged("it is a ZIP archive without one data.pkl, so not of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if folder + "constants.pkl" in archive.namelist():
            raise _Damaged("it is a TorchScript program; save the state_dict of the network")
        order = folder + "byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise _Damaged("its numbers are big-endian")
        storages: dict[str, _Storage] = {}
        content = _Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        for key, storage in storages.items():
            storage.fill(archive.read(f"{folder}data/{key}"))
        return content


def _read_sequence(file: BinaryIO) -> Any:
    """Read pickles in a row (a magic number, a version, the machine, the content, the keys of the
    storages) and then, for each key, the count of its numbers and their bytes."""
    file.seek(0)
    storages: dict[str, _Storage] = {}

    def load() -> Any:
        return _Unpickler(file, storages).load()

    if load() != _MAGIC:
        raise _Damaged("it is a pickle, but not of torch.save")
    load()  # the version of the form, always 1001
    if not load().get("little_endian", True):
        raise _Damaged("its numbers are big-endian")
    content = load()
    for key in load():
        storage = storages[str(key)]
        if file.read(8) != storage.size.to_bytes(8, "little"):
            raise _Damaged("a storage is not as long as its tensors say")
        storage.fill(file.read(storage.size * np.dtype(_DTYPES[storage.kind]).itemsize))
    return content


def _state_dict(content: Any, path: Path) -> Mapping[str, _Tensor]:
    """Return the tensors by name, wherever the dict that holds them lies."""
    for inner in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(inner), Mapping):
            content = content[inner]
            break
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state_dict")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, _Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name: save the network's state_dict")
    return tensors
