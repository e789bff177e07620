"""What all optimisers share: parameter groups, the walk over the arrays, and saved state.

Tensors are immutable in memory, so a step gives each parameter a new array, and whoever
holds the old one (a `state_dict`, a graph) is not disturbed. That array is all that a step
allocates for each parameter; the optimiser's own state is updated in place. An update walks
over all its arrays together, in pieces small enough to stay in the cache from one line of
the formula to the next, so that each array passes through memory once; large arrays on the CPU
are updated by compiled loops on all threads, see `tinyvid.kernels.updates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinyvid.device import on_device_of, to_device
from tinyvid.errors import UserError, nearest
from tinyvid.kernels.memory import empty
from tinyvid.tensor import Tensor, freeze

# Elements: six arrays of float32 are 384 KiB, within a core's second cache.
PIECE = 1 << 14
LARGE = 1 << 16  # elements from which on compiled loops pay

Group = dict[str, Any]
Arrays = dict[str, np.ndarray]


class Optimizer:
    """Updates parameters by their gradients; a subclass says how one piece is updated.

    Args:
        params: the parameters, or groups of them: dicts with "params" and, where they differ
            from the defaults, hyperparameters such as "lr" and "weight_decay".
        defaults: the hyperparameters, by name.

    Attributes:
        param_groups: a dict for each group: "params" (a list) and every hyperparameter.
            Assigning `group["lr"] = 0.01` takes effect at the next step.

    Raises:
        UserError: no parameters, one given twice, a hyperparameter that does not exist or is out
            of range.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[Group], defaults: Group):
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self._state: dict[int, Arrays] = {}  # by the parameter's number over all groups
        self._steps: dict[int, int] = {}
        given: list[Any] = [params] if isinstance(params, (Tensor, Mapping)) else list(params)
        if not given:
            raise UserError(f"{type(self).__name__}: there are no parameters to optimise")
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimise further parameters, with their own hyperparameters; see the class."""
        name = type(self).__name__
        for key in group:
            if key not in (*self.defaults, "params"):
                hint = nearest(key, self.defaults)
                raise UserError(f"{name} has no hyperparameter {key!r}.{hint}")
        if "params" not in group:
            raise UserError(f"{name}: a parameter group needs 'params'")
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        seen = {id(p) for p in self._params()}
        for p in params:
            if not isinstance(p, Tensor) or not p.is_leaf:
                raise UserError(f"{name}: a parameter must be a leaf tensor, not {p!r:.60}")
            if id(p) in seen:
                raise UserError(f"{name}: a parameter of shape {p.shape} is given twice")
            seen.add(id(p))
        full = {**self.defaults, **group, "params": params}
        self._check(full)
        self.param_groups.append(full)

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self._params():
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        number = -1
        for group in self.param_groups:
            for p in group["params"]:
                number += 1
                if p.grad is None:
                    continue
                state = self._state.setdefault(number, {})
                for name in self._state_names(group):
                    if name not in state:
                        state[name] = np.zeros_like(p.data, order="C")
                self._steps[number] = self._steps.get(number, 0) + 1
                self._step_one(group, self._steps[number], p, state)

    def _step_one(self, group: Group, step: int, p: Tensor, state: Arrays) -> None:
        assert p.grad is not None
        if p.device == "cpu" and p.size >= LARGE and self._has_large():
            new = empty(p.shape, p.dtype)
            arrays = [a.reshape(-1) for a in (new, p.data, p.grad.data)]
            self._update_large(group, step, arrays, {k: a.reshape(-1) for k, a in state.items()})
            p._array = freeze(new)
            return
        new = np.empty_like(p.data, order="C")
        piece = PIECE if p.device == "cpu" else p.size
        scratch = np.empty_like(new.reshape(-1)[:piece])
        flat = [a.reshape(-1) for a in (new, p.data, p.grad.data, *state.values())]
        for start in range(0, p.size, piece):
            pieces = [a[start : start + piece] for a in flat]
            held = dict(zip(state, pieces[3:], strict=True))
            self._update(group, step, pieces[0], pieces[1], pieces[2], held, scratch)
        p._array = freeze(new)  # not `copy_`, which would copy it once more

    def _has_large(self) -> bool:
        """Return whether `_update_large` belongs to `_update`: a subclass may define that alone."""
        rules = ("_update", "_update_large")
        definer = next(c for c in type(self).__mro__ if any(rule in vars(c) for rule in rules))
        return definer is not Optimizer and "_update_large" in vars(definer)

    def _params(self) -> Iterator[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    # What a subclass defines

    def _check(self, group: Group) -> None:
        """Raise UserError if a hyperparameter is out of range."""
        for key, value in group.items():
            if isinstance(value, float | int) and not value >= 0:
                raise UserError(f"{type(self).__name__}: {key}={value!r} must not be negative")

    def _state_names(self, group: Group) -> tuple[str, ...]:
        """Return the names of the arrays kept from step to step; they start as zeros."""
        raise NotImplementedError

    def _update(
        self,
        group: Group,
        step: int,
        new: np.ndarray,
        p: np.ndarray,
        g: np.ndarray,
        state: Arrays,
        scratch: np.ndarray,
    ) -> None:
        """Write the updated `p` into `new`, and update `state`, for one flat piece.

        `step` counts from 1. `scratch`, at least as long as the piece, may be written to, and
        so may `new` before its final values.
        """
        raise NotImplementedError

    def _update_large(
        self, group: Group, step: int, arrays: list[np.ndarray], state: Arrays
    ) -> None:
        """The same of a large parameter on the CPU, all at once: the new one, p and g, flat.

        Optional. It is not called where a subclass defines another `_update` without it.
        """
        raise NotImplementedError

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the state so that arrays and plain values can be saved apart.

        Returns:
            "state": arrays by "<parameter's number>.<name>", such as "0.exp_avg" and "0.step";
            "param_groups": the hyperparameters of each group, with the numbers of its parameters
            under "params". Parameters are numbered in the order in which they were given.
        """
        arrays: Arrays = {}
        for number, state in self._state.items():
            arrays[f"{number}.step"] = np.array(self._steps[number], np.int64)
            for name, array in state.items():
                arrays[f"{number}.{name}"] = to_device(array, "cpu").copy()
        numbers = iter(range(sum(1 for _ in self._params())))
        groups = [
            {**group, "params": [next(numbers) for _ in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": arrays, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state that an optimiser of the same parameters returned.

        Raises:
            UserError: the groups, the names or the shapes differ; then nothing is loaded.
        """
        name, params = type(self).__name__, list(self._params())
        loaded = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in loaded]
        own = [len(group["params"]) for group in self.param_groups]
        if sizes != own:
            raise UserError(f"{name}: groups of {sizes} parameters were saved, there are {own}")
        groups = []
        for group, saved in zip(self.param_groups, loaded, strict=True):
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
            if unknown := [k for k in values if k not in group]:
                raise UserError(f"{name} has no hyperparameter {unknown[0]!r}")
            groups.append({**group, **values, "params": group["params"]})
            self._check(groups[-1])
        steps: dict[int, int] = {}
        states: dict[int, Arrays] = {}
        for key, value in state_dict["state"].items():
            number, _, kind = key.partition(".")
            if not number.isdigit() or int(number) >= len(params):
                raise UserError(f"{name}: {key!r} belongs to none of the {len(params)} parameters")
            if kind == "step":
                steps[int(number)] = int(value)
            else:
                # C order, because a step walks over flat views
                array = on_device_of(params[int(number)].data, np.array(value, order="C"))
                states.setdefault(int(number), {})[kind] = array
        groups_of = [group for group in groups for _ in group["params"]]
        for number in {**steps, **states}:
            p, state = params[number], states.setdefault(number, {})
            wanted = dict.fromkeys(self._state_names(groups_of[number]), (p.shape, p.dtype))
            got = {kind: (a.shape, a.dtype) for kind, a in state.items()}
            if number not in steps or got != wanted:
                raise UserError(
                    f"{name}: the state of parameter {number} must be step and {wanted}, not {got}"
                )
        self.param_groups[:] = groups
        self._steps, self._state = steps, states
