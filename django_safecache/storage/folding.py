"""Takes final rows from their writers, and adds them to the rows of all.

A row is final when its writer will not store that bucket again: it has said so
(`Writer.settled`), or it has ended, or it was silent for so long that it is presumed
dead. Final rows are deleted and added to those without a writer of every resolution in
one transaction, so each is at any moment counted once. Nothing is computed from rows
that may be pruned: a row that comes days late is added like any other.

A writer that comes back from the dead is not counted twice: `store` leaves out what
begins before `Writer.settled`, which is moved behind what is folded here. What it had
counted since it stored for the last time is stored under another name then, see
`Recorder.forget`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from django.db import models
from django.db.models import Max, Q, Sum

from django_safecache.models import (
    CacheDigest,
    CachePlace,
    ProblemCount,
    Resolution,
    Together,
    Writer,
)
from django_safecache.storage.locking import locked
from django_safecache.storage.places import ids_of, sums_with
from django_safecache.storage.upserts import CELL_KEY, CELL_TOTALS, COUNT_KEY, upsert

BUCKET = Resolution.FIVE_MINUTES.length
# Longer than a database is away, or a process is stopped in a debugger.
DEAD_AFTER = timedelta(days=2)
# A process that has said it ends may still store what happens while it does.
LAST_WORDS = BUCKET


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of counts; `place` is what tells the rows of a bucket apart."""

    model: type[models.Model]
    place: tuple[str, ...]
    sums: Mapping[str, Sum | Max]
    key: tuple[str, ...]
    is_summed: bool = False

    def order(self, cell: _Cell) -> tuple[Any, ...]:
        """That of the key, in which rows are to be written."""
        resolution, bucket, *place = cell
        return resolution, *((*place, bucket) if self.is_summed else (bucket, *place))


_TABLES = (
    _Table(
        CacheDigest,
        ("place_id",),
        {
            name: Max(name) if name == "duration_max" else Sum(name)
            for name in CELL_TOTALS
        },
        CELL_KEY,
        is_summed=True,
    ),
    _Table(
        ProblemCount,
        ("problem_id", "place_hash", "alias", "server"),
        {"count": Sum("count")},
        COUNT_KEY,
    ),
)

_Place = tuple[Any, ...]
_Cell = tuple[Any, ...]
"""Resolution, bucket, place."""
_Figures = Mapping[str, Any]


def fold(now: datetime, *, using: str) -> int:
    """Fold all final rows, those of an hour in a transaction; how many they were.

    Raises what the database raises; what was folded until then stays so.
    """
    hours: dict[datetime, dict[str, set[datetime]]] = defaultdict(dict)
    for writer, bucket in _stored(using):
        hour = hours[Resolution.HOUR.start_of(bucket)]
        hour.setdefault(writer, set()).add(bucket)
    folded = 0
    for _, writers in sorted(hours.items()):
        with locked(using):
            final = _final(writers, now, using)
            folded += sum(_fold(table, final, using) for table in _TABLES)
    return folded


def _stored(using: str) -> Iterator[tuple[str, datetime]]:
    """The writers that have rows, each with the buckets of these."""
    for table in _TABLES:
        rows = table.model._default_manager.using(using).filter(writer__gt="")
        yield from rows.values_list("writer", "bucket").distinct().order_by()


def _final(
    stored: Mapping[str, set[datetime]], now: datetime, using: str
) -> dict[datetime, list[str]]:
    """Bucket to the writers whose rows of it are final, and stay so.

    Writers that are gone are bound to that: their rows are locked, and settled.
    """
    writers = Writer.objects.using(using).filter(name__in=stored)
    gone = writers.filter(
        Q(ended__lt=now - LAST_WORDS) | Q(last_flush__lt=now - DEAD_AFTER)
    )
    for name in gone.order_by("name").values_list("name", flat=True):
        end = max(stored[name]) + BUCKET
        unsettled = gone.filter(Q(settled=None) | Q(settled__lt=end), name=name)
        unsettled.update(settled=end)
    settled = dict(writers.values_list("name", "settled"))
    final: dict[datetime, list[str]] = defaultdict(list)
    for name, buckets in stored.items():
        # A writer without a row was pruned, long after its end.
        until = settled.get(name) if name in settled else max(buckets) + BUCKET
        for bucket in buckets:
            if until is not None and bucket < until:
                final[bucket].append(name)
    return final


