"""The days before a moment, and how often problems occurred on each of them.

They are local days and come from rows of hours, which are kept for some weeks. Longer
ago, where the moment is the edge of a UTC day, they are UTC's and come from rows of
days. A day that is longer ago than those rows is one that nothing is known of, and so
is one on which no process reported.

Days end with an hour (of UTC), the last of them with the one before the moment: a row
of an hour cannot be divided, and what has yet to be rolled up is told the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.db.models import Q, Sum
from django.utils import timezone

from django_safecache.conf import PROBLEM_HOURS_FOR, get_settings
from django_safecache.models import Horizon, ProblemCount, Resolution
from django_safecache.reports.facts import Period
from django_safecache.reports.processes import covers, reporting
from django_safecache.reports.rows import kept

HISTORY_DAYS = 14
DAY = timedelta(days=1)

Counts = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class DaysBefore:
    """`days`, oldest first, and whether anything is known of each."""

    days: tuple[Period, ...]
    known: tuple[bool, ...]
    resolution: Resolution

    @classmethod
    def of(cls, moment: datetime) -> DaysBefore:
        since = dict(kept(grace=Horizon.GRACE))
        if hours := since.get(Resolution.HOUR):
            hours = min(hours, timezone.now() - PROBLEM_HOURS_FOR - Horizon.GRACE)
        days = _local_days(moment)
        if not hours or hours <= days[0].start:
            return cls(days, _known(days, hours), Resolution.HOUR)
        if moment != Resolution.DAY.start_of(moment):
            return cls(days, _known(days, hours), Resolution.HOUR)
        days = _days(moment - number * DAY for number in range(HISTORY_DAYS + 1))
        return cls(days, _known(days, since.get(Resolution.DAY)), Resolution.DAY)

    def counts(self, first_seen: Mapping[int, datetime]) -> dict[int, Counts]:
        """Problem id to its occurrences on each of the days.

        `first_seen` is by problem id. None stands for a day that nothing is known of,
        or that ended before the problem was first seen.
        """
        counted = self._counted(first_seen)
        days = [*zip(self.days, self.known, strict=True)]
        return {
            problem_id: tuple(
                (counted.get(problem_id, {}).get(f"day_{number}") or 0)
                if known and first < day.end
                else None
                for number, (day, known) in enumerate(days)
            )
            for problem_id, first in first_seen.items()
        }

    def _counted(self, problem_ids: Iterable[int]) -> dict[int, dict[str, int | None]]:
        sums = {
            f"day_{number}": Sum(
                "count", filter=Q(bucket__gte=day.start, bucket__lt=day.end)
            )
            for number, day in enumerate(self.days)
        }
        # Each occurrence once: rows of writers, and those rolled up of one length.
        rows = ProblemCount.objects.using(get_settings().database).filter(
            Q(resolution=Resolution.FIVE_MINUTES, writer__gt="")
            | Q(resolution=self.resolution, writer=""),
            problem__in=list(problem_ids),
            bucket__gte=self.days[0].start,
            bucket__lt=self.days[-1].end,
        )
        counted = rows.order_by().values("problem").annotate(**sums)
        return {row.pop("problem"): row for row in map(dict[str, Any], counted)}


def _known(days: Sequence[Period], kept_from: datetime | None) -> tuple[bool, ...]:
    """Of each day whether there are rows of it, and were any written."""
    spans = reporting(Period(days[0].start, days[-1].end))
    return tuple(
        (kept_from is None or day.start >= kept_from)
        and covers(spans, day.start, day.end)
        for day in days
    )


def _local_days(moment: datetime) -> tuple[Period, ...]:
    """The local days that end at the hour of `moment`, or at that time of the day."""
    local = moment.astimezone(get_settings().digest.zone)
    # Arithmetic forgets which of two times of the clock is meant where it is put back.
    edges = (
        (local - number * DAY).astimezone(moment.tzinfo)
        for number in range(1, HISTORY_DAYS + 1)
    )
    return _days([moment, *edges])


def _days(edges: Iterable[datetime]) -> tuple[Period, ...]:
    """The days between the hours of `edges`, of which the latest is first."""
    hours = [Resolution.HOUR.start_of(edge) for edge in edges]
    return tuple(Period(start, end) for start, end in pairwise(reversed(hours)))
