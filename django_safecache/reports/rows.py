"""Which rows answer for a period: the longest buckets that do so exactly.

Whole days come from rows of days, the hours at their edges from rows of hours, and
what is left at the very edges from rows of five minutes. Added to them are the rows
that still have a writer, which are in none of these; so it makes no difference to any
figure what has been rolled up yet.

Where the short rows of a time have been pruned, a period that begins or ends inside a
longer bucket cannot be answered: `answerable` is the one around it that can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

from django.db.models import Q

from django_safecache.conf import get_settings
from django_safecache.models import Horizon, Resolution
from django_safecache.reports.facts import Period

Kept = Mapping[int, datetime]
"""Resolution to the moment that its rows go back to; all the way without one."""

LONGER = {
    Resolution.FIVE_MINUTES: Resolution.HOUR,
    Resolution.HOUR: Resolution.DAY,
}
_SHORTER = {longer: shorter for shorter, longer in LONGER.items()}


def answerable(period: Period) -> Period:
    """The shortest period around this one that there are still rows for.

    Whoever states a period must state this one. What is longer ago than any row is
    left off, unless nothing else would remain.
    """
    return _widened(period, kept())


def kept(*, grace: timedelta = timedelta()) -> Kept:
    rows = Horizon.objects.using(get_settings().database).exclude(kept_from=None)
    pairs = rows.values_list("resolution", "kept_from")
    return {resolution: moment - grace for resolution, moment in pairs if moment}


def to_read(period: Period) -> Period:
    """The period that is answered when `period` is asked for."""
    return _widened(period, kept(grace=Horizon.GRACE))


def rows_of_writers(period: Period) -> Q:
    """What is not rolled up yet."""
    return Q(writer__gt="", bucket__gte=period.start, bucket__lt=period.end)


def rows_rolled_up(
    period: Period,
    longest: Resolution = Resolution.DAY,
    which: Callable[[Resolution, datetime], Q] = lambda resolution, start: Q(),
) -> Q:
    """The rest of what was counted in a period to read: of it, what `which` says of
    the rows of a resolution from a moment on.

    Each of the alternatives has all of the key, or PostgreSQL would read every row.
    """
    found = Q()
    for resolution, start, end in parts(period, longest):
        found |= which(resolution, start) & Q(
            writer="", resolution=resolution, bucket__gte=start, bucket__lt=end
        )
    return found


def parts(
    period: Period, longest: Resolution
) -> Iterator[tuple[Resolution, datetime, datetime]]:
    """Divide a period: the longest buckets in its middle, shorter ones at its edges."""
    return _parts(period.start, period.end, longest)


def longest_in(start: datetime, step: timedelta) -> Resolution:
    """The longest buckets of which steps from `start` on are made."""
    return max(
        resolution
        for resolution in Resolution
        if not step % resolution.length and start == resolution.start_of(start)
    )


def ceil(moment: datetime, resolution: Resolution) -> datetime:
    """The first start of a bucket that is not before `moment`."""
    start = resolution.start_of(moment)
    return start if start == moment else start + resolution.length


def _widened(period: Period, kept: Kept) -> Period:
    start, end = period.start, period.end
    for shorter, longer in LONGER.items():
        since = kept.get(shorter)
        if since is None or start >= since:
            continue
        start = longer.start_of(start)
        if longer.start_of(end) < since:
            end = ceil(end, longer)
    oldest = kept.get(Resolution.DAY)
    if oldest is not None and start < oldest < end:
        start = oldest
    return Period(start, end)


def _parts(
    start: datetime, end: datetime, resolution: Resolution
) -> Iterator[tuple[Resolution, datetime, datetime]]:
    shorter = _SHORTER.get(resolution)
    first, last = ceil(start, resolution), resolution.start_of(end)
    if first < last:
        yield resolution, first, last
    if shorter is None:
        return
    if first < last:
        yield from _parts(start, first, shorter)
        yield from _parts(last, end, shorter)
    else:
        yield from _parts(start, end, shorter)
