"""The settings of TV-L1, with what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from tinyvid.errors import UserError


@dataclass(frozen=True)
class TVL1:
    """How TV-L1 weighs, and how long it works; see `tinyvid.kernels.flow.reference`.

    weight: lambda, of the data against the smoothness; images run from 0 to 255. Smaller is
        smoother.
    theta: how loosely the two halves of the problem are coupled, in pixels; smaller is tighter,
        and slower to converge.
    tau: the step of the dual variable; up to 1/4 it converges (Chambolle 2004).
    levels: of the pyramid, each half as wide as the one below; as many as leave 8 pixels.
    warps: how often a level warps the second image by the flow so far.
    iterations: of the two halves, after each warp.
    medians: passes of a 3×3 median over the flow, after those.

    Raises:
        UserError: a setting out of its range.
    """

    weight: float = 0.25
    theta: float = 0.2
    tau: float = 0.25
    levels: int = 5
    warps: int = 5
    iterations: int = 30
    medians: int = 1

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.type == "float":
                most = 0.25 if one.name == "tau" else math.inf
                if not 0 < value <= most or math.isinf(value):
                    raise UserError(
                        f"{one.name}={value}: a number above 0"
                        + (f", at most {most}" if most < math.inf else "")
                    )
            else:
                least = 0 if one.name == "medians" else 1
                if not isinstance(value, int) or isinstance(value, bool) or value < least:
                    raise UserError(f"{one.name}={value}: an int of at least {least}")


DEFAULT = TVL1()
