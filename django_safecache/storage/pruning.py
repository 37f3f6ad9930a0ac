"""Deletes what is past retention, and never what has yet to be rolled up.

- Rows without a writer: by the retention of their resolution, but counts of problems
  not before `PROBLEM_HOURS_FOR`.
- Rows of a writer: once it is longer ago than the retention of days, for what they
  would be rolled up into would be deleted as well.
- Problems that did not occur for the retention of days, with their samples; the mails
  of such days, with their deliveries.
- Facets: after `FACETS_FOR`, or the retention of days if that is shorter.
- Writers that are long gone: put together, see `_join_writers`; deleted like problems,
  but not before they would have been put together.
- Places: `BURIED_AFTER` the last of their rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.db.models import Min, Q, QuerySet

from django_safecache.conf import PROBLEM_HOURS_FOR, RetentionDays
from django_safecache.models import (
    CacheDigest,
    CachePlace,
    DigestMail,
    Horizon,
    Problem,
    ProblemCount,
    ProblemFacet,
    Resolution,
    Writer,
)
from django_safecache.recording import leftovers
from django_safecache.storage.clocks import database_now
from django_safecache.storage.folding import BUCKET
from django_safecache.storage.locking import locked

# The longest period of the dashboard: on how many accounts is asked of no longer one.
FACETS_FOR = timedelta(days=90)
# A process that was suspended for so long does not come back, nor does one that has
# ended after `DEAD_AFTER`: it would be counted twice, for with its row goes what says
# that its totals are rolled up; and it may be about to store rows of a place.
BURIED_AFTER = timedelta(days=30)
# What a process that ended left behind may be stored for so long, and is known by its
# writer's row alone to be counted already. A day more, for clocks that differ.
LEFTOVERS_FOR = timedelta(seconds=leftovers.MAX_AGE) + timedelta(days=1)
BATCH_SIZE = 1000


def prune(now: datetime, *, using: str, retention: RetentionDays) -> int:
    """Delete, in many short transactions; how many rows they were.

    Raises what the database raises; what was deleted until then stays so.
    """
    kept = {
        Resolution.FIVE_MINUTES: timedelta(days=retention.five_minutes),
        Resolution.HOUR: timedelta(days=retention.hour),
        Resolution.DAY: timedelta(days=retention.day),
    }
    oldest = now - kept[Resolution.DAY]
    deleted = sum(
        _prune_resolution(resolution, now, length, using)
        for resolution, length in kept.items()
    )
    for model in (CacheDigest, ProblemCount):
        deleted += _by_time(model, Q(writer__gt="", bucket__lt=oldest), using)
    facets = (now - min(FACETS_FOR, kept[Resolution.DAY])).date()
    deleted += _by_id(ProblemFacet, Q(day__lt=facets), using)
    deleted += _by_id(Problem, Q(last_seen__lt=oldest), using)
    deleted += _by_id(DigestMail, Q(day__lt=oldest.date()), using)
    deleted += _prune_places(now - max(kept.values()) - BURIED_AFTER, using)
    deleted += _join_writers(now, using)
    silent = Q(last_flush__lt=min(oldest, now - LEFTOVERS_FOR))
    return deleted + _by_id(Writer, silent, using)


def _prune_resolution(
    resolution: Resolution, now: datetime, length: timedelta, using: str
) -> int:
    """Say that the rows are gone, then delete them."""
    kept_from = resolution.start_of(now - length)
    horizon = Horizon.objects.using(using).filter(resolution=resolution)
    moved = horizon.filter(Q(kept_from=None) | Q(kept_from__lt=kept_from))
    moved.update(kept_from=kept_from)
    _bring_back(horizon, resolution, now, using)
    old = Q(writer="", resolution=resolution)
    deleted = _by_time(
        CacheDigest, old & Q(bucket__lt=kept_from - Horizon.GRACE), using
    )
    if resolution is Resolution.HOUR:
        kept_from = min(kept_from, now - PROBLEM_HOURS_FOR)
    return deleted + _by_time(
        ProblemCount, old & Q(bucket__lt=kept_from - Horizon.GRACE), using
    )


def _bring_back(
    horizon: QuerySet[Horizon], resolution: Resolution, now: datetime, using: str
) -> None:
    """Undo a `kept_from` in the future, which a clock that was ahead has said.

    What it took for old is gone, up to now as far as anybody knows.
    """
    latest = max(now, database_now(using))
    next_bucket = resolution.start_of(latest) + resolution.length
    horizon.filter(kept_from__gt=next_bucket).update(kept_from=next_bucket)


def _by_time(
    model: type[CacheDigest] | type[ProblemCount], condition: Q, using: str
) -> int:
    """Delete counts: those of an hour, or of one longer bucket, in a transaction."""
    rows = model._default_manager.using(using).filter(condition)
    deleted = 0
    while first := rows.aggregate(first=Min("bucket"))["first"]:
        with locked(using):
            number, _ = rows.filter(bucket__lt=first + Resolution.HOUR.length).delete()
        deleted += number
    return deleted


def _by_id(model: type[models.Model], condition: Q, using: str) -> int:
    rows = model._default_manager.using(using).filter(condition)
    deleted = 0
    while batch := list(rows.values_list("pk", flat=True)[:BATCH_SIZE]):
        with locked(using):
            _, by_model = rows.filter(pk__in=batch).delete()
        deleted += by_model.get(model._meta.label, 0)
    return deleted


def _prune_places(unused_since: datetime, using: str) -> int:
    """Delete the places of which no row begins since then.

    Who is about to store one has moved the place up before, see `places.ids_of`: the
    condition is looked at again by the statement that deletes, as it is not when
    Django collects the rows first.
    """
    with locked(using):
        places = CachePlace.objects.using(using)
        unused = places.filter(counted_until__lte=unused_since)
        return unused._raw_delete(using)


def _join_writers(now: datetime, using: str) -> int:
    """Put the rows of writers that are long gone together; how many rows fewer.

    What remains is when some process reported without a break, which is how zero is
    told from no data. A break that is shorter than a bucket makes no difference.
    """
    long_gone = Q(ended__lt=now - LEFTOVERS_FOR) | Q(last_flush__lt=now - BURIED_AFTER)
    rows = Writer.objects.using(using)
    with locked(using):
        kept: list[Writer] = []
        absorbed = []
        for writer in rows.filter(long_gone).order_by("started", "pk"):
            if not kept or writer.started > kept[-1].last_flush + BUCKET:
                kept.append(writer)
                continue
            last = kept[-1]
            last.last_flush = last.ended = max(last.last_flush, writer.last_flush)
            last.dropped += writer.dropped
            last.flush_errors += writer.flush_errors
            absorbed.append(writer.pk)
        if absorbed:
            fields = ["last_flush", "ended", "dropped", "flush_errors"]
            rows.bulk_update(kept, fields, batch_size=BATCH_SIZE)
            for start in range(0, len(absorbed), BATCH_SIZE):
                rows.filter(pk__in=absorbed[start : start + BATCH_SIZE]).delete()
    return len(absorbed)
