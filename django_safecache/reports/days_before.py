"""The days before a moment, and how often problems occurred on each of them.

They are local days and come from rows of hours, which are kept for some weeks. Longer
ago, where the moment is the edge of a UTC day, they are UTC's and come from rows of
days. A day that is longer ago than those rows is one that nothing is known of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.db.models import Q, Sum
from django.utils import timezone

from django_safecache.conf import PROBLEM_HOURS_FOR, get_settings
from django_safecache.models import Horizon, ProblemCount, Resolution
from django_safecache.reports.facts import Period
from django_safecache.reports.rows import kept

HISTORY_DAYS = 14
DAY = timedelta(days=1)

Counts = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class DaysBefore:
    """`days`, oldest first; without `kept_from`, rows go back all the way."""

    days: tuple[Period, ...]
    resolution: Resolution
    kept_from: datetime | None

    @classmethod
    def of(cls, moment: datetime) -> DaysBefore:
        since = dict(kept(grace=Horizon.GRACE))
        if hours := since.get(Resolution.HOUR):
            hours = min(hours, timezone.now() - PROBLEM_HOURS_FOR - Horizon.GRACE)
        days = _local_days(moment)
        if not hours or hours <= days[0].start:
            return cls(days, Resolution.HOUR, hours)
        if moment != Resolution.DAY.start_of(moment):
            return cls(days, Resolution.HOUR, hours)
        return cls(
            _days(moment - number * DAY for number in range(HISTORY_DAYS + 1)),
            Resolution.DAY,
            since.get(Resolution.DAY),
        )

    @property
    def known(self) -> int:
        """How many of the days there are still rows of."""
        return sum(map(self._is_kept, self.days))

    def counts(self, first_seen: Mapping[int, datetime]) -> dict[int, Counts]:
        """Problem id to its occurrences on each of the days.

        `first_seen` is by problem id. None stands for a day that nothing is known of,
        or that ended before the problem was first seen.
        """
        counted = self._counted(first_seen)
        return {
            problem_id: tuple(
                (counted.get(problem_id, {}).get(f"day_{number}") or 0)
                if self._is_kept(day) and first < day.end
                else None
                for number, day in enumerate(self.days)
            )
            for problem_id, first in first_seen.items()
        }

    def _is_kept(self, day: Period) -> bool:
        return self.kept_from is None or day.start >= self.kept_from

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


def _local_days(moment: datetime) -> tuple[Period, ...]:
    """The local days that end at `moment`, or at that time of the day."""
    local = moment.astimezone(get_settings().digest.zone)
    # Arithmetic forgets which of two times of the clock is meant where it is put back.
    edges = (
        (local - number * DAY).astimezone(moment.tzinfo)
        for number in range(1, HISTORY_DAYS + 1)
    )
    return _days([moment, *edges])


def _days(edges: Iterable[datetime]) -> tuple[Period, ...]:
    """The days between `edges`, of which the latest is first."""
    return tuple(Period(start, end) for start, end in pairwise(reversed([*edges])))
