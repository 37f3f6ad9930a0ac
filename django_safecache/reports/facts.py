"""The questions and answers of reports: periods, totals, rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo

from django.db.models import TextChoices
from django.utils import timezone as django_timezone
from django.utils.translation import gettext_lazy as _

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models import Resolution
from django_safecache.recording import histogram

_FIVE_MINUTES = Resolution.FIVE_MINUTES
BUCKET = _FIVE_MINUTES.length


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` up to and without `end`, both on the edge of a bucket.

    Raises ValueError for naive datetimes, for edges inside a bucket, whose counts
    cannot be divided, and for an end that is not after the start.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for edge in (self.start, self.end):
            if edge.tzinfo is None:
                raise ValueError(f"a period needs aware datetimes, not {edge}")
            if edge != _FIVE_MINUTES.start_of(edge):
                raise ValueError(f"{edge} is not on the edge of a bucket of {BUCKET}")
        if self.start >= self.end:
            raise ValueError(f"a period cannot end at {self.end}, before its start")

    @classmethod
    def last(
        cls,
        *,
        hours: float,
        now: datetime | None = None,
        whole: Resolution = _FIVE_MINUTES,
    ) -> Period:
        """The last `hours`, the bucket that is still filling included.

        Longer, where they begin inside a bucket that is to be `whole`: a period that
        begins with an hour, or with a day, is answered from far fewer rows.
        """
        end = _FIVE_MINUTES.start_of(now or django_timezone.now()) + BUCKET
        return cls(whole.start_of(end - timedelta(hours=hours)), end)

    @classmethod
    def for_day(cls, day: date, tz: tzinfo) -> Period:
        """The local day: 23 or 25 hours long where clocks are changed."""
        midnight = datetime.combine(day, time(), tz)
        next_midnight = datetime.combine(day + timedelta(days=1), time(), tz)
        return cls(
            midnight.astimezone(timezone.utc), next_midnight.astimezone(timezone.utc)
        )

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def before(self) -> Period:
        """The period of the same length that ends where this one starts."""
        return Period(self.start - self.length, self.start)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a period. Durations are seconds, bytes are bytes on the wire.

    `calls`, the durations and their counts are of calls to servers; where a single
    server is meant that is empty, the loaders, they are of calls to loaders.
    """

    calls: int = 0
    lines: int = 0
    hits: int = 0
    misses: int = 0
    unavailable: int = 0
    loaded: int = 0
    stores: int = 0
    deletes: int = 0
    retries: int = 0
    splits: int = 0
    failures: Mapping[str, int] = field(
        default_factory=lambda: dict.fromkeys(FAILURE_KINDS, 0)
    )
    """Kind to count, every kind present."""
    bytes_sent: int = 0
    bytes_received: int = 0
    duration_sum: float = 0.0
    duration_max: float = 0.0
    durations: tuple[int, ...] = (0,) * len(histogram.COLUMNS)
    """Calls by duration, see `histogram.UPPER_BOUNDS`."""

    @property
    def hit_ratio(self) -> float | None:
        """Hits of what was answered, 0 to 1; None when nothing was."""
        answered = self.hits + self.misses
        return self.hits / answered if answered else None

    @property
    def errors(self) -> int:
        return sum(self.failures.values())

    def duration_percentile(self, fraction: float) -> float | None:
        """Seconds that `fraction` of the calls took at most, see `histogram`."""
        return histogram.percentile(self.durations, fraction)


@dataclass(frozen=True, slots=True)
class ServerTotals:
    """`server` is empty for the loaders of the alias."""

    alias: str
    server: str
    totals: Totals


@dataclass(frozen=True, slots=True)
class KeyGroupTotals:
    """`key_group` is empty for the keys that are in no group."""

    alias: str
    key_group: str
    totals: Totals


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was counted in two periods; None for one that nothing is known of."""

    period: Period
    totals: Totals | None
    period_before: Period
    before: Totals | None


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """`totals` is None for a time that nothing is known of, which is not zero."""

    start: datetime
    end: datetime
    totals: Totals | None


class ProblemStatus(TextChoices):
    """What is to be said of a problem that occurred in a period: the first that holds.

    New: it was never seen before the period. Regressed: it occurred in the period
    after it had been resolved. Escalating: see `causes`.
    """

    MUTED = "muted", _("muted")
    NEW = "new", _("new")
    REGRESSED = "regressed", _("regressed")
    ESCALATING = "escalating", _("escalating")
    ONGOING = "ongoing", _("ongoing")


@dataclass(frozen=True, slots=True)
class ProblemCountRow:
    """A problem, and how it occurred in a period.

    `count` and `servers` are of the period; `accounts` (how many different ones) and
    `call_sites` are of all local days that the period touches. In a storm they are
    those of the first occurrences in each bucket: there may be more.
    """

    problem_id: int
    fingerprint: str
    kind: str
    exception: str
    errno: int | None
    message: str
    state: str
    first_seen: datetime
    last_seen: datetime
    count: int
    accounts: int
    servers: tuple[str, ...]
    call_sites: tuple[str, ...]
    history: tuple[int | None, ...]
    """Occurrences on each of the 14 days that end where the period starts (or at the
    whole hour before), the first of them first; None for days that nothing is known of
    (any more), or that ended before the problem was first seen. Longer ago they may be
    days of UTC."""
    usual: float | None
    """The mean of those, for as long a time as the period; None without any."""
    status: ProblemStatus
    """What it was in the period, where `state` is what it is now."""


@dataclass(frozen=True, slots=True)
class WorstProblems:
    """What is to be told first of the problems of a period, and what all of them are.

    `numbers` is how many problems there are by status; `occurrences` by kind, without
    those of problems that were muted.
    """

    told: tuple[ProblemCountRow, ...]
    numbers: Mapping[str, int]
    occurrences: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """A process that reports; `stale` when its last flush is too long ago."""

    writer: str
    host: str
    pid: int
    started: datetime
    last_flush: datetime
    dropped: int
    flush_errors: int
    last_error: str
    stale: bool
