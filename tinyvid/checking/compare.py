"""Comparing the backward pass of a function with differences of it, number by number.

The work behind `tinyvid.gradcheck`, whose docstring tells the method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from tinyvid.checking.differences import Derivative, derivative
from tinyvid.checking.pullback import LAYOUTS, ArrayFunction, first, place
from tinyvid.checking.result import Failure, GradcheckResult, Kink
from tinyvid.errors import UserError

# By dtype: the relative tolerance, and the slack as a share of the largest derivative around.
TOLERANCES = {"float64": (1e-8, 1e-9), "float32": (1e-4, 2e-5), "float16": (3e-2, 1e-2)}
DRAWS = 2  # pairs (u, v) in random mode
SMALL_PART = 1e-3  # inputs and outputs with a smaller part in the sum are also taken by themselves
LISTED = 5  # differing elements that are listed for each pair of input and output


class Check:
    """One run of the checker: its numbers, and what it has found so far."""

    def __init__(self, function: ArrayFunction, mode: str, eps, rtol, atol, seed: int):
        self.function, self.rng = function, np.random.default_rng(seed)
        self.arrays, self.results = function.arrays, function.results
        dtypes = [a.dtype for a in [*self.arrays, *self.results]]
        dtype = max(dtypes, key=lambda d: np.finfo(d).eps)
        for other in dtypes:
            if str(other) not in TOLERANCES:
                known = ", ".join(TOLERANCES)
                raise UserError(f"gradients of {other} cannot be checked, only those of {known}")
        step_dtype = np.dtype(np.float64) if self._takes_float64() else dtype
        unit = float(np.finfo(step_dtype).eps)
        step = float(unit**0.2 if eps is None else eps)
        self.result = GradcheckResult(mode, str(dtype), step, str(step_dtype))

        default_rtol, share = TOLERANCES[str(dtype)]
        self.rtol = default_rtol if rtol is None else rtol
        self.atol = 0.0 if atol is None else atol
        self.share = share if atol is None else 0.0
        self.fine = TOLERANCES[str(step_dtype)][0]

        # Rows: the elements of all inputs, or of all outputs, one after the other.
        self.inputs, self.outputs = _Row(self.arrays), _Row(self.results)
        self.point = self.inputs.join(self.arrays)
        self.step_dtype = step_dtype
        self.middle = self.forward(self.point)
        peaks = [np.abs(y).max(initial=0) for y in self.outputs.split(self.middle)]
        self.unit = unit * np.repeat(peaks, [y.size for y in self.results])
        self.analytical: list[list[np.ndarray]] = []  # Jacobians, from full mode
        self.numerical: list[list[np.ndarray]] = []

    def _takes_float64(self) -> bool:
        """Whether the function gives in float64 what it gives in its own dtype, but finer."""
        try:
            wide = self.function([a.astype(np.float64) for a in self.arrays])
        except Exception:  # whatever it is: the function does not take float64
            return False
        return len(wide) == len(self.results) and all(
            w.dtype == np.float64
            and w.shape == y.shape
            and np.allclose(w, y, rtol=1e-2, atol=1e-2 * np.abs(y).max(initial=0))
            for w, y in zip(wide, self.results, strict=True)
        )

    def forward(self, point: np.ndarray) -> np.ndarray:
        """Return the row of outputs for a row of inputs."""
        outs = self.function([x.astype(self.step_dtype) for x in self.inputs.split(point)])
        if [y.shape for y in outs] != [y.shape for y in self.results]:
            raise UserError("the function returned other shapes when it was called again")
        return self.outputs.join(outs)

    def cotangents(self, v: np.ndarray) -> list[np.ndarray]:
        """Return a row as arrays like the outputs."""
        return [g.astype(y.dtype) for g, y in zip(self.outputs.split(v), self.results, strict=True)]

    def backward(self, v: np.ndarray) -> list[np.ndarray | None]:
        return self.function.backward(self.arrays, [self.cotangents(v)])[0]

    def random_row(self) -> np.ndarray:
        """Return a random cotangent, of numbers that every dtype can represent."""
        return self.rng.standard_normal(self.middle.size).astype(np.float16).astype(np.float64)

    def along(self, u: np.ndarray) -> Derivative:
        """Differentiate the outputs as the inputs move along u."""
        line = partial(self._line, u)
        return derivative(line, self.middle, self.result.step, self.unit, self.fine)

    def _line(self, u: np.ndarray, t: float) -> np.ndarray:
        return self.forward(self.point + t * u)

    def full(self) -> None:
        """Compare every element of the Jacobians; check that the backward pass is linear."""
        total, count = self.middle.size, self.point.size
        unit_rows = [self.cotangents(e) for e in np.eye(total)]
        gradients = self.function.backward(self.arrays, unit_rows)
        missing = np.array([[g is None for g in row] for row in gradients])
        missing = missing.reshape(total, len(self.arrays))
        a = np.array([self.inputs.join(row) for row in gradients]).reshape(total, count)
        n, noise, kink = np.zeros((3, total, count))
        for j in range(count):
            u = self._basis(j)
            d = self.along(u)
            n[:, j], noise[:, j], kink[:, j] = d.value / u[j], d.noise / u[j], d.kink
            self._note_kinks(j, d, u[j])
        for i, columns in enumerate(self.inputs.slices):
            self.analytical.append([])
            self.numerical.append([])
            for o, rows in enumerate(self.outputs.slices):
                shape = self.results[o].shape + self.arrays[i].shape
                self.analytical[i].append(a[rows, columns].reshape(shape))
                self.numerical[i].append(n[rows, columns].reshape(shape))
                block = (rows, columns)
                self._compare(block, a[block], n[block], noise[block], kink[block] > 0, missing)
        v = self.random_row()
        got, want = self.inputs.join(self.backward(v)), v @ a
        size = np.abs(v) @ np.abs(a)
        slack = self.rtol * size + self.atol
        for columns in self.inputs.slices:
            slack[columns] += self.share * size[columns].max(initial=0)
        off = np.abs(got - want) > slack  # not so for NaN, which has been found before
        if off.any():
            j = int(np.argmax(off))
            position, element = self._input(j)
            self.fail(
                "linearity",
                "the backward pass is not linear in the cotangent: "
                f"{place('input', position, element)} gets {got[j]:.8g} for a random one, "
                f"{want[j]:.8g} as the sum over its elements",
                input=position,
                element=element,
            )

    def _compare(self, block, a, n, noise, kink, missing) -> None:
        """Compare the Jacobian of one output by one input."""
        result, (rows, columns) = self.result, block
        largest = np.abs(n[~kink]).max(initial=0)
        error = np.where(kink & ~np.isnan(a), 0, np.abs(a - n))
        error[~np.isfinite(error)] = np.inf  # NaN is wrong, and so is infinity
        size = np.maximum(np.abs(a), np.abs(n))
        allowed = self.rtol * size + self.share * largest + self.atol + noise
        bad = (error > 0) & ~(error <= allowed) | np.isinf(error)
        result.checked += int((~kink).sum())
        result.wrong += int(bad.sum())
        self._note_error(error.max(initial=0), largest, noise.max(initial=0))
        for flat in np.argsort(-np.where(bad, error, -1), axis=None)[: min(LISTED, bad.sum())]:
            k, j = (int(m) for m in np.unravel_index(flat, bad.shape))
            row, column = rows.start + k, columns.start + j
            i = self.inputs.find(column)[0]
            self._wrong(column, row, a[k, j], n[k, j], missing[row, i])

    def _note_error(self, error: float, largest: float, noise: float) -> None:
        if error:  # beside derivatives below this floor everything is rounding
            floor = max(largest, noise / self.fine, 1e-300)
            self.result.error = max(self.result.error, float(error / floor))

    def random(self) -> None:
        """Compare <v, J u> with <J'v, u>, where u moves all the inputs at once.

        Where the part of an input in the sum is small, it is then moved by itself; where that of
        an output is, it is then seen by itself.
        """
        columns, rows = slice(0, self.point.size), slice(0, self.middle.size)
        for _ in range(DRAWS if self.point.size else 0):
            by_input, by_output = self._random_direction(columns, rows)
            alone = [(c, rows) for c in _small(self.inputs.slices, by_input)]
            alone += [(columns, r) for r in _small(self.outputs.slices, by_output)]
            for some_columns, some_rows in alone:
                if not self.result.wrong:
                    self._random_direction(some_columns, some_rows)
            if self.result.wrong:  # one fault is located; others show when it is mended
                return

    def _random_direction(self, columns: slice, rows: slice) -> tuple[list[float], list[float]]:
        """Compare once, along a random direction of these inputs, for a random cotangent of these
        outputs; return the parts of each input and each output in the sum."""
        u = _only(self.rng.standard_normal(self.point.size), columns)
        u *= np.maximum(1, np.abs(self.point))
        d = self.along(u)
        if not self.result.kinks:
            self._note_kinks(None, d)
        v = np.where(d.kink, 0, _only(self.random_row(), rows))
        g = self.inputs.join(self.backward(v))
        by_output, by_input = v * np.where(d.kink, 0, d.value), g * u
        largest = max(float(np.abs(p).sum()) for p in (by_input, by_output))
        error = abs(float(by_input.sum() - by_output.sum()))
        noise = float(np.abs(v) @ d.noise)
        self.result.checked += int(not d.kink.all())
        self._note_error(error if error == error else np.inf, largest, noise)
        if not error <= (self.rtol + self.share) * largest + self.atol + noise:
            self.result.wrong += 1
            self._locate(u, v, g)
        return self.inputs.sizes(by_input), self.outputs.sizes(by_output)

    def _locate(self, u: np.ndarray, v: np.ndarray, g: np.ndarray) -> None:
        """Find the elements at fault by halving the direction, and then the cotangent."""

        def by_input(members: np.ndarray) -> float:
            part = _only(u, members)
            d = self.along(part)
            return float((v * np.where(d.kink, 0, d.value)).sum() - (g * part)[members].sum())

        j = _halve(np.flatnonzero(u), by_input)
        unit = self._basis(j)
        d = self.along(unit)
        column = d.value / unit[j]

        def by_output(members: np.ndarray) -> float:
            part = _only(v, members)
            return float((part * column)[members].sum() - self.inputs.join(self.backward(part))[j])

        candidates = np.flatnonzero(~d.kink & (v != 0))
        row = _halve(candidates, by_output) if candidates.size else 0
        gradients = self.backward(_only(v, row))
        a = self.inputs.join(gradients)[j] / v[row] if v[row] else np.nan
        self._wrong(j, row, a, column[row], gradients[self.inputs.find(j)[0]] is None)

    def determinism(self, tolerance: float) -> None:
        """Compare two forwards, and two backwards, of the same numbers."""
        v = self.random_row()
        inputs = [f"the gradient of input {i}" for i in self.function.positions]
        outputs = [f"output {o}" for o in range(len(self.results))]
        for names, once, again in (
            (outputs, self.results, self.function(self.arrays)),
            (inputs, self.backward(v), self.backward(v)),
        ):
            for name, a, b in zip(names, once, again, strict=True):
                if a is None or b is None:
                    continue
                same = (np.abs(a - b) <= tolerance) | (a == b) | (np.isnan(a) & np.isnan(b))
                if not same.all():
                    at = first(~same)
                    self.fail(
                        "nondeterminism",
                        f"two runs on the same numbers give {name} at {list(at)} as {a[at]:.8g} "
                        f"and {b[at]:.8g}; seed inside the function what is random",
                    )

    def layouts(self) -> None:
        """Compare the gradients under arrays of other strides with those under plain ones."""
        v = self.cotangents(self.random_row())
        arrays = [np.array(a, order="C") for a in self.arrays]
        plain = self.function.backward(arrays, [v])[0]
        for name, lay in LAYOUTS.items():
            laid = [lay(a) for a in arrays]
            got = self.function.backward(laid, [[lay(g) for g in v]])[0]
            self._same(f"{name} arrays", got, plain)
        ones = [np.ones(y.shape, y.dtype) for y in self.results]
        broadcast = [np.broadcast_to(y.dtype.type(1), y.shape) for y in self.results]
        plain, got = self.function.backward(arrays, [ones, broadcast])
        self._same("broadcast cotangents", got, plain)

    def _same(self, name: str, got: list, want: list) -> None:
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            position, zeros = self.function.positions[i], np.zeros_like(self.arrays[i])
            a, b = (zeros if g is None else g for g in (a, b))
            slack = self.rtol * np.abs(b) + self.share * np.abs(b).max(initial=0) + self.atol
            same = (np.abs(a - b) <= slack) | (a == b) | (np.isnan(a) & np.isnan(b))
            if not same.all():
                at = first(~same)
                self.fail(
                    "layout",
                    f"{name} give another gradient: {place('input', position, at)} gets "
                    f"{a[at]:.8g} instead of {b[at]:.8g}",
                    input=position,
                    element=at,
                )

    def fail(self, kind: str, text: str, **where: Any) -> None:
        self.result.failures.append(Failure(kind, text, **where))

    def _wrong(self, j: int, row: int, a: float, n: float, missing: bool) -> None:
        """Note that the derivative of output element `row` by input element j differs."""
        position, element = self._input(j)
        o, output_element = self.outputs.find(row)
        kind = "missing" if missing else "gradient" if np.isfinite(a) else "nan"
        told = "none (the graph does not lead there)" if missing else f"{a:.10g}"
        size = max(abs(a), abs(n))
        error = float(abs(a - n) / size) if size else 0.0
        self.fail(
            kind,
            f"derivative of {place('output', o, output_element)} by "
            f"{place('input', position, element)}: analytical {told}, numerical {n:.10g}, relative "
            f"error {error:.3g} (rtol {self.rtol:.2g})",
            input=position,
            element=element,
            output=o,
            output_element=output_element,
            analytical=float(a),
            numerical=float(n),
            error=error,
        )

    def _note_kinks(self, j: int | None, d: Derivative, scale: float = 1) -> None:
        """Note for each output the element with the sharpest kink."""
        jump = np.nan_to_num(np.abs(d.right - d.left), nan=np.inf)
        for rows in self.outputs.slices:
            if d.kink[rows].any():
                row = rows.start + int(np.argmax(np.where(d.kink, jump, -1)[rows]))
                position, element = (None, None) if j is None else self._input(j)
                o, output_element = self.outputs.find(row)
                left, right = float(d.left[row] / scale), float(d.right[row] / scale)
                kink = Kink(position, element, o, output_element, left, right)
                self.result.kinks.append(kink)

    def _input(self, j: int) -> tuple[int, tuple[int, ...]]:
        """Return which argument, and which element of it, stands at j of the row."""
        i, element = self.inputs.find(j)
        return self.function.positions[i], element

    def _basis(self, j: int) -> np.ndarray:
        """Return the direction of element j, longer where the element is large."""
        u = np.zeros(self.point.size)
        u[j] = max(1.0, abs(self.point[j]))
        return u


class _Row:
    """How the elements of several arrays lie in one row of float64."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.shapes = [a.shape for a in arrays]
        ends = np.cumsum([0, *(a.size for a in arrays)]).tolist()
        self.slices = [slice(*pair) for pair in pairwise(ends)]

    def join(self, arrays: Sequence[np.ndarray | None]) -> np.ndarray:
        """Return the row of these arrays; None stands for zeros."""
        row = np.zeros(self.slices[-1].stop)
        for part, array in zip(self.slices, arrays, strict=True):
            if array is not None:
                row[part] = array.ravel()
        return row

    def split(self, row: np.ndarray) -> list[np.ndarray]:
        return [row[s].reshape(shape) for s, shape in zip(self.slices, self.shapes, strict=True)]

    def sizes(self, row: np.ndarray) -> list[float]:
        """Return for each array the sum of the magnitudes of its elements."""
        return [float(np.abs(row[s]).sum()) for s in self.slices]

    def find(self, place: int) -> tuple[int, tuple[int, ...]]:
        """Return which array, and which element of it, stands at a place of the row."""
        i = next(i for i, s in enumerate(self.slices) if place < s.stop)
        index = np.unravel_index(place - self.slices[i].start, self.shapes[i])
        return i, tuple(int(n) for n in index)


def _small(slices: list[slice], parts: list[float]) -> list[slice]:
    """Return those that are not empty and whose part is small beside the largest."""
    limit = SMALL_PART * max(parts)
    return [s for s, p in zip(slices, parts, strict=True) if s.stop > s.start and p < limit]


def _only(row: np.ndarray, members: Any) -> np.ndarray:
    part = np.zeros_like(row)
    part[members] = row[members]
    return part


def _halve(members: np.ndarray, error: Callable[[np.ndarray], float]) -> int:
    """Return the member to which halving by the larger error leads."""
    while members.size > 1:
        halves = np.array_split(members, 2)
        errors = [np.nan_to_num(abs(error(half)), nan=np.inf) for half in halves]
        members = halves[int(np.argmax(errors))]
    return int(members[0])
