"""Writes a recorder's totals into the tables, and deletes what is past retention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import TypeVar

from django.db import connections, models, transaction
from django.db.models import Q

from django_safecache.conf import RetentionDays
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models import (
    ALIAS_LENGTH,
    FACET_LENGTH,
    HOST_LENGTH,
    KEY_GROUP_LENGTH,
    SERVER_LENGTH,
    WRITER_LENGTH,
    CacheDigest,
    Problem,
    ProblemCount,
    ProblemFacet,
    ProblemState,
    Resolution,
    Writer,
)
from django_safecache.recording import histogram
from django_safecache.recording.cells import COUNTS
from django_safecache.recording.fingerprints import Cause, shortened
from django_safecache.recording.snapshots import Snapshot

CELL_KEY = ("resolution", "bucket", "alias", "server", "key_group", "writer")
CELL_TOTALS = (
    *COUNTS,
    *FAILURE_KINDS,
    *histogram.COLUMNS,
    "duration_sum",
    "duration_max",
)
COUNT_KEY = ("resolution", "bucket", "problem", "alias", "server", "writer")
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
    ended: bool = False,
) -> None:
    """Make the database say what `snapshot` says. Raises what the database raises.

    The totals of the writer are replaced, all of them or none: storing a snapshot
    again, or a later one, counts nothing twice. What writers share (problems and
    facets) is written before, each statement on its own: it only ever moves one
    way, so that half of it does no harm, and no writer waits for another with locks
    in hand. `zone` says which day a facet was seen on.
    """
    problems = _problems(snapshot, using)
    _insert_facets(snapshot, problems, using, zone)
    with transaction.atomic(using=using):
        _upsert(_cells(snapshot), using, key=CELL_KEY, totals=CELL_TOTALS)
        _upsert(_counts(snapshot, problems), using, key=COUNT_KEY, totals=("count",))
        _upsert(
            [_writer(snapshot, flush_errors=flush_errors, ended=ended)],
            using,
            key=("name",),
            totals=("last_flush", "ended", "dropped", "flush_errors"),
        )


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


def _counts(snapshot: Snapshot, problems: dict[str, int]) -> list[ProblemCount]:
    rows = [
        ProblemCount(
            problem_id=problems[totals.fingerprint],
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


def _writer(snapshot: Snapshot, *, flush_errors: int, ended: bool) -> Writer:
    return Writer(
        name=shortened(snapshot.writer.name, WRITER_LENGTH),
        host=shortened(snapshot.writer.host, HOST_LENGTH),
        pid=snapshot.writer.pid,
        started=snapshot.writer.started,
        last_flush=snapshot.taken,
        ended=snapshot.taken if ended else None,
        dropped=snapshot.dropped,
        flush_errors=flush_errors,
    )


def _problems(snapshot: Snapshot, using: str) -> dict[str, int]:
    """Fingerprint to id of the snapshot's problems, created or brought up to date."""
    seen: dict[str, tuple[datetime, datetime]] = {}
    for totals in snapshot.occurrences:
        first, last = seen.get(
            totals.fingerprint, (totals.first_seen, totals.last_seen)
        )
        seen[totals.fingerprint] = (
            min(first, totals.first_seen),
            max(last, totals.last_seen),
        )
    known = _known_problems(seen, using)
    new = [
        _problem(cause, *seen[cause.fingerprint])
        for cause in sorted(snapshot.causes, key=lambda cause: cause.fingerprint)
        if cause.fingerprint not in known and cause.fingerprint in seen
    ]
    if new:
        Problem.objects.using(using).bulk_create(
            new, batch_size=BATCH_SIZE, ignore_conflicts=True
        )
        known = _known_problems(seen, using)
    for fingerprint, problem in known.items():
        _see_again(problem, *seen[fingerprint], using)
    return {fingerprint: problem.pk for fingerprint, problem in known.items()}


def _known_problems(fingerprints: Iterable[str], using: str) -> dict[str, Problem]:
    wanted = sorted(fingerprints)
    return {
        problem.fingerprint: problem
        for start in range(0, len(wanted), BATCH_SIZE)
        for problem in Problem.objects.using(using).filter(
            fingerprint__in=wanted[start : start + BATCH_SIZE]
        )
    }


def _problem(cause: Cause, first: datetime, last: datetime) -> Problem:
    return Problem(
        fingerprint=cause.fingerprint,
        algorithm=cause.algorithm,
        kind=cause.kind,
        exception=cause.exception,
        errno=cause.errno,
        message=cause.message,
        first_seen=first,
        last_seen=last,
    )


def _see_again(problem: Problem, first: datetime, last: datetime, using: str) -> None:
    """Move what is known of `problem`: the first time only down, the last only up.

    A problem that occurs after it was resolved has regressed. Each update repeats its
    condition, because other writers do the same at the same time.
    """
    row = Problem.objects.using(using).filter(pk=problem.pk)
    if problem.state == ProblemState.RESOLVED:
        after = Q(resolved_at__lt=last) | Q(resolved_at=None, last_seen__lt=last)
        row.filter(after, state=ProblemState.RESOLVED).update(
            state=ProblemState.REGRESSED
        )
    if problem.last_seen < last:
        row.filter(last_seen__lt=last).update(last_seen=last)
    if problem.first_seen > first:
        row.filter(first_seen__gt=first).update(first_seen=first)


def _insert_facets(
    snapshot: Snapshot, problems: dict[str, int], using: str, zone: tzinfo
) -> None:
    values = {
        (
            problems[facet.fingerprint],
            facet.facet,
            facet.bucket.astimezone(zone).date(),
            shortened(facet.value, FACET_LENGTH),
        )
        for facet in snapshot.facets
    }
    ProblemFacet.objects.using(using).bulk_create(
        [
            ProblemFacet(problem_id=problem, facet=facet, day=day, value=value)
            for problem, facet, day, value in sorted(values)
        ],
        batch_size=BATCH_SIZE,
        ignore_conflicts=True,
    )


def _delete(model: type[models.Model], condition: Q, using: str) -> int:
    rows = model._default_manager.using(using).filter(condition)
    deleted = 0
    while batch := list(rows.values_list("pk", flat=True)[:PRUNE_BATCH_SIZE]):
        rows.filter(pk__in=batch).delete()
        deleted += len(batch)
    return deleted
