"""`tinyvid gradcheck`: the suite of gradient checks as a table."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def gradcheck(
    op: Annotated[
        Optional[str],  # noqa: UP045 (typer on Python 3.10)
        typer.Option(help="An operation or a pass: conv3d, conv3d_dgrad, softmax. Default: all."),
    ] = None,
) -> None:
    """Check every gradient against differences."""
