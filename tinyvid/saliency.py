"""What a network looks at: which pixels of a clip its answer depends on, found by gradients.

Two maps of a class's score, both float `N T H W` over the clips that were given:

    gradient   how much the score changes with a pixel: max over channels of |d score / d x|
    Grad-CAM   where a layer finds what speaks for the class: its maps A_k, weighted by the mean
               of their gradients, summed, and what is negative left out

               alpha_k = mean over positions of d score / d A_k      cam = relu(sum_k alpha_k A_k)

The gradient is as sharp as the pixels and as noisy; Grad-CAM is as coarse as the layer, and tells
classes apart.

Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks: visualising image
classification models and saliency maps", 2013, section 3. Selvaraju et al., "Grad-CAM: visual
explanations from deep networks via gradient-based localization", ICCV 2017, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyvid import nn
from tinyvid.backward import grad
from tinyvid.errors import UserError
from tinyvid.receptive_field import Window, receptive_fields
from tinyvid.tensor import Tensor
from tinyvid.trace import CONVS, ELEMENTWISE, Step, trace

FEWEST_CELLS = 4  # along height and width, of a layer that shall tell where something is


def gradient_saliency(
    model: nn.Module, clips: np.ndarray, classes: Sequence[int] | None = None
) -> np.ndarray:
    """Return max over channels of |d score / d x|, `N T H W`.

    Args:
        model: from `N C T H W` to scores `N classes`; it is run in evaluation mode.
        clips: float `N C T H W`, as the network takes them: normalised.
        classes: (N,) the class whose score is looked at; by default the one that has most.

    Raises:
        UserError: no such class, or not one for each clip.
    """
    with _evaluation(model):
        x = Tensor(clips, requires_grad=True)
        gx = grad(_score(model(x), classes), x).numpy()
    return np.abs(gx).max(axis=1)


def grad_cam(
    model: nn.Module,
    clips: np.ndarray,
    classes: Sequence[int] | None = None,
    layer: str | None = None,
) -> np.ndarray:
    """Return Grad-CAM, `N T H W`: each cell of the layer drawn at the middle of what it sees.

    Between the middles values are interpolated, beyond the outermost they go on; pixels that no
    cell sees get 0. A layer that runs on each frame has weights alpha of its own for each.

    Args:
        model, clips, classes: as in `gradient_saliency`.
        layer: dotted name of a layer with maps; by default `last_maps`.

    Raises:
        UserError: as `gradient_saliency`; or the network has no such layer, or one without maps.
    """
    clip = clips.shape[1:]
    steps = trace(model, clip)
    layer = last_maps(model, clip) if layer is None else layer
    index = next((i for i, step in enumerate(steps) if step.name == layer), None)
    if index is None:
        raise UserError(f"the network has no layer {layer!r}: it has {_names(steps)}")
    step, field = steps[index], receptive_fields(steps, clip)[index]
    if field is None or len(step.y) < 4:
        raise UserError(f"{layer} has no maps over the clip: choose a convolution, or what follows")
    kept: list[Tensor] = []
    with _evaluation(model), step.module.register_forward_hook(lambda m, x, y: kept.append(y)):
        x = Tensor(clips, requires_grad=True)
        score = _score(model(x), classes)
        maps = kept[0]
        g = grad(score, maps).numpy()
    alpha = g.mean(axis=tuple(range(2, g.ndim)), keepdims=True)
    cam = np.maximum((alpha * maps.numpy()).sum(axis=1), 0)  # (N, T, P, Q), (N·T, P, Q), (N, P, Q)
    cam = cam.reshape(len(clips), -1, *cam.shape[-2:])
    for axis, (size, window, seen) in enumerate(
        zip(clip[1:], field.windows, field.seen, strict=True), start=1
    ):
        cam = _spread(cam, axis, size, window, seen)
    return cam


def last_maps(model: nn.Module, clip: Sequence[int]) -> str:
    """Return the layer that `grad_cam` looks at by default.

    It is the last convolution with maps of at least 4×4 cells, after its normalisation and ReLU;
    in a network of several streams, that of the last one.

    Args:
        clip: `C T H W`.

    Raises:
        UserError: there is none.
    """
    steps = trace(model, clip)
    found = [
        i
        for i, step in enumerate(steps)
        if isinstance(step.module, CONVS) and min(step.y[-2:]) >= FEWEST_CELLS
    ]
    if not found:
        raise UserError("the network has no convolution with maps of at least 4×4 cells")
    last = found[-1]
    while last + 1 < len(steps) and isinstance(steps[last + 1].module, ELEMENTWISE):
        last += 1
    return steps[last].name


def _spread(
    cam: np.ndarray, axis: int, size: int, window: Window, seen: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Stretch an axis of cells to `size` pixels: see `grad_cam`."""
    middles = window.start + (window.size - 1) / 2 + window.jump * np.arange(len(seen))
    pixels = np.arange(size)
    spread = np.apply_along_axis(lambda row: np.interp(pixels, middles, row), axis, cam)
    unseen = (pixels < min(lo for lo, _ in seen)) | (pixels >= max(hi for _, hi in seen))
    np.moveaxis(spread, axis, 0)[unseen] = 0
    return spread


def _score(logits: Tensor, classes: Sequence[int] | None) -> Tensor:
    """Return the sum of the clips' scores; each depends on its own clip alone."""
    n, count = logits.shape
    chosen = logits.numpy().argmax(axis=1) if classes is None else np.asarray(classes)
    if chosen.shape != (n,) or not ((chosen >= 0) & (chosen < count)).all():
        raise UserError(f"classes={chosen.tolist()}: one of 0 to {count - 1} for each of {n} clips")
    return logits[np.arange(n), chosen].sum()


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    before: list[tuple[Any, bool]] = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _names(steps: Sequence[Step]) -> str:
    return ", ".join(step.name for step in steps if len(step.y) >= 4)
