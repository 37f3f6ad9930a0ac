"""What the caches did: sums over a period, by place and by step.

All of it is of `to_read(period)`: of what `answerable` has said within the last hour
(`Horizon.GRACE`) that is the same period. Ask for that one, and state it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import (
    BigIntegerField,
    BooleanField,
    ExpressionWrapper,
    F,
    Max,
    Q,
    QuerySet,
    Sum,
    Value,
)
from django.db.models.lookups import In

from django_safecache.conf import get_settings
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models import (
    CacheDigest,
    Horizon,
    Resolution,
    Together,
)
from django_safecache.recording import histogram
from django_safecache.recording.cells import COUNTS
from django_safecache.reports.facts import (
    BUCKET,
    Comparison,
    KeyGroupTotals,
    Period,
    SeriesPoint,
    ServerTotals,
    Totals,
)
from django_safecache.reports.places import Place, places_in
from django_safecache.reports.processes import covers, reporting
from django_safecache.reports.rows import (
    LONGER,
    answerable,
    kept,
    longest_in,
    rows_of_writers,
    rows_rolled_up,
    to_read,
)

# These describe a call, and a loader's call is not a server's: see CacheDigest.
_CALL_COLUMNS = ("calls", "duration_sum", *histogram.COLUMNS)
_OTHER_COLUMNS = (*COUNTS[1:], *FAILURE_KINDS)
_NO_CALLS = dict.fromkeys((*_CALL_COLUMNS, "duration_max"), 0)
_SUMS = {
    **{name: Sum(name) for name in (*_CALL_COLUMNS, *_OTHER_COLUMNS)},
    "duration_max": Max("duration_max"),
}
_Sums = Mapping[str, Any]


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
    period = to_read(period)
    found = _found(period, alias, server, key_group)
    # By resolution, so that where no row is there is no sum either.
    sums = _sums(found, "resolution", of_loaders=server == "")
    if sums:
        return _totals(_added(sums))
    return Totals() if covers(reporting(period), period.start, period.end) else None


def compare(
    period: Period,
    before: Period | None = None,
    *,
    alias: str | None = None,
    server: str | None = None,
    key_group: str | None = None,
) -> Comparison:
    """The totals of the period and of the one before it, or of `before`."""
    before = answerable(before or period.before())
    period = answerable(period)
    return Comparison(
        period=period,
        totals=totals(period, alias=alias, server=server, key_group=key_group),
        period_before=before,
        before=totals(before, alias=alias, server=server, key_group=key_group),
    )


def by_server(period: Period) -> list[ServerTotals]:
    """Sums for each alias and server, ordered by them; loaders have an empty one."""
    found = _found(to_read(period))
    servers: defaultdict[tuple[str, str], list[_Sums]] = defaultdict(list)
    for row in _sums(found, "place", of_loaders=True):
        place = found.places[row["place"]]
        servers[place.alias, place.server].append(row)
    return [
        ServerTotals(alias, server, _totals(_added(sums)))
        for (alias, server), sums in sorted(servers.items())
    ]


def by_key_group(
    period: Period, *, alias: str | None = None, server: str | None = None
) -> list[KeyGroupTotals]:
    """Sums for each alias and key group, ordered by them.

    The figures of a call that had keys of several groups are with one of them.
    """
    found = _found(to_read(period), alias, server, by_key_group=True)
    groups: defaultdict[tuple[str, str], list[_Sums]] = defaultdict(list)
    for row in _sums(found, "place", of_loaders=server == ""):
        place = found.places[row["place"]]
        groups[place.alias, place.key_group].append(row)
    return [
        KeyGroupTotals(name, key_group, _totals(_added(sums)))
        for (name, key_group), sums in sorted(groups.items())
    ]


def series(
    period: Period,
    *,
    step: timedelta,
    alias: str | None = None,
    server: str | None = None,
    key_group: str | None = None,
) -> list[SeriesPoint]:
    """Sums for each `step` of the period, in order; the last may be shorter.

    Steps are longer where rows that short are no longer kept. Raises ValueError for a
    step that is not a whole number of buckets.
    """
    if step <= timedelta() or step % BUCKET:
        raise ValueError(f"{step} is not a multiple of {BUCKET}")
    period, step, longest = _in_steps(to_read(period), step)
    found = _found(period, alias, server, key_group, longest=longest)
    steps: defaultdict[int, list[_Sums]] = defaultdict(list)
    for row in _sums(found, "bucket", of_loaders=server == ""):
        steps[(row["bucket"] - period.start) // step].append(row)
    spans = reporting(period)
    points = []
    for index in range(-(-period.length // step)):
        start = period.start + index * step
        end = min(start + step, period.end)
        if index in steps:
            points.append(SeriesPoint(start, end, _totals(_added(steps[index]))))
        else:
            known = covers(spans, start, end)
            points.append(SeriesPoint(start, end, Totals() if known else None))
    return points


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows that together are what is asked for, and the places they are of."""

    rows: QuerySet[CacheDigest]
    places: Mapping[int, Place]


