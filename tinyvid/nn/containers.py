"""Modules that hold other modules in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from tinyvid.nn.joined import run_first
from tinyvid.nn.module import Module

Self = TypeVar("Self", bound="_Ordered")


class _Ordered(Module):
    """The children in the order in which they were added, by index as a list has them."""

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self: Self, index: slice) -> Self: ...
    @overload
    def __getitem__(self, index: int) -> Module: ...
    def __getitem__(self, index: int | slice) -> Module:
        """Return the child at `index`, or for a slice a container of those children."""
        chosen = list(self.named_children())[index]
        return self._part(chosen) if isinstance(chosen, list) else chosen[1]

    def _part(self: Self, chosen: list[tuple[str, Module]]) -> Self:
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        """Put another module in the place, and under the name, of the child at `index`."""
        name, _ = list(self.named_children())[index]
        vars(self)[name] = module

    def append(self, module: Module) -> None:
        """Add a module at the end; it is called by its index."""
        self.add_module(str(len(self)), module)


class Sequential(_Ordered):
    """Modules run one after the other, each on the output of the one before.

    Args:
        modules: the modules, called "0", "1", ...; or a single mapping of names to modules.
        named: modules by name, after those.

    `Sequential(Conv3d(3, 12, 3), ReLU())` and `Sequential(conv1=Conv3d(3, 12, 3), relu1=ReLU())`
    are the same network; the names appear in `state_dict`.

    A convolution, its ReLU and its pooling run as one operation, with results that are the same to
    rounding, unless a hook, or a `forward` put in the place of a module's own, looks between them.
    """

    def __init__(self, *modules: Module | Mapping[str, Module], **named: Module):
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = {**modules[0], **named}
            modules = ()
        for i, module in enumerate(modules):
            self.add_module(str(i), module)  # type: ignore[arg-type]
        for name, module in named.items():
            self.add_module(name, module)

    def _part(self, chosen: list[tuple[str, Module]]) -> Sequential:
        return Sequential(dict(chosen))  # the children keep their names

    def forward(self, x: Any) -> Any:
        modules = list(self)
        while modules:
            count, x = run_first(modules, x)
            del modules[:count]
        return x


class ModuleList(_Ordered):
    """A list of modules whose parameters belong to the module that holds it.

    It has no `forward`; the module that holds it says how its parts are used.
    """

    def __init__(self, modules: Iterable[Module] = ()):
        self.extend(modules)

    def _part(self, chosen: list[tuple[str, Module]]) -> ModuleList:
        return ModuleList(module for _, module in chosen)

    def extend(self, modules: Iterable[Module]) -> None:
        """Add modules at the end."""
        for module in modules:
            self.append(module)
