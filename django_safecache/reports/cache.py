"""Hits, misses, failures and durations of the caches, summed up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from django.db.models import Max, Q, QuerySet, Sum

from django_safecache.conf import get_settings
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models import CacheDigest, Resolution
from django_safecache.recording import histogram
from django_safecache.recording.cells import COUNTS
from django_safecache.reports.facts import (
    BUCKET,
    Period,
    SeriesPoint,
    ServerTotals,
    Totals,
)
from django_safecache.reports.processes import covers, reporting

# These describe a call, and a loader's call is not a server's: see CacheDigest.
_CALL_COLUMNS = ("calls", "duration_sum", *histogram.COLUMNS)
_OTHER_COLUMNS = (*COUNTS[1:], *FAILURE_KINDS)


def totals(
    period: Period,
    *,
    alias: str | None = None,
    server: str | None = None,
    key_group: str | None = None,
) -> Totals | None:
    """Sums of what matches; None when no process reported in the period.

    None for a filter means all. The figures of a call (calls, lines, bytes,
    durations, failures) that had keys of several groups are with one of them.
    """
    rows = _rows(period, alias, server, key_group)
    sums = rows.aggregate(**_sums(of_loaders=server == ""))
    if sums["lines"] is not None:
        return _totals(sums)
    return Totals() if covers(reporting(period), period.start, period.end) else None


def by_server(period: Period) -> list[ServerTotals]:
    """Sums for each alias and server, ordered by them."""
    rows = (
        _rows(period)
        .values("alias", "server")
        .annotate(**_sums(of_loaders=True))
        .order_by("alias", "server")
    )
    return [ServerTotals(row["alias"], row["server"], _totals(row)) for row in rows]


def series(
    period: Period,
    *,
    step: timedelta,
    alias: str | None = None,
    server: str | None = None,
    key_group: str | None = None,
) -> list[SeriesPoint]:
    """Sums for each `step` of the period, in order; the last may be shorter.

    Raises ValueError for a step that is not a whole number of buckets.
    """
    if step <= timedelta() or step % BUCKET:
        raise ValueError(f"{step} is not a multiple of {BUCKET}")
    rows = (
        _rows(period, alias, server, key_group)
        .values("bucket")
        .annotate(**_sums(of_loaders=server == ""))
    )
    steps: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        steps[(row["bucket"] - period.start) // step].append(row)
    spans = reporting(period)
    points = []
    for index in range(-(-period.length // step)):
        start = period.start + index * step
        if index in steps:
            points.append(SeriesPoint(start, _totals(_added(steps[index]))))
        else:
            known = covers(spans, start, min(start + step, period.end))
            points.append(SeriesPoint(start, Totals() if known else None))
    return points


def _rows(
    period: Period,
    alias: str | None = None,
    server: str | None = None,
    key_group: str | None = None,
) -> QuerySet[CacheDigest]:
    wanted = {"alias": alias, "server": server, "key_group": key_group}
    return CacheDigest.objects.using(get_settings().database).filter(
        resolution=Resolution.FIVE_MINUTES,
        bucket__gte=period.start,
        bucket__lt=period.end,
        **{name: value for name, value in wanted.items() if value is not None},
    )


def _sums(*, of_loaders: bool) -> dict[str, Any]:
    """Aggregates named like their columns; without loaders' calls unless wanted."""
    calls = None if of_loaders else ~Q(server="")
    return {
        **{name: Sum(name, filter=calls) for name in _CALL_COLUMNS},
        **{name: Sum(name) for name in _OTHER_COLUMNS},
        "duration_max": Max("duration_max", filter=calls),
    }


def _added(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    added: dict[str, Any] = {"duration_max": 0.0}
    for row in rows:
        for name in (*_CALL_COLUMNS, *_OTHER_COLUMNS):
            added[name] = added.get(name, 0) + (row[name] or 0)
        added["duration_max"] = max(added["duration_max"], row["duration_max"] or 0.0)
    return added


def _totals(sums: Mapping[str, Any]) -> Totals:
    return Totals(
        **{name: int(sums[name] or 0) for name in COUNTS},
        failures={kind: int(sums[kind] or 0) for kind in FAILURE_KINDS},
        duration_sum=float(sums["duration_sum"] or 0.0),
        duration_max=float(sums["duration_max"] or 0.0),
        durations=tuple(int(sums[name] or 0) for name in histogram.COLUMNS),
    )
