"""Flow in colours: the hue is the direction, the saturation the length.

The colours are those of Baker et al., "A Database and Evaluation Methodology for Optical Flow"
(2011), section 4: a circle of 55 hues, more of them where the eye tells more apart.
"""

from __future__ import annotations

import numpy as np

from tinyvid.errors import UserError

# From each colour to the next, in so many steps: red, yellow, green, cyan, blue, magenta, red.
STEPS = (15, 6, 4, 11, 13, 6)
CORNERS = np.array(
    [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0)], np.float64
)


def wheel() -> np.ndarray:
    """Return the circle of hues, float64 (55, 3) from 0 to 1, beginning with red."""
    parts = [
        start + (end - start) * np.arange(steps)[:, None] / steps
        for start, end, steps in zip(CORNERS[:-1], CORNERS[1:], STEPS, strict=True)
    ]
    return np.concatenate(parts)


def colours(flow: np.ndarray, full: float | None = None) -> np.ndarray:
    """Return a picture of a flow (2, H, W), uint8 (H, W, 3) RGB.

    White does not move; displacements of `full` pixels (the longest one, if None) have their
    direction's full colour, and longer ones are darker. To the right is red, down yellow, to the
    left cyan, up violet. Black is unknown: not finite, or beyond 1e9 as in Middlebury's files.

    Raises:
        UserError: the shape is another, or `full` is not above 0.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise UserError(f"a flow is 2 H W, not {flow.shape}")
    with np.errstate(invalid="ignore"):
        known = (np.abs(flow) < 1e9).all(axis=0)
    u, v = np.where(known, flow, 0).astype(np.float64)
    length = np.hypot(u, v)
    if full is None:
        full = float(length.max(initial=0)) or 1.0
    if not full > 0:
        raise UserError(f"full={full}: pixels that have full colour, more than 0")
    hues = wheel()
    # as the paper's program: 0 is to the left, and -pi to the right, where the circle begins
    where = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(hues) - 1)
    below = where.astype(np.int64)
    part = (where - below)[..., None]
    hue = (1 - part) * hues[below] + part * hues[(below + 1) % len(hues)]
    share = (length / full)[..., None]
    picture = np.where(share <= 1, 1 - share * (1 - hue), 0.75 * hue)
    picture[~known] = 0
    return np.floor(255 * picture).astype(np.uint8)
