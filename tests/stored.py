"""Rows as the writers of a site would have left them."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from django.db import transaction

from django_safecache.models import (
    CacheDigest,
    Problem,
    ProblemCount,
    ProblemFacet,
    Resolution,
    Writer,
)
from django_safecache.storage.places import ids_of, place

UTC = timezone.utc


@contextmanager
def shared(blocker, store):
    """What `store` returns; what it stored is there until the block ends.

    For fixtures of a class whose tests start from the same rows, as Django's own
    ``setUpTestData``: the tests run in savepoints of this transaction.
    """
    with blocker.unblock():
        rows = transaction.atomic()
        rows.__enter__()
        made = store()
    yield made
    with blocker.unblock():
        transaction.set_rollback(True)
        rows.__exit__(None, None, None)


def at(*moment):
    return datetime(*moment, tzinfo=UTC)


def bucket_of(moment):
    return moment - timedelta(
        minutes=moment.minute % 5,
        seconds=moment.second,
        microseconds=moment.microsecond,
    )


def reporting(start, end, *, name="writer-1"):
    """A process that reported from `start` to `end`."""
    return Writer.objects.create(
        name=name, host="web-1", pid=1, started=start, last_flush=end
    )


def counted(
    moment, *, server="10.0.0.1:11211", alias="default", key_group="", **counts
):
    """What was counted in the bucket of `moment`."""
    part = place(alias, server, key_group)
    ids = ids_of([part], moment, "default")
    return CacheDigest.objects.create(
        **{
            "resolution": Resolution.FIVE_MINUTES,
            "bucket": bucket_of(moment),
            "place_id": ids[part.fingerprint],
            "writer": "writer-1",
            "calls": 1,
            **counts,
        }
    )


def occurred(
    moment,
    *,
    kind="epipe",
    exception="builtins.BrokenPipeError",
    message="Broken pipe",
    count=1,
    server="10.0.0.1:11211",
    accounts=(),
    call_sites=(),
    **fields,
):
    """A problem that occurred at `moment`, for the first time unless said."""
    number = Problem.objects.count() + 1
    problem = Problem.objects.create(
        **{
            "fingerprint": f"fingerprint-{number}",
            "kind": kind,
            "exception": exception,
            "message": message,
            "first_seen": moment,
            "last_seen": moment,
            **fields,
        }
    )
    ProblemCount.objects.create(
        problem=problem,
        resolution=Resolution.FIVE_MINUTES,
        bucket=bucket_of(moment),
        alias="default",
        server=server,
        writer="writer-1",
        count=count,
    )
    for facet, values in (("account", accounts), ("call_site", call_sites)):
        for value in values:
            ProblemFacet.objects.create(
                problem=problem, day=moment.date(), facet=facet, value=value
            )
    return problem
