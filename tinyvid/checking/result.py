"""What the gradient checker finds: failures, kinks, and the result that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tinyvid.checking.pullback import place


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong; `str(failure)` tells it.

    Attributes:
        kind: gradient, missing, nan, linearity, layout, nondeterminism, rule, kink or nothing.
        input, output: positions in `inputs` and among the floating-point outputs.
        element, output_element: indices into them, as far as they are known.
        analytical, numerical: the two derivatives; error: |a - n| / max(|a|, |n|).
    """

    kind: str
    text: str
    input: int | None = None
    element: tuple[int, ...] | None = None
    output: int | None = None
    output_element: tuple[int, ...] | None = None
    analytical: float = float("nan")
    numerical: float = float("nan")
    error: float = float("nan")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Kink:
    """A derivative that does not exist: `left` and `right` are the one-sided differences.

    `input` and `element` are None where all inputs moved along a random direction.
    """

    input: int | None
    element: tuple[int, ...] | None
    output: int
    output_element: tuple[int, ...]
    left: float
    right: float

    def __str__(self) -> str:
        by = "along a random direction of the inputs"
        if self.input is not None:
            by = f"by {place('input', self.input, self.element)}"
        return (
            f"kink: {place('output', self.output, self.output_element)} has no derivative {by}: "
            f"{self.left:.6g} from the left, {self.right:.6g} from the right"
        )


@dataclass
class GradcheckResult:
    """What a check found; true if it passed.

    Attributes:
        mode: full or random. dtype: the coarsest dtype involved, which sets the tolerance.
        step, step_dtype: how the differences were taken.
        checked: how many pairs of numbers were compared; wrong: how many of them differ.
        error: the largest |analytical - numerical|, relative to the largest derivative of the
            same input and output.
        failures: what is wrong, of derivatives the worst ones.
        kinks: where there is no derivative; these are not among `checked`.
        analytical, numerical: on request, `[i][o]` is the Jacobian of floating-point output o by
            the i-th checked input, `(*output.shape, *input.shape)`; numerical is NaN at a kink.
    """

    mode: str
    dtype: str
    step: float
    step_dtype: str
    checked: int = 0
    wrong: int = 0
    error: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    kinks: list[Kink] = field(default_factory=list)
    analytical: list[list[np.ndarray]] | None = None
    numerical: list[list[np.ndarray]] | None = None

    @property
    def passed(self) -> bool:
        return not self.failures

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        if self.passed:
            verdict = f"passed: {self.checked} comparisons agree"
        else:
            verdict = f"failed: {self.wrong} of {self.checked} comparisons differ"
        found, most = [*self.failures, *self.kinks], 10
        lines = [
            (
                f"{verdict}, largest relative error {self.error:.3g} ({self.mode} mode, "
                f"{self.dtype}, differences in {self.step_dtype} with step {self.step:.2g})"
            ),
            *(f"  {item}" for item in found[:most]),
        ]
        if len(found) > most:
            lines.append(f"  and {len(found) - most} more")
        return "\n".join(lines)
