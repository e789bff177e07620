"""Write the tables of reproduced comparisons into `docs/results.md`.

    tinyvid reproduce --data DATA --out OUT
    python docs/make_results.py OUT/results.json ...

Each file becomes a section with the whole tables of Karpathy et al. and of Simonyan and Zisserman,
and of the verbs the shift experiment, between the two markers; what stands there for other data
stays.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tinyvid.checkpoint import write_atomically
from tinyvid.errors import UserError
from tinyvid.reproduce.markdown import comparison, shift_section
from tinyvid.reproduce.results import Results

PAGE = Path(__file__).with_name("results.md")
BEGIN = "<!-- comparisons: written by docs/make_results.py -->"
END = "<!-- end of comparisons -->"


def section(results: Results) -> str:
    """Return the section of one data set, beginning with its heading."""
    facts = "\n".join(f"- {name}: {value}" for name, value in results.facts)
    parts = [heading(results.data), facts]
    for table in results.tables:
        parts += [f"### {table.title}: {results.data}", comparison(table, results)]
    if results.shift:
        parts += [f"### When an action comes later: {results.data}", shift_section(results)]
    return "\n\n".join([*parts, f"```sh\n{results.command}\n```"])


def heading(data: str) -> str:
    return f"## The papers' comparisons on {data}"


def written(page: str, found: list[Results]) -> str:
    """Return the page with these sections in the place of those of the same data.

    Raises:
        UserError: the page has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"the page has no lines {BEGIN} and {END}, between which to write")
    kept = {part.split("\n", 1)[0]: part.strip() for part in re.split(r"(?m)^(?=## )", inside)}
    kept.pop("", None)
    kept |= {heading(results.data): section(results) for results in found}
    return before + begin + "\n\n" + "".join(f"{part}\n\n" for part in kept.values()) + end + after


def main(files: list[str]) -> None:
    if not files:
        sys.exit(__doc__)
    try:
        page = written(PAGE.read_text(encoding="utf-8"), [Results.load(file) for file in files])
    except UserError as error:
        sys.exit(f"error: {error}")
    write_atomically(PAGE, page.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
