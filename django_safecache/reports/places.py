"""Which places there are rows to read of: what is asked for, and what is in use.

Of ten servers that get new addresses every week there are ten thousand in a year.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from django.db.models import Min, Q

from django_safecache.conf import get_settings
from django_safecache.models import CacheDigest, CachePlace, Resolution, Together
from django_safecache.models.fields import (
    ALIAS_LENGTH,
    KEY_GROUP_LENGTH,
    SERVER_LENGTH,
)
from django_safecache.recording.fingerprints import shortened
from django_safecache.reports.facts import Period
from django_safecache.reports.rows import parts, rows_of_writers

_LENGTHS = {
    "alias": ALIAS_LENGTH,
    "server": SERVER_LENGTH,
    "key_group": KEY_GROUP_LENGTH,
}


class Place(NamedTuple):
    id: int
    alias: str
    server: str
    key_group: str
    together: str
    counted_until: datetime


def places_in(
    period: Period, longest: Resolution, together: Together, **asked: str | None
) -> list[Place]:
    """Those that the period is answered from, and that have the names asked for.

    The names are compared here as well: to a database they may be the same when only
    their case differs.
    """
    named = {
        # As it is stored, whether it is asked for in full or not.
        name: shortened(value, _LENGTHS[name])
        for name, value in asked.items()
        if value is not None
    }
    in_use = Q()
    for kind, start in _first_rows(period, longest, together).items():
        in_use |= Q(together=kind, counted_until__gt=start)
    rows = CachePlace.objects.using(get_settings().database).filter(in_use, **named)
    return [
        place
        for place in map(Place._make, rows.values_list(*Place._fields))
        if all(getattr(place, name) == value for name, value in named.items())
    ]


def _first_rows(
    period: Period, longest: Resolution, together: Together
) -> Mapping[Together, datetime]:
    """The kinds of places that rows are read of, and when the first of these begin.

    Parts are read as rows of writers, which are of the last minutes where somebody
    rolls up. So of each address of the period its sum is read, not its twenty parts.
    """
    rows = CacheDigest.objects.using(get_settings().database)
    oldest = rows.filter(rows_of_writers(period)).aggregate(start=Min("bucket"))[
        "start"
    ]
    firsts = {Together.NOTHING: oldest} if oldest else {}
    for resolution, start, _ in parts(period, longest):
        kind = together.of(resolution)
        firsts[kind] = min(start, firsts.get(kind, start))
    return firsts
