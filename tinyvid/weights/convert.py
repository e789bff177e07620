"""A public C3D checkpoint becomes a run or a file of weights; a run becomes ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyvid.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tinyvid.config import Config
from tinyvid.errors import UserError
from tinyvid.inputs import normalisation
from tinyvid.runs import PARTS, Run, build_model, clip_shape, load_weights
from tinyvid.weights.layouts import LAYERS, Layout, recognise, to_ours
from tinyvid.weights.torch_file import read_torch_file

FRAMES, SIDE, SHORT_SIDE = 16, 112, 128  # of the clips that these networks were trained with


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Return the weights of a file of safetensors or of `torch.save`, under the file's names.

    Raises:
        UserError: the file is missing, damaged, of another kind, or would run code.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_checkpoint(path).weights
    if not path.is_file():
        raise UserError(f"weights {path} do not exist")
    return read_torch_file(path)


def convert_run(source: str | Path, target: str | Path) -> None:
    """Write the network of a run as ONNX, with its best weights.

    The file says in its metadata what it was trained with: `classes`, in the order of the scores,
    and `mean` and `std`, for clips (x / 255 - mean) / std, channels red, green, blue, or flow along
    x and y as `tinyvid.flow.sets` has it.

    Raises:
        UserError: as `Run.open` and `export_onnx`; or the target exists.
    """
    from tinyvid.weights.onnx_export import export_onnx

    _check_new(Path(target))
    run = Run.open(source)
    model, _ = run.model(device="cpu")
    mean, std = normalisation(run.config)
    about = {"classes": run.classes, "mean": list(mean), "std": list(std)}
    export_onnx(model, target, clip_shape(run.config), about)


def convert(source: str | Path, target: str | Path, classes: list[str] | None = None) -> Layout:
    """Bring a C3D checkpoint into our layout.

    Args:
        source: the checkpoint; see `tinyvid.weights.layouts` for those that are known.
        target: `NAME.safetensors` for the weights alone, or a folder that does not exist yet: a run
            with these weights, to test and to predict with.
        classes: their names, in the order of the network's scores; "0", "1", … by default.

    Returns:
        The layout that was recognised.

    Raises:
        UserError: the source cannot be read or is of no known layout, the target exists or cannot
            be written, or there are not as many names as classes.
    """
    target = Path(target)
    if target.suffix not in ("", ".safetensors"):
        raise UserError(f"{target}: give NAME.safetensors, or a folder to be made")
    _check_new(target)
    weights = read_weights(source)
    layout = recognise(list(weights), source)
    ours = to_ours(weights, layout, source)
    if target.suffix:
        save_checkpoint(target, Checkpoint(ours))
        return layout
    last = ours.get(f"{LAYERS[-1]}.weight")
    if last is None:
        raise UserError(
            f"{source} lacks {layout.layers[-1]}, so it tells no classes apart: convert it to "
            "NAME.safetensors, to train from"
        )
    names = classes if classes is not None else [str(i) for i in range(len(last))]
    if len(names) != len(last):
        raise UserError(f"{len(names)} names of classes for the {len(last)} of {source}")
    config = _config(ours, layout, source)
    load_weights(build_model(config, len(names)), ours, source)  # finds what does not fit
    run = Run.create(target, config, names, {part: [] for part in PARTS})
    save_checkpoint(run.best, Checkpoint(ours, {"classes": names, "config": config.to_dict()}))
    return layout


def _check_new(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target} exists: choose another name")


def _config(ours: Mapping[str, np.ndarray], layout: Layout, source: object) -> Config:
    """Return the config of a run that makes such a network and feeds it what it is used to."""
    fc6 = ours[f"{LAYERS[-3]}.weight"]
    width = len(ours[f"{LAYERS[0]}.weight"])
    padded = {8 * width * 4 * 4: True, 8 * width * 3 * 3: False}
    if fc6.shape[1] not in padded:
        raise UserError(
            f"{source}: {layout.layers[-3]} takes {fc6.shape[1]} numbers, not the "
            f"{' or '.join(map(str, padded))} of C3D on clips of {SIDE}×{SIDE}"
        )
    config = Config()
    config.model.name = "c3d" if padded[fc6.shape[1]] else "c3d_lecture"
    config.model.options = {"width": width, "hidden": len(fc6)}
    config.data.path = ""  # it was trained elsewhere
    clip = config.clip
    clip.frames, clip.height, clip.width, clip.short_side = FRAMES, SIDE, SIDE, SHORT_SIDE
    clip.stride, clip.fps = 1, None
    # (x / 255 - mean / 255) / (1 / 255) = x - mean
    red, green, blue = (value / 255 for value in layout.mean)
    clip.mean, clip.std = (red, green, blue), (1 / 255, 1 / 255, 1 / 255)
    return config
