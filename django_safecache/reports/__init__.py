"""What the tables say, as frozen facts: for the admin, the mail and the commands.

Everything here only reads, takes and gives aware datetimes, and treats the end of a
period as exclusive. "No data" is None, and is not zero: zero is said only of a time
in which some process reported. What is past the retention of short rows is answered
for whole hours or days: ask for the `answerable` period, and state that one. A period
that is asked for without it is made longer as well, but from an hour later on.
"""

from __future__ import annotations

from django_safecache.reports.cache import (
    by_key_group,
    by_server,
    compare,
    series,
    totals,
)
from django_safecache.reports.causes import problems, worst_problems
from django_safecache.reports.crowds import told_of
from django_safecache.reports.facts import (
    BUCKET,
    Comparison,
    KeyGroupTotals,
    Period,
    ProblemCountRow,
    ProblemStatus,
    SeriesPoint,
    ServerTotals,
    Totals,
    WorstProblems,
    WriterStatus,
)
from django_safecache.reports.processes import reported_before, writers
from django_safecache.reports.rows import answerable

__all__ = [
    "BUCKET",
    "Comparison",
    "KeyGroupTotals",
    "Period",
    "ProblemCountRow",
    "ProblemStatus",
    "SeriesPoint",
    "ServerTotals",
    "Totals",
    "WorstProblems",
    "WriterStatus",
    "answerable",
    "by_key_group",
    "by_server",
    "compare",
    "problems",
    "reported_before",
    "series",
    "told_of",
    "totals",
    "worst_problems",
    "writers",
]
