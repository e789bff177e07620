"""Weights for pictures as a start for flow: averaged over colours, the rest as it is."""

import numpy as np
import pytest
from compare import assert_close

from tinyvid import models
from tinyvid.checkpoint import Checkpoint, save_checkpoint
from tinyvid.config import load_config
from tinyvid.data import open_data, write_verbs
from tinyvid.errors import UserError
from tinyvid.runs import start_from
from tinyvid.train import Listener, fit

PAIRS = {
    "single_frame": ("temporal_stream", {"width": 2}, (1, 32, 32), (4, 32, 32)),
    "cnn_m_spatial": ("cnn_m_temporal", {"width": 1, "hidden": 4}, (1, 107, 107), (4, 107, 107)),
    "slow_fusion": ("slow_fusion", {"width": 2}, (4, 32, 32), (4, 32, 32)),
}


def weights_of(model):
    return {name: t.numpy() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("name", PAIRS)
def test_the_first_filters_are_averaged_and_the_rest_stays(name, tmp_path):
    other, options, frames, flows = PAIRS[name]
    pictures = weights_of(models.build(name, 5, (3, *frames), **options))
    save_checkpoint(tmp_path / "rgb.safetensors", Checkpoint(pictures, {}))
    model = models.build(other, 7, (2, *flows), **options)
    last = list(weights_of(model))[-2:]
    before, notes = weights_of(model), []
    kept = start_from(model, tmp_path / "rgb.safetensors", True, notes.append)
    assert kept == last  # of other classes
    assert "averaged over the colours" in notes[0]
    by_layer = {".".join(key.split(".")[-2:]): a for key, a in pictures.items()}
    first, *rest = (key for key in weights_of(model) if key not in last)
    for key in rest:
        assert_close(weights_of(model)[key], by_layer[".".join(key.split(".")[-2:])])
    for key in last:
        assert_close(weights_of(model)[key], before[key])
    filters = weights_of(model)[first]
    r, g, b = np.moveaxis(by_layer["conv1.weight"], 1, 0)
    for plane in range(filters.shape[1]):
        assert_close(filters[:, plane], (r + g + b) / 3, rtol=1e-6)


def test_weights_for_flow_are_taken_as_they_are(tmp_path):
    model = models.build("temporal_stream", 5, (2, 4, 32, 32), width=2)
    save_checkpoint(tmp_path / "flow.safetensors", Checkpoint(weights_of(model), {}))
    again, notes = models.build("temporal_stream", 5, (2, 4, 32, 32), width=2), []
    assert start_from(again, tmp_path / "flow.safetensors", True, notes.append) == []
    assert notes == []
    assert_close(weights_of(again)["trunk.conv1.weight"], weights_of(model)["trunk.conv1.weight"])


def test_what_does_not_fit_is_refused(tmp_path):
    rgb = tmp_path / "rgb.safetensors"
    pictures = weights_of(models.build("single_frame", 5, (3, 1, 32, 32), width=2))
    save_checkpoint(rgb, Checkpoint(pictures, {}))
    model = models.build("temporal_stream", 5, (2, 4, 32, 32), width=2)
    with pytest.raises(UserError, match="another network"):
        start_from(model, rgb)  # not asked for
    wide = models.build("temporal_stream", 5, (2, 4, 32, 32), width=4)
    with pytest.raises(UserError, match="another network"):
        start_from(wide, rgb, True)
    one = weights_of(models.build("single_frame", 5, (1, 1, 32, 32), width=2))
    save_checkpoint(rgb, Checkpoint(one, {}))
    with pytest.raises(UserError, match=r"conv1\.weight of shape \(2, 1, 3, 3\) cannot be"):
        start_from(model, rgb, True)


def test_a_training_that_starts_so_says_it(tmp_path):
    write_verbs(tmp_path / "videos", 1, frames=6, size=24)
    rgb = tmp_path / "rgb.safetensors"
    pictures = weights_of(models.build("single_frame", 5, (3, 1, 24, 24), width=2))
    save_checkpoint(rgb, Checkpoint(pictures, {}))

    class Notes(Listener):
        told = ""

        def note(self, text):
            self.told += text

    sizes = ["clip.frames=4", "clip.height=24", "clip.width=24", "model.options.width=2"]
    more = ["data.val_fraction=0", f"data.cache={tmp_path / 'cache'}", "clip.stride=1"]
    named = {"model.name": "temporal_stream", "model.weights": str(rgb), "run.epochs": 1}
    config = load_config(None, [*sizes, *more], {**named, "data.path": str(tmp_path / "videos")})
    notes = Notes()
    fit(config, tmp_path / "run", videos=open_data(tmp_path / "videos"), listener=notes)
    assert "rgb.safetensors was trained on pictures" in notes.told
