"""Problems: how often they occurred, where and on how many accounts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta

from django.db.models import Sum

from django_safecache.conf import get_settings
from django_safecache.models import (
    Facet,
    Problem,
    ProblemCount,
    ProblemFacet,
)
from django_safecache.reports.facts import Period, ProblemCountRow
from django_safecache.reports.rows import rows_of_writers, rows_rolled_up, to_read

CALL_SITES_SHOWN = 10


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
    places = counts.filter(problem__in=counted).values_list("problem", "server")
    for problem_id, server in places.distinct().order_by():
        if server:
            servers[problem_id].add(server)
    facets = _facets(period, counted)
    return [
        _problem_row(
            found[problem_id],
            count,
            facets[problem_id],
            tuple(sorted(servers[problem_id])),
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
        .values_list("problem", "facet", "value")
        .distinct()
        .order_by("value")
    )
    facets: defaultdict[int, defaultdict[str, list[str]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for problem_id, facet, value in rows:
        facets[problem_id][facet].append(value)
    return facets


def _problem_row(
    problem: Problem,
    count: int,
    facets: Mapping[str, list[str]],
    servers: tuple[str, ...],
) -> ProblemCountRow:
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
    )