def _found(
    period: Period,
    alias: str | None = None,
    server: str | None = None,
    key_group: str | None = None,
    *,
    by_key_group: bool = False,
    longest: Resolution = Resolution.DAY,
) -> _Found:
    """The fewest rows: sums, where servers or key groups are not told apart.

    Rows are chosen by the ids of places, and told apart by them: a join would be made
    for each row, before they are added up. What was stored when the places were read
    is found wherever it has been added to since, for a part and its sums appear
    together. What belongs to places that appeared later is left out.
    """
    by_key_group = by_key_group or key_group is not None
    together = Together.SERVERS if by_key_group else Together.KEY_GROUPS
    if by_key_group and server is not None:
        together = Together.NOTHING
    names = {"alias": alias, "server": server, "key_group": key_group}
    places = places_in(period, longest, together, **names)

    def ids(kind: Together, since: datetime) -> list[int]:
        return [
            place.id
            for place in places
            if place.together == kind and place.counted_until > since
        ]

    def which(resolution: Resolution, start: datetime) -> Q:
        return Q(place__in=ids(together.of(resolution), start))

    # By an expression, which no index has: by the column, the rows of writers would be
    # looked through once for each place.
    place_id = ExpressionWrapper(F("place_id") + 0, BigIntegerField())
    of_writers = rows_of_writers(period) & Q(
        In(place_id, ids(Together.NOTHING, period.start))
    )
    rows = CacheDigest.objects.using(get_settings().database).filter(
        of_writers | rows_rolled_up(period, longest, which)
    )
    return _Found(rows, {place.id: place for place in places})


def _sums(found: _Found, *by: str, of_loaders: bool) -> list[_Sums]:
    """Sums by `by`, for servers and for loaders; without the calls of loaders, which
    are no calls to a server, unless these are wanted."""
    loaders = [pk for pk, place in found.places.items() if not place.server]
    told_apart = loaders and not of_loaders
    is_loader = Q(place__in=loaders) if told_apart else Value(False)
    loader = ExpressionWrapper(is_loader, BooleanField())
    sums = found.rows.values(*by, loader=loader).annotate(**_SUMS).order_by()
    return [{**row, **_NO_CALLS} if row["loader"] else row for row in sums]


def _in_steps(period: Period, step: timedelta) -> tuple[Period, timedelta, Resolution]:
    """Steps that there are rows for, and the longest rows that each is made of."""
    since = kept(grace=Horizon.GRACE)
    start = period.start
    longest = longest_in(start, step)
    while longest in since and start < since[longest] and longest in LONGER:
        longest = LONGER[longest]
        start = longest.start_of(start)
        step = -(-step // longest.length) * longest.length
    return Period(start, period.end), step, longest


def _added(rows: Iterable[_Sums]) -> dict[str, Any]:
    added: dict[str, Any] = {"duration_max": 0.0}
    for row in rows:
        for name in (*_CALL_COLUMNS, *_OTHER_COLUMNS):
            added[name] = added.get(name, 0) + row[name]
        added["duration_max"] = max(added["duration_max"], row["duration_max"])
    return added


def _totals(sums: _Sums) -> Totals:
    return Totals(
        **{name: int(sums[name]) for name in COUNTS},
        failures={kind: int(sums[kind]) for kind in FAILURE_KINDS},
        duration_sum=float(sums["duration_sum"]),
        duration_max=float(sums["duration_max"]),
        durations=tuple(int(sums[name]) for name in histogram.COLUMNS),
    )
