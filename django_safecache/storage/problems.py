"""Writes what a recorder holds of problems: found, seen again, where, and how.

What writers share is written here, each statement on its own: it only ever moves one
way, so that half of it does no harm, and no writer waits for another with locks in
hand. In a transaction of the caller's, which keeps them, they are taken in one order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, tzinfo

from django.db import connections, transaction
from django.db.models import Case, F, QuerySet, Sum, Value, When

from django_safecache.database_errors import UNFIT
from django_safecache.models import (
    Problem,
    ProblemCount,
    ProblemFacet,
    ProblemState,
    Resolution,
)
from django_safecache.models.fields import FACET_LENGTH
from django_safecache.recording.fingerprints import Cause, shortened
from django_safecache.recording.snapshots import Snapshot, in_ascii, of_problems
from django_safecache.storage.samples import store_samples
from django_safecache.storage.transactions import unbroken
from django_safecache.storage.upserts import BATCH_SIZE

Refused = dict[str, Exception]
"""Fingerprints of problems that the database does not take, and why not."""


def store(
    snapshot: Snapshot, *, using: str, zone: tzinfo
) -> tuple[dict[str, int], Refused]:
    """Write the problems of `snapshot`, their facets and samples, not their counts.

    Fingerprint to id of all that are there, and those that were left out because of
    what is told of them. `zone` says which day a facet was seen on. Raises what is not
    of a problem.
    """
    refused = _write(snapshot, _create, using)
    known = _known_problems(snapshot.fingerprints - refused.keys(), using)
    found = {fingerprint: problem.pk for fingerprint, problem in known.items()}
    if connections[using].in_atomic_block:
        # It keeps every lock until it ends: before what is theirs is written.
        lock_in_order(found.values(), using)
    _see_again(snapshot, known, using)

    def store_details(some: Snapshot, using: str) -> None:
        ids = [found[fingerprint] for fingerprint in some.fingerprints]
        with transaction.atomic(using=using):
            lock_for_rows_of(ids, using)
            _store_facets(some, found, using, zone)
            store_samples(some.samples, found, using)

    refused |= _write(of_problems(snapshot, known.keys()), store_details, using)
    return {name: found[name] for name in found.keys() - refused.keys()}, refused


def _write(
    snapshot: Snapshot, write: Callable[[Snapshot, str], None], using: str
) -> Refused:
    """Have `write` write all of it that the database takes."""
    refused: Refused = {}
    tries = [snapshot] if snapshot.fingerprints else []
    while tries:
        some = tries.pop()
        try:
            with unbroken(using):
                write(some, using)
        except UNFIT as error:
            others = _instead_of(some)
            if not others:
                refused |= dict.fromkeys(some.fingerprints, error)
            tries += others
    return refused


def _instead_of(snapshot: Snapshot) -> list[Snapshot]:
    """What may be stored of one that is not: its halves, for nobody says which problem
    it is, or a single one in letters that every database has."""
    fingerprints = sorted(snapshot.fingerprints)
    if len(fingerprints) == 1:
        plain = in_ascii(snapshot)
        return [plain] if plain != snapshot else []
    middle = len(fingerprints) // 2
    halves = (fingerprints[middle:], fingerprints[:middle])
    return [of_problems(snapshot, set(half)) for half in halves]


def lock_in_order(problems: Iterable[int], using: str) -> None:
    """Lock these problems, by their ids, in the one order in which all others do."""
    features = connections[using].features
    if not features.has_select_for_update:
        return
    rows = Problem.objects.using(using).select_for_update(
        no_key=features.has_select_for_no_key_update
    )
    ids = sorted(problems)
    for start in range(0, len(ids), BATCH_SIZE):
        batch = rows.filter(pk__in=ids[start : start + BATCH_SIZE]).order_by("pk")
        list(batch.values_list("pk", flat=True))


def lock_for_rows_of(problems: Iterable[int], using: str) -> None:
    """Before rows of these problems are inserted, on MariaDB and MySQL: they lock the
    problem of a new row as well, late, when they have locked the places beside it."""
    if not connections[using].features.has_select_for_no_key_update:
        lock_in_order(problems, using)


def unmute_what_exceeds(
    problems: Iterable[int] | None = None, *, since: datetime, using: str
) -> int:
    """Open again what occurred more often in an hour than it is muted for.

    Looks at the hours of the clock (UTC) from that of `since` on, over all writers,
    without what is from before a problem was muted; at all problems, or those with the
    ids `problems`. Returns how many were opened.
    """
    muted = Problem.objects.using(using).filter(
        state=ProblemState.MUTED, muted_above__isnull=False
    )
    if problems is not None:
        muted = muted.filter(pk__in=list(problems))
    return sum(_unmute(problem, since, using) for problem in muted.order_by("pk"))


def _unmute(problem: Problem, since: datetime, using: str) -> int:
    hour = Resolution.HOUR.start_of(since)
    muted_at = max(hour, problem.muted_at or hour)
    counts = ProblemCount.objects.using(using).filter(
        problem=problem, resolution=Resolution.FIVE_MINUTES, bucket__gte=muted_at
    )
    by_hour: defaultdict[datetime, int] = defaultdict(int)
    buckets = counts.values_list("bucket").annotate(Sum("count")).order_by()
    for bucket, count in buckets:
        by_hour[Resolution.HOUR.start_of(bucket)] += count
    most = problem.muted_above or 0
    until = min((hour for hour, count in by_hour.items() if count > most), default=None)
    if until is None:
        return 0
    # As it was when it was looked at: it may have been muted anew in between.
    row = Problem.objects.using(using).filter(
        pk=problem.pk, state=ProblemState.MUTED, muted_above=problem.muted_above
    )
    return row.filter(muted_at=problem.muted_at).update(
        state=ProblemState.OPEN,
        muted_above=None,
        # Reports of the time before go by it.
        muted_until=max(until, muted_at),
    )


def _seen(snapshot: Snapshot) -> dict[str, list[datetime]]:
    """Fingerprint to moments, the first and the last among them."""
    seen: defaultdict[str, list[datetime]] = defaultdict(list)
    for totals in snapshot.occurrences:
        seen[totals.fingerprint] += [totals.first_seen, totals.last_seen]
    return seen


def _create(snapshot: Snapshot, using: str) -> None:
    """Have a row for each problem that occurred."""
    seen = _seen(snapshot)
    known = _known_problems(snapshot.fingerprints, using)
    new = [
        _problem(cause, min(seen[cause.fingerprint]), max(seen[cause.fingerprint]))
        for cause in sorted(snapshot.causes, key=lambda cause: cause.fingerprint)
        if cause.fingerprint not in known and cause.fingerprint in seen
    ]
    Problem.objects.using(using).bulk_create(
        new, batch_size=BATCH_SIZE, ignore_conflicts=True
    )


def _see_again(snapshot: Snapshot, known: Mapping[str, Problem], using: str) -> None:
    """Bring what is `known` up to date."""
    seen = _seen(snapshot)
    rows = Problem.objects.using(using)
    again = [(known[each], seen[each]) for each in sorted(seen.keys() & known.keys())]
    for problem, moments in again:
        _move_state(problem, moments, rows)
    _move_last_seen(
        {
            problem.pk: max(moments)
            for problem, moments in again
            if problem.last_seen < max(moments)
        },
        using,
    )


def _known_problems(fingerprints: Iterable[str], using: str) -> dict[str, Problem]:
    problems = Problem.objects.using(using)
    return problems.in_bulk(sorted(fingerprints), field_name="fingerprint")


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


def _move_state(
    problem: Problem, seen: Iterable[datetime], rows: QuerySet[Problem]
) -> None:
    """Move what is known of `problem`, but for the last time; the first only down.

    Each update repeats its condition, because other writers do the same at the same
    time. From when until when it was muted is kept: reports of that time go by it.
    """
    first, last = min(seen), max(seen)
    if problem.state == ProblemState.RESOLVED:
        # By when it occurred, not by when that is stored.
        resolved_at = problem.resolved_at or problem.last_seen
        later = [moment for moment in seen if moment > resolved_at]
        if later:
            rows.filter(
                pk=problem.pk,
                state=ProblemState.RESOLVED,
                resolved_at=problem.resolved_at,
            ).update(state=ProblemState.REGRESSED, regressed_at=min(later))
    elif (
        problem.state == ProblemState.MUTED
        and problem.muted_until is not None
        and problem.muted_until <= last
    ):
        rows.filter(
            pk=problem.pk, state=ProblemState.MUTED, muted_until__lte=last
        ).update(state=ProblemState.OPEN, muted_above=None)
    if problem.first_seen > first:
        rows.filter(pk=problem.pk, first_seen__gt=first).update(first_seen=first)


def _move_last_seen(latest: Mapping[int, datetime], using: str) -> None:
    """Move the last time of problems, by their ids, up and never down.

    In few statements: each flush does it, for all problems of the last minutes. Of
    those that another writer has locked each is waited for alone, with no lock in hand
    (in a transaction of the caller's there are none: all were waited for before).
    """
    ids = sorted(latest)
    for start in range(0, len(ids), BATCH_SIZE):
        batch = ids[start : start + BATCH_SIZE]
        with transaction.atomic(using=using):
            free = _locked(batch, using)
            _move_these(free, latest, using)
        for busy in sorted(set(batch).difference(free)):
            _move_these([busy], latest, using)


def _locked(ids: list[int], using: str) -> list[int]:
    """Those that nobody else has locked; now they are, where rows can be."""
    features = connections[using].features
    if not features.has_select_for_update:
        return ids
    if not features.has_select_for_update_skip_locked:
        return []
    rows = Problem.objects.using(using).select_for_update(
        skip_locked=True,
        # As the update does: who stores counts of a problem is not in its way.
        no_key=features.has_select_for_no_key_update,
    )
    return list(rows.filter(pk__in=ids).values_list("pk", flat=True))


def _move_these(ids: list[int], latest: Mapping[int, datetime], using: str) -> None:
    if ids:
        later = [
            When(pk=pk, last_seen__lt=latest[pk], then=Value(latest[pk])) for pk in ids
        ]
        rows = Problem.objects.using(using).filter(pk__in=ids)
        rows.update(last_seen=Case(*later, default=F("last_seen")))


def _store_facets(
    snapshot: Snapshot, found: Mapping[str, int], using: str, zone: tzinfo
) -> None:
    values = {
        (
            found[facet.fingerprint],
            facet.facet,
            facet.bucket.astimezone(zone).date(),
            shortened(facet.value, FACET_LENGTH),
        )
        for facet in snapshot.facets
        if facet.fingerprint in found
    }
    ProblemFacet.objects.using(using).bulk_create(
        [
            ProblemFacet(problem_id=problem, facet=facet, day=day, value=value)
            for problem, facet, day, value in sorted(values)
        ],
        batch_size=BATCH_SIZE,
        ignore_conflicts=True,
    )
