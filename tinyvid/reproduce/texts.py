"""How numbers are written, in the report and in Markdown alike."""

from __future__ import annotations

from tinyvid.reproduce.results import Measured, Share


def percent(share: float) -> str:
    """Return a share as percent with a decimal, `82.5`; 100 and 0 have none to lose."""
    return f"{100 * share:.1f}"


def interval(share: Share) -> str:
    """Return a share's interval, `77.0–87.5`."""
    return f"{percent(share.low)}–{percent(share.high)}"


def small(error: float) -> str:
    """Return an error as a share, `0.75`, or `7e-8` where it is of rounding; 0 is none at all."""
    if error == 0:
        return "0"
    return f"{error:.2f}" if error >= 0.005 else f"{error:.0e}".replace("e-0", "e-")


def count(number: float) -> str:
    """Return a count in short, `61.4 k`, `1.62 M`, `38.5 G`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def wilson(found: Measured) -> str:
    """Return Wilson's interval, or nothing where there are videos enough for the other."""
    if found.wilson is None:
        return ""
    low, high = found.wilson
    return f"{percent(low)}–{percent(high)}"
