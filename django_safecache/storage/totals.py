"""Writes what a recorder holds into the rows of its writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import QuerySet

from django_safecache.models import CacheDigest, ProblemCount, Resolution, Writer
from django_safecache.models.fields import (
    ALIAS_LENGTH,
    ERROR_LENGTH,
    HOST_LENGTH,
    SERVER_LENGTH,
    WRITER_LENGTH,
    hash_of,
)
from django_safecache.recording import histogram
from django_safecache.recording.fingerprints import shortened
from django_safecache.recording.snapshots import FlushErrors, Snapshot, WriterIdentity
from django_safecache.storage import problems
from django_safecache.storage.places import ids_of, place
from django_safecache.storage.upserts import CELL_KEY, CELL_TOTALS, COUNT_KEY, upsert

NO_ERRORS = FlushErrors()
WRITER_TROUBLE = ("flush_errors", "last_error", "last_error_at")

_Row = TypeVar("_Row", CacheDigest, ProblemCount)
_CellPlace = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """What came of storing a snapshot."""

    left_out_before: datetime | None
    """Buckets that start before this were left out; None if there were none. The writer
    is to go on under another name then."""
    refused: problems.Refused


def store(
    snapshot: Snapshot,
    *,
    using: str,
    zone: tzinfo,
    errors: FlushErrors = NO_ERRORS,
    ended: bool = False,
) -> Stored:
    """Make the database say what `snapshot` says. Raises what the database raises.

    The totals of the writer are replaced, all of them or none: storing a snapshot
    again, or a later one, counts nothing twice. What writers share (problems, facets
    and places) is written before, each statement on its own: it only ever moves one
    way, so that half of it does no harm, and no writer waits for another with locks
    in hand. `zone` says which day a facet was seen on. Problems that the database does
    not take are left out, and all else is stored.

    If the writer had been given up for dead, and its rows rolled up (see
    `storage.folding`), the buckets of that time are left out.
    """
    found, refused = problems.store(snapshot, using=using, zone=zone)
    places = _places(snapshot, using)
    with transaction.atomic(using=using):
        problems.lock_for_rows_of(found.values(), using)
        # First, so that its row is locked: nobody rolls up what is being replaced.
        settled = _see_writer(
            snapshot,
            using,
            ended=snapshot.taken if ended else None,
            errors=errors,
        )
        cells = _cells(snapshot, places)
        counts = _counts(snapshot, found)
        upsert(_since(settled, cells), using, key=CELL_KEY, totals=CELL_TOTALS)
        upsert(_since(settled, counts), using, key=COUNT_KEY, totals=("count",))
        buckets = [cell.bucket for cell in cells] + [count.bucket for count in counts]
        left_out_before = settled if min(buckets, default=settled) < settled else None
        if left_out_before:
            _row_of(snapshot.writer, using).update(ended=snapshot.taken)
    if found:
        problems.unmute_what_exceeds(
            found.values(), since=_first_bucket(snapshot), using=using
        )
    return Stored(left_out_before, refused)


def store_trouble(writer: WriterIdentity, errors: FlushErrors, *, using: str) -> None:
    """Say on the row of `writer` why its totals are not stored. Raises as `store`."""
    row = _writer(writer, errors, last_flush=writer.started)
    upsert([row], using, key=("name",), totals=WRITER_TROUBLE)


def _see_writer(
    snapshot: Snapshot, using: str, *, ended: datetime | None, errors: FlushErrors
) -> datetime:
    """Lock the writer's row and bring it up to date; what starts before the result
    must not be stored.

    Its times only move up: a snapshot may be stored after a later one.
    """
    writer = _writer(
        snapshot.writer,
        errors,
        last_flush=snapshot.taken,
        ended=ended,
        settled=snapshot.settled_before,
        dropped=snapshot.dropped,
    )
    upsert([writer], using, key=("name",), totals=("dropped", *WRITER_TROUBLE))
    row = _row_of(snapshot.writer, using)
    known = row.values("last_flush", "ended", "settled").get()
    # One that reports after its end has come back.
    came_back = ended is None and known["last_flush"] < snapshot.taken
    ends = () if came_back else (known["ended"], ended)
    settled = _latest(known["settled"], snapshot.settled_before)
    moved = {
        "last_flush": _latest(known["last_flush"], snapshot.taken),
        "ended": _latest(*ends),
        "settled": settled,
    }
    if moved != known:
        row.update(**moved)
    return settled or snapshot.settled_before


def _row_of(writer: WriterIdentity, using: str) -> QuerySet[Writer]:
    name = shortened(writer.name, WRITER_LENGTH)
    return Writer.objects.using(using).filter(name=name)


def _latest(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _since(moment: datetime, rows: list[_Row]) -> list[_Row]:
    return [row for row in rows if row.bucket >= moment]


def _places(snapshot: Snapshot, using: str) -> dict[_CellPlace, int]:
    """Alias, server and key group to the id of their place."""
    places = {
        (cell.alias, cell.server, cell.key_group): place(
            cell.alias, cell.server, cell.key_group
        )
        for cell in snapshot.cells
    }
    last = max((cell.bucket for cell in snapshot.cells), default=snapshot.taken)
    ids = ids_of(places.values(), last, using)
    return {names: ids[each.fingerprint] for names, each in places.items()}


def _cells(snapshot: Snapshot, places: Mapping[_CellPlace, int]) -> list[CacheDigest]:
    rows = [
        CacheDigest(
            resolution=Resolution.FIVE_MINUTES,
            bucket=cell.bucket,
            place_id=places[cell.alias, cell.server, cell.key_group],
            writer=shortened(snapshot.writer.name, WRITER_LENGTH),
            duration_sum=cell.duration_sum,
            duration_max=cell.duration_max,
            **cell.counts,
            **cell.failures,
            **dict(zip(histogram.COLUMNS, cell.durations, strict=True)),
        )
        for cell in snapshot.cells
    ]
    return sorted(rows, key=lambda row: (row.place_id, row.bucket))


def _counts(snapshot: Snapshot, found: Mapping[str, int]) -> list[ProblemCount]:
    rows = [
        ProblemCount(
            problem_id=found[totals.fingerprint],
            resolution=Resolution.FIVE_MINUTES,
            bucket=totals.bucket,
            alias=shortened(totals.alias, ALIAS_LENGTH),
            server=shortened(totals.server, SERVER_LENGTH),
            writer=shortened(snapshot.writer.name, WRITER_LENGTH),
            host=shortened(snapshot.writer.host, HOST_LENGTH),
            count=totals.count,
        )
        for totals in snapshot.occurrences
        if totals.fingerprint in found
    ]
    return sorted(
        rows,
        key=lambda row: (row.bucket, row.problem_id, hash_of(row.alias, row.server)),
    )


def _first_bucket(snapshot: Snapshot) -> datetime:
    buckets = [totals.bucket for totals in snapshot.occurrences]
    return min(buckets, default=snapshot.taken)


def _writer(writer: WriterIdentity, errors: FlushErrors, **values: Any) -> Writer:
    return Writer(
        name=shortened(writer.name, WRITER_LENGTH),
        host=shortened(writer.host, HOST_LENGTH),
        pid=writer.pid,
        started=writer.started,
        flush_errors=errors.count,
        last_error=shortened(errors.last, ERROR_LENGTH),
        last_error_at=errors.last_at,
        **values,
    )
