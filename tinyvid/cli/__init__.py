"""The command line: `tinyvid COMMAND`, or `python -m tinyvid COMMAND`.

A UserError becomes one sentence on stderr and exit code 2. The commands import what they need
when they run, so that `tinyvid --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tinyvid.cli import (
    baseline,
    bench,
    convert,
    data,
    evaluate,
    flow,
    fuse,
    gradcheck,
    inspect,
    kernels,
    lstm,
    reproduce,
    train,
)
from tinyvid.cli.shown import Command, Group
from tinyvid.errors import UserError


class _Group(Group):
    """The commands, with errors told in one sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: [bold]tinyvid train slow_fusion --data verbs[/bold]",
)


def _version(wanted: bool) -> None:
    if wanted:
        from tinyvid import __version__

        typer.echo(f"tinyvid {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train, test and look inside networks that classify videos."""


_TRAINING, _LOOKING = "Train and test", "Look inside"
app.command("train", cls=Command, rich_help_panel=_TRAINING)(train.train)
app.command("test", cls=Command, rich_help_panel=_TRAINING)(evaluate.evaluate)
app.command("predict", cls=Command, rich_help_panel=_TRAINING)(evaluate.predict)
app.command("crossval", cls=Command, rich_help_panel=_TRAINING)(train.crossval)
app.command("baseline", cls=Command, rich_help_panel=_TRAINING)(baseline.baseline)
app.command("lstm", cls=Command, rich_help_panel=_TRAINING)(lstm.lstm)
app.command("fuse", cls=Command, rich_help_panel=_TRAINING)(fuse.fuse)
app.command("reproduce", cls=Command, rich_help_panel=_TRAINING)(reproduce.reproduce)
app.command("convert", cls=Command, rich_help_panel=_TRAINING)(convert.convert)
app.command("flow", cls=Command, rich_help_panel=_LOOKING)(flow.flow)
app.command("models", cls=Command, rich_help_panel=_LOOKING)(inspect.models)
app.command("summary", cls=Command, rich_help_panel=_LOOKING)(inspect.summary)
app.command("budget", cls=Command, rich_help_panel=_LOOKING)(inspect.budget)
app.command("gradcheck", cls=Command, rich_help_panel=_LOOKING)(gradcheck.gradcheck)
app.add_typer(data.app, name="data", rich_help_panel=_LOOKING)
app.add_typer(kernels.app, name="kernels", rich_help_panel=_LOOKING)
app.add_typer(bench.app, name="bench", rich_help_panel=_LOOKING)


def main() -> None:
    """Run the command line."""
    app(prog_name="tinyvid")
