"""Files of flow come back as they were, and say what is wrong with them."""

import struct

import numpy as np
import pytest
from compare import assert_close

from tinyvid.errors import UserError
from tinyvid.flow import FloWriter, NpzWriter, read_flo, read_npz, write_flo


def some(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


def test_flo_by_hand(tmp_path):
    path = tmp_path / "a.flo"
    write_flo(path, np.arange(12.0).reshape(2, 2, 3))
    numbers = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]  # u and v of each pixel, row by row
    assert path.read_bytes() == struct.pack("<fii12f", 202021.25, 3, 2, *numbers)
    assert_close(read_flo(path), np.arange(12, dtype=np.float32).reshape(2, 2, 3))


def test_unknown_pixels_are_nan(tmp_path):
    flow = some(2, 3, 4)
    flow[0, 1, 2] = np.nan
    write_flo(tmp_path / "a.flo", flow)
    back = read_flo(tmp_path / "a.flo")
    unknown = np.isnan(back)
    assert unknown.sum() == 2
    assert unknown[:, 1, 2].all()
    assert_close(np.nan_to_num(back[1]), np.where(np.isnan(flow[0]), 0, flow[1]))


def test_the_ground_truth_of_middlebury(shared_data):
    flow = read_flo(shared_data / "rubberwhale" / "flow10.flo")
    assert flow.shape == (2, 388, 584)
    assert 0 < np.isnan(flow).mean() < 0.05
    assert np.nanmax(np.abs(flow)) < 10


def test_a_folder_of_flo_files(tmp_path):
    writer = FloWriter(tmp_path / "flows")
    flows = some(3, 2, 4, 5)
    for flow in flows:
        writer.add(flow)
    writer.close()
    names = sorted(p.name for p in (tmp_path / "flows").iterdir())
    assert names == ["000000.flo", "000001.flo", "000002.flo"]
    assert_close(read_flo(tmp_path / "flows" / "000002.flo"), flows[2])


def written(path, flows, bound=None):
    writer = NpzWriter(path, flows.shape, bound)
    for flow in flows:
        writer.add(flow)
    writer.close()
    return path


def test_npz_loses_nothing(tmp_path):
    flows = some(5, 2, 7, 3)
    path = written(tmp_path / "a.npz", flows)
    assert_close(read_npz(path), flows)
    with np.load(path) as archive:  # as any other program reads it
        assert_close(archive["flow"], flows)
        assert float(archive["bound"]) == 0


def test_bytes_are_wrong_by_no_more_than_half_a_step(tmp_path):
    flows = some(4, 2, 20, 20)
    flows[0, 0, 0, :5] = (8, -8, 100, -100, 0)
    back = read_npz(written(tmp_path / "a.npz", flows, bound=8.0))
    assert back.dtype == np.float32
    assert np.abs(back - flows.clip(-8, 8)).max() <= 8 / 254 + 1e-6
    assert_close(back[0, 0, 0, :5], np.array([8, -8, 8, -8, 0], np.float32), atol=1e-6)
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["flow"].dtype == np.uint8


def test_files_that_hold_no_flow(tmp_path):
    good = tmp_path / "good.flo"
    write_flo(good, some(2, 3, 4))
    whole = good.read_bytes()
    for name, data, message in (
        ("text", b"hello", "begins with b'hell'"),
        ("empty", b"", "no .flo file"),
        ("head", whole[:8], "damaged: 8 bytes"),
        ("cut", whole[:-1], "where a flow of 4 by 3 pixels has 108"),
        ("long", whole + b"0", "damaged: 109 bytes"),
        ("negative", whole[:4] + struct.pack("<ii", -4, -3) + whole[12:], "damaged"),
    ):
        path = tmp_path / f"{name}.flo"
        path.write_bytes(data)
        with pytest.raises(UserError, match=message) as caught:
            read_flo(path)
        assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        read_flo(tmp_path / "none.flo")
    with pytest.raises(UserError, match="No such file"):
        write_flo(tmp_path / "none" / "a.flo", some(2, 3, 4))
    with pytest.raises(UserError, match=r"a flow is 2 H W, not \(3, 4\)"):
        write_flo(good, some(3, 4))
    with pytest.raises(UserError, match="bound=0"):
        NpzWriter(tmp_path / "a.npz", (1, 2, 3, 3), 0.0)
    path = written(tmp_path / "b.npz", some(2, 2, 3, 3))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="holds no flow, or is damaged"):
        read_npz(path)
    np.savez(tmp_path / "c.npz", other=np.zeros(3))
    with pytest.raises(UserError, match="holds no flow"):
        read_npz(tmp_path / "c.npz")
    np.save(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(UserError, match="holds no flow"):
        read_npz(tmp_path / "d.npy")
    with pytest.raises(UserError, match="cannot be read"):
        read_npz(tmp_path / "none.npz")
