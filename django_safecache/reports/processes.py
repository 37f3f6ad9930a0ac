"""The processes that report: how they are, and when there was any."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.utils import timezone

from django_safecache.conf import get_settings
from django_safecache.models import Resolution, Writer
from django_safecache.reports.facts import BUCKET, Period, WriterStatus
from django_safecache.reports.rows import kept

Span = tuple[datetime, datetime]
"""From when to when."""

# A writer that missed this many flushes, and a minute, is in trouble or gone.
STALE_AFTER_FLUSHES = 6
WRITERS_SHOWN_FOR = timedelta(days=1)


def writers() -> list[WriterStatus]:
    """The processes that report, or did within a day and ended without saying so."""
    conf = get_settings()
    now = timezone.now()
    patience = timedelta(seconds=max(60, STALE_AFTER_FLUSHES * conf.flush_interval))
    rows = Writer.objects.using(conf.database).filter(
        ended=None, last_flush__gte=now - WRITERS_SHOWN_FOR
    )
    return [
        WriterStatus(
            writer=row.name,
            host=row.host,
            pid=row.pid,
            started=row.started,
            last_flush=row.last_flush,
            dropped=row.dropped,
            flush_errors=row.flush_errors,
            last_error=row.last_error,
            stale=now - row.last_flush > patience,
        )
        for row in rows.order_by("host", "pid", "started")
    ]


def reporting(period: Period) -> list[Span]:
    """When some process reported, in order: of the period, and of what is kept.

    Writers are known for longer than what they counted, which would be told as zero.
    """
    writers = (
        Writer.objects.using(get_settings().database)
        .filter(started__lt=period.end, last_flush__gte=period.start)
        .values_list("started", "last_flush")
        .order_by("started")
    )
    oldest = kept().get(Resolution.DAY)
    spans: list[Span] = []
    for since, until in writers:
        # No bucket is within a break that is shorter than one.
        if spans and since <= spans[-1][1] + BUCKET:
            spans[-1] = spans[-1][0], max(until, spans[-1][1])
        else:
            spans.append((since, until))
    if oldest is None:
        return spans
    return [(max(since, oldest), until) for since, until in spans if until >= oldest]


def reported_before(moment: datetime) -> bool:
    """Whether any process had begun to report before `moment`."""
    rows = Writer.objects.using(get_settings().database)
    return rows.filter(started__lt=moment).exists()


def covers(spans: Iterable[Span], start: datetime, end: datetime) -> bool:
    return any(since < end and until >= start for since, until in spans)
