"""Comparing the backward pass of a function with differences of it, number by number.

The work behind `tinyvid.gradcheck`, whose docstring tells the method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvid.differences import Derivative, derivative
from tinyvid.errors import UserError
from tinyvid.gradresult import Failure, GradcheckResult, Kink
from tinyvid.pullback import LAYOUTS, ArrayFunction, first, place

# By dtype: the relative tolerance, and the slack as a share of the largest derivative around.
TOLERANCES = {"float64": (1e-8, 1e-9), "float32": (1e-4, 2e-5), "float16": (3e-2, 1e-2)}
DRAWS = 3  # pairs (u, v) of each input in random mode
LISTED = 5  # differing elements that are listed for each pair of input and output


class Check:
    """One run of the checker: its numbers, and what it has found so far."""

    def __init__(self, function: ArrayFunction, mode: str, eps, rtol, atol, seed: int):
        self.function, self.rng = function, np.random.default_rng(seed)
        self.arrays, self.results = function.arrays, function.results
        dtypes = [a.dtype for a in [*self.arrays, *self.results]]
        dtype = max(dtypes, key=lambda d: np.finfo(d).eps)
        step_dtype = np.dtype(np.float64) if self._takes_float64() else dtype
        unit = float(np.finfo(step_dtype).eps)
        step = float(unit**0.2 if eps is None else eps)
        self.result = GradcheckResult(mode, str(dtype), step, str(step_dtype))

        default_rtol, share = TOLERANCES[str(dtype)]
        self.rtol = default_rtol if rtol is None else rtol
        self.atol, self.share = (0.0, share) if atol is None else (atol, 0.0)
        self.settled = (TOLERANCES[str(step_dtype)][0] / 10) ** 0.5

        self.point = [a.astype(step_dtype) for a in self.arrays]
        self.middle = self.forward(self.point)
        sizes = [y.size for y in self.results]
        self.cuts = [int(n) for n in np.cumsum(sizes)[:-1]]  # between outputs in a row
        peaks = [np.abs(part).max(initial=0) for part in np.split(self.middle, self.cuts)]
        self.unit = unit * np.repeat(peaks, sizes)
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

    def forward(self, arrays: list[np.ndarray]) -> np.ndarray:
        """Return the elements of all outputs in one row of float64."""
        outs = self.function(arrays)
        if [y.shape for y in outs] != [y.shape for y in self.results]:
            raise UserError("the function returned other shapes when it was called again")
        return np.concatenate([y.ravel().astype(np.float64) for y in outs])

    def shaped(self, v: np.ndarray) -> list[np.ndarray]:
        """Return a row such as `forward` gives as arrays like the outputs."""
        parts = zip(np.split(v, self.cuts), self.results, strict=True)
        return [part.reshape(y.shape).astype(y.dtype) for part, y in parts]

    def backward(self, v: np.ndarray) -> list[np.ndarray | None]:
        return self.function.backward(self.arrays, [self.shaped(v)])[0]

    def cotangent(self) -> np.ndarray:
        """Return a random row, of numbers that every dtype can represent."""
        return self.rng.standard_normal(self.middle.size).astype(np.float16).astype(np.float64)

    def along(self, i: int, u: np.ndarray) -> Derivative:
        """Differentiate all outputs as input i moves along u."""

        def line(t: float) -> np.ndarray:
            moved = list(self.point)
            moved[i] = (moved[i] + t * u).astype(moved[i].dtype)
            return self.forward(moved)

        return derivative(line, self.middle, self.result.step, self.unit, self.settled)

    def full(self) -> None:
        """Compare every element of the Jacobians; check that the backward pass is linear."""
        total = self.middle.size
        rows = self.function.backward(self.arrays, [self.shaped(e) for e in np.eye(total)])
        v = self.cotangent()
        combined = self.backward(v)
        for i, x in enumerate(self.arrays):
            analytical = np.array([_row(row[i], x) for row in rows]).reshape(total, x.size)
            missing = np.array([row[i] is None for row in rows], bool)
            numerical, noise, kink = np.zeros((3, total, x.size))
            for j in range(x.size):
                u = _basis(x, j)
                scale = u.ravel()[j]
                d = self.along(i, u)
                numerical[:, j], noise[:, j], kink[:, j] = d.value / scale, d.noise / scale, d.kink
                self._note_kinks(i, _index(j, x), d, scale)
            self._compare(i, analytical, numerical, noise, kink.astype(bool), missing)
            got, want = _row(combined[i], x), v @ analytical
            slack = (self.rtol + self.share) * (np.abs(v) @ np.abs(analytical)) + self.atol
            off = np.abs(got - want) > slack  # NaN has been found before
            if off.any():
                j = int(np.argmax(off))
                at = place("input", self.function.positions[i], _index(j, x))
                self.fail(
                    "linearity",
                    f"the backward pass is not linear in the cotangent: {at} gets {got[j]:.8g} "
                    f"for a random one, {want[j]:.8g} as the sum over its elements",
                    input=self.function.positions[i],
                    element=_index(j, x),
                )

    def _compare(self, i, analytical, numerical, noise, kink, missing) -> None:
        """Compare the Jacobians of all outputs by input i, output by output."""
        result, x = self.result, self.arrays[i]
        kept: tuple[list, list] = ([], [])
        blocks = [np.split(rows, self.cuts) for rows in (analytical, numerical, noise, kink)]
        for o, (a, n, rough, corner) in enumerate(zip(*blocks, strict=True)):
            y = self.results[o]
            for jacobians, block in zip(kept, (a, n), strict=True):
                jacobians.append(block.reshape(y.shape + x.shape))
            largest = np.abs(n[~corner]).max(initial=0)
            with np.errstate(invalid="ignore"):
                error = np.where(corner & ~np.isnan(a), 0, np.abs(a - n))
                error[~np.isfinite(error)] = np.inf  # NaN is wrong, and so is inf - inf
                size = np.maximum(np.abs(a), np.abs(n))
                allowed = self.rtol * size + self.share * largest + self.atol + rough
            bad = (error > 0) & ~(error <= allowed) | np.isinf(error)
            result.checked += int((~corner).sum())
            result.wrong += int(bad.sum())
            if error.any():  # below this floor everything is rounding
                floor = np.max(rough, initial=0) / self.settled**2
                result.error = max(result.error, float(error.max() / max(largest, floor, 1e-300)))
            for flat in np.argsort(-np.where(bad, error, -1), axis=None)[: min(LISTED, bad.sum())]:
                k, j = (int(n) for n in np.unravel_index(flat, bad.shape))
                row = k + (self.cuts[o - 1] if o else 0)
                self._wrong(i, j, row, a[k, j], n[k, j], missing[row])
        self.analytical.append(kept[0])
        self.numerical.append(kept[1])

    def random(self) -> None:
        """Compare <v, J u> with <J'v, u>, input by input."""
        for i, x in enumerate(self.arrays):
            for draw in range(DRAWS if x.size else 0):
                u = self.rng.standard_normal(x.shape) * np.maximum(1, np.abs(x))
                d = self.along(i, u)
                if draw == 0:
                    self._note_kinks(i, None, d)
                v = np.where(d.kink, 0, self.cotangent())
                g = _row(self.backward(v)[i], x)
                products = v * np.where(d.kink, 0, d.value), g * u.ravel()
                largest = max(float(np.abs(p).sum()) for p in products)
                error = abs(float(products[1].sum() - products[0].sum()))
                noise = float(np.abs(v) @ d.noise)
                self.result.checked += int(not d.kink.all())
                if error:  # as in `_compare`
                    relative = error / max(largest, noise / self.settled**2, 1e-300)
                    self.result.error = max(self.result.error, relative)
                if not error <= (self.rtol + self.share) * largest + self.atol + noise:
                    self.result.wrong += 1
                    self._locate(i, u.ravel(), v, g)
                    break

    def _locate(self, i: int, u: np.ndarray, v: np.ndarray, g: np.ndarray) -> None:
        """Find the elements at fault by halving the direction, and then the cotangent."""
        x = self.arrays[i]

        def by_input(members: np.ndarray) -> float:
            part = _only(u, members)
            d = self.along(i, part.reshape(x.shape))
            return float((v * np.where(d.kink, 0, d.value)).sum() - (g * part).sum())

        j = _halve(np.arange(x.size), by_input)
        unit = _basis(x, j)
        d = self.along(i, unit)
        column = d.value / unit.ravel()[j]

        def by_output(members: np.ndarray) -> float:
            part = _only(v, members)
            return float((part * column)[members].sum() - _row(self.backward(part)[i], x)[j])

        candidates = np.flatnonzero(~d.kink & (v != 0))
        if not candidates.size:  # the fault shows in company only
            self.fail("gradient", f"gradient of input {self.function.positions[i]} is wrong")
            return
        row = _halve(candidates, by_output)
        gradient = self.backward(_only(v, np.array([row])))[i]
        a = _row(gradient, x)[j] / v[row]
        self._wrong(i, j, row, a, column[row], gradient is None)

    def determinism(self, tolerance: float) -> None:
        """Compare two forwards, and two backwards, of the same numbers."""
        v = self.cotangent()
        inputs = [f"the gradient of input {i}" for i in self.function.positions]
        outputs = [f"output {o}" for o in range(len(self.results))]
        for names, once, again in (
            (outputs, self.results, self.shaped(self.forward(self.arrays))),
            (inputs, self.backward(v), self.backward(v)),
        ):
            for name, a, b in zip(names, once, again, strict=True):
                if a is None or b is None:
                    continue
                with np.errstate(invalid="ignore"):
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
        v, arrays = self.shaped(self.cotangent()), [np.array(a, order="C") for a in self.arrays]
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
            position, b = self.function.positions[i], _array(b, self.arrays[i])
            a = _array(a, self.arrays[i])
            with np.errstate(invalid="ignore"):
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

    def _wrong(self, i: int, j: int, row: int, a: float, n: float, missing: bool) -> None:
        """Note that the derivative of element `row` by element j of input i differs."""
        position, element = self.function.positions[i], _index(j, self.arrays[i])
        o, output_element = self._output(row)
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

    def _note_kinks(self, i: int, element: tuple | None, d: Derivative, scale: float = 1) -> None:
        """Note for each output the element with the sharpest kink."""
        with np.errstate(invalid="ignore"):
            jump = np.nan_to_num(np.abs(d.right - d.left), nan=np.inf)
        for part in np.split(np.arange(d.kink.size), self.cuts):
            if d.kink[part].any():
                row = part[np.argmax(np.where(d.kink, jump, -1)[part])]
                sides = float(d.left[row] / scale), float(d.right[row] / scale)
                kink = Kink(self.function.positions[i], element, *self._output(row), *sides)
                self.result.kinks.append(kink)

    def _output(self, row: int) -> tuple[int, tuple[int, ...]]:
        """Return which output, and which element of it, stands at `row` of `forward`."""
        o = int(np.searchsorted(self.cuts, row, side="right"))
        return o, _index(row - (self.cuts[o - 1] if o else 0), self.results[o])


def _index(flat: int, like: np.ndarray) -> tuple[int, ...]:
    return tuple(int(n) for n in np.unravel_index(int(flat), like.shape))


def _array(g: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    return np.zeros_like(like) if g is None else g


def _row(g: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    """Return a gradient as a row of float64; none is zero."""
    return _array(g, like).ravel().astype(np.float64)


def _basis(x: np.ndarray, j: int) -> np.ndarray:
    """Return the direction of element j, longer where the element is large."""
    u = np.zeros(x.shape)
    u.flat[j] = max(1.0, abs(float(x.flat[j])))
    return u


def _only(row: np.ndarray, members: np.ndarray) -> np.ndarray:
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
