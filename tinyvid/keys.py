"""The keys of a configuration: fields that explain themselves and check what they are given."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import Field, field, fields
from typing import Any

import tomli_w

from tinyvid.errors import UserError, nearest


def key(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """Return a dataclass field that explains itself and knows which values it may take."""
    metadata = {"help": help, "choices": tuple(choices), "least": least, "most": most}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def types_of(section: Any) -> dict[str, Any]:
    """Return the type of each field of a section."""
    return typing.get_type_hints(type(section))


_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def convert(dotted: str, value: Any, wanted: Any, found: Field | None = None) -> Any:
    """Return `value` as the type `wanted`; int passes as float, a list as a tuple."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        if value is None or value == "none":
            return None
        wanted = next(a for a in args if a is not type(None))
        origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(args):
            raise UserError(f"{dotted} = {value!r}: give a list of {len(args)} numbers")
        values = tuple(convert(dotted, v, a) for v, a in zip(value, args, strict=True))
        if found is not None:
            for number in values:
                _check_range(dotted, number, found.metadata)
        return values
    if origin is list:
        # One bare word is a list of one: --set data.test_group=P1
        items = value if isinstance(value, list | tuple) else [value]
        return [convert(dotted, v, args[0]) for v in items]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{dotted} = {value!r}: it is a table; set {dotted}.NAME=value")
        return dict(value)
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted is str and type(value) in (int, float) and found is None:
        value = str(value)  # a group may be called 3
    if type(value) is not wanted:
        raise UserError(f"{dotted} = {value!r}: give {_NAMES[wanted]}")
    if found is not None:
        _check_range(dotted, value, found.metadata)
    return value


def _check_range(dotted: str, value: Any, limits: Mapping[str, Any]) -> None:
    choices, least, most = limits["choices"], limits["least"], limits["most"]
    if choices and value not in choices:
        listed = ", ".join(choices)
        raise UserError(f"{dotted} = {value!r}: give one of {listed}.{nearest(value, choices)}")
    if (least is not None and not value >= least) or (most is not None and not value <= most):
        within = f"at least {least:g}" if most is None else f"between {least:g} and {most:g}"
        raise UserError(f"{dotted} = {value!r}: must be {within}")


def section_toml(name: str, section: Any) -> str:
    """Return a section as TOML, each key under a line that explains it."""
    lines, tables = [f"[{name}]"], []
    for found in fields(section):
        value = getattr(section, found.name)
        note = f"# {found.metadata['help']}"
        if found.metadata["choices"]:
            note += f" ({', '.join(found.metadata['choices'])})"
        if isinstance(value, dict):
            body = tomli_w.dumps(value)
            tables += ["", note, f"[{name}.{found.name}]", *body.splitlines()]
        elif value is None:  # TOML has no word for it
            lines += [note, f'{found.name} = "none"']
        elif isinstance(value, tuple | list):
            inner = ", ".join(tomli_w.dumps({"v": v}).strip()[4:] for v in value)
            lines += [note, f"{found.name} = [{inner}]"]
        else:
            lines += [note, tomli_w.dumps({found.name: value}).strip()]
    return "\n".join([*lines, *tables, ""])
