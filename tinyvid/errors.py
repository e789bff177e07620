"""The one kind of error whose message is written for the person at the keyboard."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave cannot be used: the message names it and says what to do.

    The command line prints the message alone and exits with code 2; every other exception is
    a fault of ours and keeps its traceback.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to `name`, else an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
