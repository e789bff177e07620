"""How the help of all commands looks."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


def _plain(params: list[Any]) -> list[Any]:
    """Show no type where there is no value to give, and each default in one pair of brackets."""
    for param in params:
        if param.param_type_name == "argument":
            vars(param)["display_type_rich"] = lambda ctx: None  # its name says what it is
        elif param.is_flag:
            param.metavar = ""
        if isinstance(param.show_default, str):  # it would be shown in brackets of its own
            param.help = rf"{param.help} [dim]\[default: {param.show_default}][/dim]"
            param.show_default = False
    return params


class Command(TyperCommand):
    """A command, with its help in one style."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))


class Group(TyperGroup):
    """Commands in the order in which they are written down."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)
