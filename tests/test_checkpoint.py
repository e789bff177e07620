import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close
from safetensors.numpy import load_file, save_file

from tinyvid.checkpoint import (
    Checkpoint,
    check_weights,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)
from tinyvid.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def example() -> Checkpoint:
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32).transpose(0, 2, 3, 1),
        "norm.num_batches_tracked": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 3), dtype=np.float32),
    }
    state = {
        "epoch": 3,
        "best": 0.1 + 0.2,
        "optim": {
            "state": {0: {"exp_avg": rng.normal(size=5), "step": np.float64(4.0)}, 1: {}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}],
        },
        "nothing": None,
        "flag": True,
    }
    return Checkpoint(weights, state)


def test_everything_comes_back_as_it_was(tmp_path):
    saved = example()
    save_checkpoint(tmp_path / "a.safetensors", saved)
    got = load_checkpoint(tmp_path / "a.safetensors")
    assert list(got.weights) == sorted(saved.weights)
    for name, array in saved.weights.items():
        assert_close(got.weights[name], array)
    assert_close(
        got.state["optim"]["state"][0]["exp_avg"], saved.state["optim"]["state"][0]["exp_avg"]
    )
    assert got.state["optim"]["state"][0]["step"] == 4.0
    assert got.state["optim"]["state"][1] == {}
    assert got.state["optim"]["param_groups"] == [
        {"lr": 1e-3, "betas": [0.9, 0.999], "params": [0, 1]}
    ]
    assert got.state["best"] == 0.1 + 0.2  # to the bit
    assert got.state["nothing"] is None
    assert got.state["flag"] is True


def test_the_same_content_gives_the_same_bytes(tmp_path):
    save_checkpoint(tmp_path / "a", example())
    save_checkpoint(tmp_path / "b", example())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_readers_find_the_weights_under_their_own_names(tmp_path):
    saved = example()
    save_checkpoint(tmp_path / "a.safetensors", saved)
    assert_close(load_file(tmp_path / "a.safetensors")["conv.weight"], saved.weights["conv.weight"])


def test_weights_from_elsewhere_load_without_state(tmp_path):
    save_file({"fc.weight": np.ones((2, 2), np.float32)}, tmp_path / "a.safetensors")
    got = load_checkpoint(tmp_path / "a.safetensors")
    assert got.state == {}
    assert_close(got.weights["fc.weight"], np.ones((2, 2), np.float32))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, example())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"a\.safetensors cannot be read, it is damaged"):
        load_checkpoint(path)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.safetensors does not exist"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, example())
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device; the earlier a\.safetensors is"):
        save_checkpoint(path, Checkpoint({"w": np.zeros(3, np.float32)}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]  # no temporary file is left


def test_a_write_cut_short_leaves_the_old_checkpoint(tmp_path):
    # A limit on the size of files fails a write half-way, as a full disk does.
    script = """
import resource, sys
import numpy as np
from tinyvid.checkpoint import Checkpoint, save_checkpoint
save_checkpoint(sys.argv[1], Checkpoint({"w": np.ones(3, np.float32)}))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save_checkpoint(sys.argv[1], Checkpoint({"w": np.ones(100_000, np.float32)}))
"""
    path = tmp_path / "a.safetensors"
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert "UserError" in run.stderr
    assert "File too large; the earlier a.safetensors is intact" in run.stderr
    assert_close(load_checkpoint(path).weights["w"], np.ones(3, np.float32))
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"missing/a cannot be written: No such file"):
        write_atomically(tmp_path / "missing" / "a", b"x")


def test_the_file_has_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_another_network_is_named_by_its_first_differences():
    network = {"a": np.zeros((2, 3)), "b": np.zeros(4), "c": np.zeros(1)}
    check_weights({k: v + 1 for k, v in network.items()}, network, "best.safetensors")
    with pytest.raises(UserError, match=r"best\.safetensors holds .* the file lacks b, c; .* no d"):
        check_weights({"a": np.zeros((2, 3)), "d": np.zeros(1)}, network, "best.safetensors")
    with pytest.raises(UserError, match=r"a is \(3, 2\) in the file and \(2, 3\) in the network"):
        check_weights({**network, "a": np.zeros((3, 2))}, network, "best.safetensors")
    many = {f"w{i}": np.zeros(1) for i in range(9)}
    with pytest.raises(UserError, match=r"lacks w0, w1, w2 and 6 more"):
        check_weights({}, many, "x")
