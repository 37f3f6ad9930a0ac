"""Problems: how often they occurred, where, on how many accounts, and what that means.

A problem that is older than the period is escalating if it occurred more than
`ESCALATING_FACTOR` times as often as usual, which is the mean of up to 14 days before:
two weeks, so that a weekend is in them as often as it is in the year. Three times,
because the counts of one and the same fault vary twofold from day to day with the
traffic. And at least `ESCALATING_COUNT` times, because three instead of one is chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.db.models import Q, QuerySet, Sum

from django_safecache.conf import get_settings
from django_safecache.models import (
    Facet,
    Problem,
    ProblemCount,
    ProblemFacet,
    ProblemState,
    Resolution,
)
from django_safecache.reports.facts import Period, ProblemCountRow, ProblemStatus
from django_safecache.reports.rows import rows_of_writers, rows_rolled_up, to_read

CALL_SITES_SHOWN = 10
HISTORY_DAYS = 14
ESCALATING_COUNT = 10
ESCALATING_FACTOR = 3
DAY = timedelta(days=1)


def problems(period: Period, *, limit: int = 50) -> list[ProblemCountRow]:
    """The problems that occurred in the period, most occurrences first."""
    database = get_settings().database
    period = to_read(period)
    counts = ProblemCount.objects.using(database).filter(
        rows_of_writers(period) | rows_rolled_up(period)
    )
    counted = dict(
        counts.values_list("problem")
        .annotate(total=Sum("count"))
        .order_by("-total", "problem")[:limit]
    )
    found = Problem.objects.using(database).in_bulk(counted)
    servers: defaultdict[int, set[str]] = defaultdict(set)
    places = counts.filter(problem__in=counted).values_list(
        "problem", "server", "place_hash"
    )
    for problem_id, server, _ in places.distinct().order_by():
        if server:
            servers[problem_id].add(server)
    facets = _facets(period, counted)
    days = _days_before(period.start)
    history = _history(days, counted)
    return [
        _problem_row(
            found[problem_id],
            count,
            facets[problem_id],
            tuple(sorted(servers[problem_id])),
            _since(found[problem_id].first_seen, days, history.get(problem_id, {})),
            period,
        )
        for problem_id, count in counted.items()
        if problem_id in found
    ]


def _facets(
    period: Period, problem_ids: Iterable[int]
) -> defaultdict[int, defaultdict[str, list[str]]]:
    """Problem id to facet to its values, of the local days the period touches."""
    conf = get_settings()
    zone = conf.digest.zone
    rows = (
        ProblemFacet.objects.using(conf.database)
        .filter(
            problem__in=list(problem_ids),
            facet__in=[Facet.ACCOUNT, Facet.CALL_SITE],
            day__gte=period.start.astimezone(zone).date(),
            day__lte=(period.end - timedelta.resolution).astimezone(zone).date(),
        )
        .values_list("problem", "facet", "value", "value_hash")
        .distinct()
        .order_by("value")
    )
    facets: defaultdict[int, defaultdict[str, list[str]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for problem_id, facet, value, _ in rows:
        facets[problem_id][facet].append(value)
    return facets


def _days_before(moment: datetime) -> list[Period]:
    """The local days that end at `moment`, or at that time of the day, oldest first."""
    local = moment.astimezone(get_settings().digest.zone)
    edges = [
        (local - days * DAY).astimezone(moment.tzinfo)
        for days in range(HISTORY_DAYS, -1, -1)
    ]
    return [Period(start, end) for start, end in pairwise(edges)]


def _history(
    days: Iterable[Period], problem_ids: Iterable[int]
) -> dict[int, Mapping[str, int | None]]:
    """Problem id to the occurrences on each of `days`, by its number."""
    sums = {
        f"day_{number}": Sum(
            "count", filter=Q(bucket__gte=day.start, bucket__lt=day.end)
        )
        for number, day in enumerate(days)
    }
    rows = _counts_of_weeks().filter(problem__in=list(problem_ids))
    counted = rows.values("problem").annotate(**sums)
    return {row.pop("problem"): row for row in map(dict[str, Any], counted)}


def _counts_of_weeks() -> QuerySet[ProblemCount]:
    """Each occurrence once: rows of writers, and those rolled up that last so long."""
    return ProblemCount.objects.using(get_settings().database).filter(
        Q(resolution=Resolution.FIVE_MINUTES) & ~Q(writer="")
        | Q(resolution=Resolution.HOUR, writer="")
    )


def _since(
    first_seen: datetime, days: Iterable[Period], history: Mapping[str, int | None]
) -> tuple[int | None, ...]:
    return tuple(
        (history.get(f"day_{number}") or 0) if first_seen < day.end else None
        for number, day in enumerate(days)
    )


def _usual(history: Iterable[int | None], length: timedelta) -> float | None:
    known = [count for count in history if count is not None]
    return sum(known) / len(known) * (length / DAY) if known else None


def _status(
    problem: Problem, count: int, usual: float | None, period: Period
) -> ProblemStatus:
    if problem.state == ProblemState.MUTED:
        return ProblemStatus.MUTED
    if usual is None or problem.first_seen >= period.start:
        return ProblemStatus.NEW
    regressed_at = problem.regressed_at
    if regressed_at and period.start <= regressed_at < period.end:
        return ProblemStatus.REGRESSED
    if count >= ESCALATING_COUNT and count > ESCALATING_FACTOR * usual:
        return ProblemStatus.ESCALATING
    return ProblemStatus.ONGOING


def _problem_row(
    problem: Problem,
    count: int,
    facets: Mapping[str, list[str]],
    servers: tuple[str, ...],
    history: tuple[int | None, ...],
    period: Period,
) -> ProblemCountRow:
    usual = _usual(history, period.length)
    return ProblemCountRow(
        problem_id=problem.pk,
        fingerprint=problem.fingerprint,
        kind=problem.kind,
        exception=problem.exception,
        errno=problem.errno,
        message=problem.message,
        state=problem.state,
        first_seen=problem.first_seen,
        last_seen=problem.last_seen,
        count=count,
        accounts=len(facets[Facet.ACCOUNT]),
        servers=servers,
        call_sites=tuple(facets[Facet.CALL_SITE][:CALL_SITES_SHOWN]),
        history=history,
        usual=usual,
        status=_status(problem, count, usual, period),
    )
