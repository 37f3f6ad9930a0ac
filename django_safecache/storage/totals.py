"""Writes what a recorder holds into the rows of its writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from typing import TypeVar

from django.db import transaction
from django.db.models import Q

from django_safecache.models import (
    ALIAS_LENGTH,
    FACET_LENGTH,
    HOST_LENGTH,
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
from django_safecache.recording.fingerprints import Cause, shortened
from django_safecache.recording.snapshots import Snapshot
from django_safecache.storage.places import ids_of, place
from django_safecache.storage.upserts import (
    BATCH_SIZE,
    CELL_KEY,
    CELL_TOTALS,
    COUNT_KEY,
    upsert,
)

_Row = TypeVar("_Row", CacheDigest, ProblemCount)
_CellPlace = tuple[str, str, str]


def store(
    snapshot: Snapshot,
    *,
    using: str,
    zone: tzinfo,
    flush_errors: int = 0,
    ended: bool = False,
) -> int:
    """Make the database say what `snapshot` says. Raises what the database raises.

    The totals of the writer are replaced, all of them or none: storing a snapshot
    again, or a later one, counts nothing twice. What writers share (problems, facets
    and places) is written before, each statement on its own: it only ever moves one
    way, so that half of it does no harm, and no writer waits for another with locks
    in hand. `zone` says which day a facet was seen on.

    Returns how many totals were left out because the writer had been given up for
    dead, and its rows of that time rolled up: see `storage.folding`.
    """
    problems = _problems(snapshot, using)
    _insert_facets(snapshot, problems, using, zone)
    places = _places(snapshot, using)
    with transaction.atomic(using=using):
        # First, so that its row is locked: nobody rolls up what is being replaced.
        settled = _see_writer(snapshot, using, flush_errors=flush_errors, ended=ended)
        cells = _cells(snapshot, places)
        counts = _counts(snapshot, problems)
        upsert(_since(settled, cells), using, key=CELL_KEY, totals=CELL_TOTALS)
        upsert(_since(settled, counts), using, key=COUNT_KEY, totals=("count",))
    buckets = [cell.bucket for cell in cells] + [count.bucket for count in counts]
    return sum(bucket < settled for bucket in buckets)


def _see_writer(
    snapshot: Snapshot, using: str, *, flush_errors: int, ended: bool
) -> datetime:
    """Lock the writer's row and bring it up to date; what starts before the result
    must not be stored."""
    name = shortened(snapshot.writer.name, WRITER_LENGTH)
    writer = Writer(
        name=name,
        host=shortened(snapshot.writer.host, HOST_LENGTH),
        pid=snapshot.writer.pid,
        started=snapshot.writer.started,
        last_flush=snapshot.taken,
        ended=snapshot.taken if ended else None,
        settled=snapshot.settled_before,
        dropped=snapshot.dropped,
        flush_errors=flush_errors,
    )
    told = ("last_flush", "ended", "dropped", "flush_errors")
    upsert([writer], using, key=("name",), totals=told)
    row = Writer.objects.using(using).filter(name=name)
    settled = row.values_list("settled", flat=True).get() or snapshot.settled_before
    if settled < snapshot.settled_before:
        row.update(settled=snapshot.settled_before)
    return max(settled, snapshot.settled_before)


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
    ids = ids_of(places.values(), using)
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