def _summed(
    parts: Collection[int], bucket: datetime, using: str
) -> dict[_Place, dict[Resolution, list[_Place]]]:
    """To each of `parts`, by id, the sums of a resolution that it is part of."""
    found = CachePlace.objects.using(using).in_bulk(sorted(parts))
    sums = {pk: sums_with(part) for pk, part in found.items()}
    ids = ids_of(chain.from_iterable(sums.values()), bucket, using)
    return {
        (pk,): {
            resolution: [
                (ids[each.fingerprint],)
                for each in places
                if Together(each.together).of(resolution) == each.together
            ]
            for resolution in Resolution
        }
        for pk, places in sums.items()
    }


def _fold(table: _Table, final: Mapping[datetime, list[str]], using: str) -> int:
    taken: list[tuple[datetime, _Place, _Figures]] = []
    folded = 0
    for bucket, writers in final.items():
        rows = table.model._default_manager.using(using).filter(
            resolution=Resolution.FIVE_MINUTES, bucket=bucket, writer__in=writers
        )
        for sums in rows.values(*table.place).annotate(**table.sums).order_by():
            taken.append((bucket, tuple(sums[name] for name in table.place), sums))
        deleted, _ = rows.delete()
        folded += deleted
    summed = {}
    if table.is_summed and taken:
        summed = _summed({pk for _, (pk,), _ in taken}, max(final), using)
    added: dict[_Cell, dict[str, Any]] = {}
    for bucket, part, sums in taken:
        for resolution in Resolution:
            more = summed.get(part, {}).get(resolution, [])
            for place in (part, *more):
                cell = (resolution, resolution.start_of(bucket), *place)
                added[cell] = _sum(table, added.get(cell), sums)
    for cell, figures in _known(table, added, using):
        added[cell] = _sum(table, added[cell], figures)
    upsert(
        [_row(table, cell, added[cell]) for cell in sorted(added, key=table.order)],
        using,
        key=table.key,
        totals=tuple(table.sums),
    )
    return folded


def _known(
    table: _Table, cells: Iterable[_Cell], using: str
) -> list[tuple[_Cell, _Figures]]:
    """Those of `cells` that there are rows for, with what these say."""
    wanted = frozenset(cells)
    buckets: dict[int, set[datetime]] = defaultdict(set)
    for resolution, bucket, *_ in wanted:
        buckets[resolution].add(bucket)
    first = table.place[0]
    places = {f"{first}__in": {place[0] for _, _, *place in wanted}}
    rows = [
        ((resolution, row["bucket"], *(row[name] for name in table.place)), row)
        for resolution, starts in buckets.items()
        for row in table.model._default_manager.using(using)
        .filter(writer="", resolution=resolution, bucket__in=starts, **places)
        .values("bucket", *table.place, *table.sums)
    ]
    return [(cell, row) for cell, row in rows if cell in wanted]


def _sum(table: _Table, known: _Figures | None, more: _Figures) -> dict[str, Any]:
    if known is None:
        return {name: more[name] for name in table.sums}
    return {
        name: max(known[name], more[name])
        if name == "duration_max"
        else known[name] + more[name]
        for name in table.sums
    }


def _row(table: _Table, cell: _Cell, figures: _Figures) -> models.Model:
    resolution, bucket, *place = cell
    names = zip(table.place, place, strict=True)
    return table.model(
        writer="", resolution=resolution, bucket=bucket, **dict(names), **figures
    )
