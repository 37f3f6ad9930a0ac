"""Writes a recorder's totals into the tables, and deletes what is past retention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, TypeVar

from django.db import connections, models, transaction
from django.db.models import Q

from django_safecache.conf import RetentionDays
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models import (
    ALIAS_LENGTH,
    ERROR_LENGTH,
    HOST_LENGTH,
    KEY_GROUP_LENGTH,
    SERVER_LENGTH,
    WRITER_LENGTH,
    CacheDigest,
    Problem,
    ProblemCount,
    ProblemFacet,
    Resolution,
    Writer,
)
from django_safecache.recording import histogram
from django_safecache.recording.cells import COUNTS
from django_safecache.recording.fingerprints import shortened
from django_safecache.recording.snapshots import Snapshot, WriterIdentity
from django_safecache.storage import problems

CELL_KEY = ("resolution", "bucket", "alias", "server", "key_group", "writer")
CELL_TOTALS = (
    *COUNTS,
    *FAILURE_KINDS,
    *histogram.COLUMNS,
    "duration_sum",
    "duration_max",
)
COUNT_KEY = ("resolution", "bucket", "problem", "alias", "server", "writer")
WRITER_TROUBLE = ("flush_errors", "last_error", "last_error_at")
# Rows of one statement. SQLite allows fewer of 45 columns; Django knows that.
BATCH_SIZE = 200
PRUNE_BATCH_SIZE = 1000

_Row = TypeVar("_Row", bound=models.Model)


def store(
    snapshot: Snapshot,
    *,
    using: str,
    zone: tzinfo,
    flush_errors: int = 0,
    last_error: str = "",
    last_error_at: datetime | None = None,
    ended: bool = False,
) -> None:
    """Make the database say what `snapshot` says. Raises what the database raises.

    The totals of the writer are replaced, all of them or none: storing a snapshot
    again, or a later one, counts nothing twice. What writers share (problems and
    facets) is written before, each statement on its own: it only ever moves one
    way, so that half of it does no harm, and no writer waits for another with locks
    in hand. `zone` says which day a facet was seen on.
    """
    found = problems.store(snapshot, using=using, zone=zone)
    with transaction.atomic(using=using):
        _upsert(_cells(snapshot), using, key=CELL_KEY, totals=CELL_TOTALS)
        _upsert(_counts(snapshot, found), using, key=COUNT_KEY, totals=("count",))
        writer = _writer(
            snapshot.writer,
            last_flush=snapshot.taken,
            ended=snapshot.taken if ended else None,
            dropped=snapshot.dropped,
            flush_errors=flush_errors,
            last_error=last_error,
            last_error_at=last_error_at,
        )
        totals = ("last_flush", "ended", "dropped", *WRITER_TROUBLE)
        _upsert([writer], using, key=("name",), totals=totals)
    if found:
        problems.unmute_what_exceeds(
            found.values(), since=_first_bucket(snapshot), using=using
        )


def store_trouble(
    writer: WriterIdentity,
    *,
    using: str,
    flush_errors: int,
    last_error: str,
    last_error_at: datetime | None,
) -> None:
    """Say on the row of `writer` why its totals are not stored. Raises as `store`."""
    row = _writer(
        writer,
        last_flush=writer.started,
        flush_errors=flush_errors,
        last_error=last_error,
        last_error_at=last_error_at,
    )
    _upsert([row], using, key=("name",), totals=WRITER_TROUBLE)


def prune(now: datetime, *, using: str, retention: RetentionDays) -> int:
    """Delete what is past retention, a batch at a time, and return how many rows.

    As long as nothing is rolled up, rows of five minutes are all there is, and are
    kept for the longest retention.
    """
    days = max(retention.five_minutes, retention.hour, retention.day)
    before = now - timedelta(days=days)
    return sum(
        _delete(model, condition, using)
        for model, condition in (
            (CacheDigest, Q(bucket__lt=before)),
            (ProblemCount, Q(bucket__lt=before)),
            (ProblemFacet, Q(day__lt=before.date())),
            (Problem, Q(last_seen__lt=before)),
            (Writer, Q(last_flush__lt=before)),
        )
    )


def _upsert(
    rows: Sequence[_Row], using: str, *, key: Sequence[str], totals: Sequence[str]
) -> None:
    """Insert `rows`, or replace the `totals` of those whose `key` exists.

    In the order of the key: rows in another order, from several processes, are
    deadlocks on PostgreSQL and MariaDB.
    """
    if not rows:
        return
    features = connections[using].features
    # MySQL and MariaDB take any unique key as the conflict, and refuse to be told.
    named = features.supports_update_conflicts_with_target
    type(rows[0])._default_manager.using(using).bulk_create(
        rows,
        batch_size=BATCH_SIZE,
        update_conflicts=True,
        unique_fields=key if named else None,
        update_fields=totals,
    )


def _cells(snapshot: Snapshot) -> list[CacheDigest]:
    rows = [
        CacheDigest(
            resolution=Resolution.FIVE_MINUTES,
            bucket=cell.bucket,
            alias=shortened(cell.alias, ALIAS_LENGTH),
            server=shortened(cell.server, SERVER_LENGTH),
            key_group=shortened(cell.key_group, KEY_GROUP_LENGTH),
            writer=shortened(snapshot.writer.name, WRITER_LENGTH),
            duration_sum=cell.duration_sum,
            duration_max=cell.duration_max,
            **cell.counts,
            **cell.failures,
            **dict(zip(histogram.COLUMNS, cell.durations, strict=True)),
        )
        for cell in snapshot.cells
    ]
    return sorted(
        rows, key=lambda row: (row.bucket, row.alias, row.server, row.key_group)
    )


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
    ]
    return sorted(
        rows, key=lambda row: (row.bucket, row.problem_id, row.alias, row.server)
    )


def _first_bucket(snapshot: Snapshot) -> datetime:
    buckets = [totals.bucket for totals in snapshot.occurrences]
    return min(buckets, default=snapshot.taken)


def _writer(writer: WriterIdentity, *, last_error: str, **values: Any) -> Writer:
    return Writer(
        name=shortened(writer.name, WRITER_LENGTH),
        host=shortened(writer.host, HOST_LENGTH),
        pid=writer.pid,
        started=writer.started,
        last_error=shortened(last_error, ERROR_LENGTH),
        **values,
    )


def _delete(model: type[models.Model], condition: Q, using: str) -> int:
    rows = model._default_manager.using(using).filter(condition)
    deleted = 0
    while batch := list(rows.values_list("pk", flat=True)[:PRUNE_BATCH_SIZE]):
        rows.filter(pk__in=batch).delete()
        deleted += len(batch)
    return deleted
