"""Files as `torch.save` writes them, in both of its forms, without PyTorch."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

_KINDS = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<f2": "HalfStorage", "<i8": "LongStorage"}


class Storage:
    """Numbers in a row; `kind` is the name of their class in PyTorch."""

    def __init__(self, numbers: np.ndarray, kind: str | None = None):
        self.numbers = numbers
        self.kind = kind or _KINDS[numbers.dtype.str]


class Tensor:
    """A view of a storage; by default all of an array."""

    def __init__(self, array: Any, offset: int = 0, shape: Any = None, strides: Any = None):
        if not isinstance(array, Storage):
            array = np.array(array, order="C")
            strides = [s // array.itemsize for s in array.strides]
            shape = array.shape
            array = Storage(array.reshape(-1))
        self.storage, self.offset = array, offset
        self.shape, self.strides = tuple(shape), tuple(strides)

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (self.storage, self.offset, self.shape, self.strides, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def __init__(self, file: Any, storages: dict[str, Storage], view: tuple):
        super().__init__(file, protocol=2)
        self.storages, self.view = storages, view

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, Storage):
            return None
        key = str(id(thing))
        self.storages[key] = thing
        kind = getattr(sys.modules["torch"], thing.kind)
        return ("storage", kind, key, "cpu", len(thing.numbers), *self.view)


def write(path: Path, content: Any, monkeypatch: Any, archive: bool) -> Path:
    """Write content with `Tensor`s in it, as an archive or in the older form."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in (*_KINDS.values(), "BFloat16Storage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*args: Any) -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    storages: dict[str, Storage] = {}
    file = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        if not archive:
            for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
                pickle.dump(part, file, protocol=2)
        _Pickler(file, storages, () if archive else (None,)).dump(content)
    if archive:
        with zipfile.ZipFile(path, "w") as target:
            target.writestr("net/data.pkl", file.getvalue())
            target.writestr("net/byteorder", "little")
            for key, storage in storages.items():
                target.writestr(f"net/data/{key}", storage.numbers.tobytes())
        return path
    pickle.dump(list(storages), file, protocol=2)
    for storage in storages.values():
        file.write(struct.pack("<q", len(storage.numbers)) + storage.numbers.tobytes())
    path.write_bytes(file.getvalue())
    return path
