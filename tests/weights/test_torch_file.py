"""Files of torch.save: their tensors come out whole, and nothing in them runs."""

import os
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from compare import assert_close
from torch_files import Storage, Tensor, write

from tinyvid.errors import UserError
from tinyvid.weights.torch_file import read_torch_file

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.normal(size=(4, 3, 1, 2, 2)).astype(np.float32),
    "half": RNG.normal(size=3).astype(np.float16),
    "double": RNG.normal(size=(2, 2)),
    "steps": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
}
both = pytest.mark.parametrize("archive", [True, False], ids=["archive", "sequence"])


def tensors():
    return OrderedDict((name, Tensor(array)) for name, array in ARRAYS.items())


@both
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_tensors_come_out_by_name(tmp_path, monkeypatch, archive, key):
    content = {"epoch": 3, "lr": [0.1, None], key: tensors()} if key else tensors()
    found = read_torch_file(write(tmp_path / "w.pth", content, monkeypatch, archive))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert_close(found[name], array, rtol=0, atol=0)
        assert found[name].flags.c_contiguous


@both
def test_views_share_a_storage(tmp_path, monkeypatch, archive):
    numbers = np.arange(24, dtype=np.float32)
    storage = Storage(numbers)
    content = {
        "transposed": Tensor(storage, 0, (6, 4), (1, 6)),
        "part": Tensor(storage, 7, (2, 3), (6, 2)),
        "spread": Tensor(storage, 5, (3,), (0,)),
    }
    found = read_torch_file(write(tmp_path / "w.pth", content, monkeypatch, archive))
    table = numbers.reshape(4, 6)
    assert_close(found["transposed"], table.T.copy(), rtol=0, atol=0)
    assert_close(found["part"], table[1:3, 1::2].copy(), rtol=0, atol=0)
    assert_close(found["spread"], np.full(3, 5, np.float32), rtol=0, atol=0)


def test_bfloat16_is_widened(tmp_path, monkeypatch):
    bits = Storage(np.array([0x3F80, 0xC040, 0x7F80], np.uint16), "BFloat16Storage")
    path = write(tmp_path / "w.pth", {"b": Tensor(bits, 0, (3,), (1,))}, monkeypatch, True)
    assert_close(read_torch_file(path)["b"], np.array([1, -3, np.inf], np.float32), rtol=0, atol=0)


class Harm:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@both
def test_code_is_refused_by_name_and_does_not_run(tmp_path, monkeypatch, archive):
    content = {"a": Tensor(ARRAYS["half"]), "b": Harm(tmp_path / "made")}
    path = write(tmp_path / "w.pth", content, monkeypatch, archive)
    with pytest.raises(UserError, match=r"w\.pth is refused: .* by calling (posix|nt)\.mkdir\."):
        read_torch_file(path)
    assert not (tmp_path / "made").exists()


@both
@pytest.mark.parametrize(
    ("offset", "shape", "strides", "fault"),
    [
        (1, (2, 3), (3, 1), r"shape \(2, 3\) reaches beyond its storage"),
        (0, (2, 3), (4, 1), "reaches beyond"),
        (0, (2,), (-1,), "reaches beyond"),
        (-1, (2,), (1,), "has the strides"),
        (0, (2, 2), (1,), "has the strides"),
    ],
)
def test_a_tensor_beyond_its_storage(tmp_path, monkeypatch, archive, offset, shape, strides, fault):
    tensor = Tensor(Storage(np.zeros(6, np.float32)), offset, shape, strides)
    path = write(tmp_path / "w.pth", {"x": tensor}, monkeypatch, archive)
    with pytest.raises(UserError, match=fault):
        read_torch_file(path)


@both
def test_a_file_cut_short(tmp_path, monkeypatch, archive):
    path = write(tmp_path / "w.pth", tensors(), monkeypatch, archive)
    content = path.read_bytes()
    for length in (0, 1, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"w\.pth"):
            read_torch_file(path)


def test_files_of_other_kinds(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"none\.pth: No such file"):
        read_torch_file(tmp_path / "none.pth")
    for name, content, fault in (
        ("list", [1, 2], "holds a list, not a state_dict"),
        ("numbers", {"a": 1}, "holds no tensors by name"),
    ):
        path = write(tmp_path / name, content, monkeypatch, True)
        with pytest.raises(UserError, match=fault):
            read_torch_file(path)
    script = write(tmp_path / "script.pt", tensors(), monkeypatch, True)
    with zipfile.ZipFile(script, "a") as archive:
        archive.writestr("net/constants.pkl", b"")
    with pytest.raises(UserError, match="TorchScript program"):
        read_torch_file(script)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match=r"without one data\.pkl"):
        read_torch_file(tmp_path / "other.zip")
    big = write(tmp_path / "big.pth", tensors(), monkeypatch, True)
    with zipfile.ZipFile(big) as archive:
        kept = {n: archive.read(n) for n in archive.namelist() if not n.endswith("byteorder")}
    with zipfile.ZipFile(big, "w") as archive:
        for name, content in {**kept, "net/byteorder": b"big"}.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="big-endian"):
        read_torch_file(big)


@both
def test_files_of_pytorch_itself(tmp_path, archive):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 3, 2), torch.nn.BatchNorm3d(3))
    state = network.state_dict()
    state["strided"] = torch.arange(24.0).reshape(4, 6).T[1:, ::2]
    state["bfloat16"] = torch.tensor([1.0, -3.0]).bfloat16()
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    found = read_torch_file(tmp_path / "w.pth")
    assert list(found) == list(state)
    for name, tensor in state.items():
        wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        assert_close(found[name], wide.numpy(), rtol=0, atol=0)
    torch.save(network, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=r"by calling torch\.nn\.modules"):
        read_torch_file(tmp_path / "w.pth")
