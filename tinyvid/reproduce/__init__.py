"""The lecture's comparisons, made anew on any data: `tinyvid reproduce`.

    reproduce(Plan("verbs", Path("out"), quick=True))     # trains, tests, writes out/report.html

What is trained and fused is in `systems`, the papers' tables in `papers`; `work` runs it and finds
finished parts again, `gallery` and `pictures` draw clips and what networks look at, `results` is
all of it as plain data, and `page` and `markdown` are drawn from that alone.
"""

from tinyvid.reproduce.make import reproduce
from tinyvid.reproduce.results import Results
from tinyvid.reproduce.work import Plan

__all__ = ["Plan", "Results", "reproduce"]
