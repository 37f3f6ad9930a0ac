"""What the tables say, as frozen facts: for the admin, the mail and the commands.

Everything here only reads, takes and gives aware datetimes, and treats the end of a
period as exclusive. "No data" is None, and is not zero: zero is said only of a time
in which some process reported.
"""

from __future__ import annotations

from django_safecache.reports.cache import by_server, series, totals
from django_safecache.reports.causes import problems
from django_safecache.reports.facts import (
    BUCKET,
    Period,
    ProblemCountRow,
    ProblemStatus,
    SeriesPoint,
    ServerTotals,
    Totals,
    WriterStatus,
)
from django_safecache.reports.processes import reported_before, writers

__all__ = [
    "BUCKET",
    "Period",
    "ProblemCountRow",
    "ProblemStatus",
    "SeriesPoint",
    "ServerTotals",
    "Totals",
    "WriterStatus",
    "by_server",
    "problems",
    "reported_before",
    "series",
    "totals",
    "writers",
]
