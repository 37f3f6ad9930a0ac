"""The rows that stand for what is counted apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from django.db import transaction

from django_safecache.models import ALL_SERVERS, CachePlace, Resolution, Together
from django_safecache.models.fields import (
    ALIAS_LENGTH,
    KEY_GROUP_LENGTH,
    SERVER_LENGTH,
    hash_of,
)
from django_safecache.recording.fingerprints import shortened
from django_safecache.storage.upserts import BATCH_SIZE


def place(alias: str, server: str, key_group: str) -> CachePlace:
    """The place of these names; it is not stored."""
    return _place(
        shortened(alias, ALIAS_LENGTH),
        shortened(server, SERVER_LENGTH),
        shortened(key_group, KEY_GROUP_LENGTH),
        Together.NOTHING,
    )


def sums_with(part: CachePlace) -> tuple[CachePlace, ...]:
    """The places that a part is added to, not stored. Loaders stay apart."""
    if part.together:
        return ()
    servers = ALL_SERVERS if part.server else ""
    return (
        _place(part.alias, part.server, "", Together.KEY_GROUPS),
        _place(part.alias, servers, part.key_group, Together.SERVERS),
    )


def _place(alias: str, server: str, key_group: str, together: Together) -> CachePlace:
    return CachePlace(
        fingerprint=hash_of(alias, server, key_group, together.value),
        alias=alias,
        server=server,
        key_group=key_group,
        together=together,
    )


def ids_of(
    places: Iterable[CachePlace], bucket: datetime, using: str
) -> dict[str, int]:
    """Fingerprint to id of `places` and, where they are parts, of their sums, which may
    be counted in buckets up to `bucket` now.

    Those that are new are created: parts and their sums together, so that who knows a
    part knows what it may have been added to a moment later.
    """
    wanted = {
        place.fingerprint: place
        for each in places
        for place in (each, *sums_with(each))
    }
    until = Resolution.DAY.start_of(bucket) + Resolution.DAY.length
    known = _known(wanted, until, using)
    # Twice, for another writer may create one in between, for the day before.
    for _ in range(2):
        if missing := sorted(wanted.keys() - known.keys()):
            _count_until(until, map(wanted.__getitem__, missing), using)
            known |= _known(missing, until, using)
    return known


def _known(
    fingerprints: Collection[str], until: datetime, using: str
) -> dict[str, int]:
    places = CachePlace.objects.using(using).filter(counted_until__gte=until)
    found = places.in_bulk(sorted(fingerprints), field_name="fingerprint")
    return {fingerprint: place.pk for fingerprint, place in found.items()}


def _count_until(until: datetime, places: Iterable[CachePlace], using: str) -> None:
    """Move `places` up or create them, in the order of their fingerprints: locked in
    another, they are deadlocks with writers that do the same at the end of a day.

    What is moved up is not pruned from then on. What was pruned before has no row to
    be moved, and is created anew.
    """
    rows = CachePlace.objects.using(using)
    new = []
    with transaction.atomic(using=using):
        for place in places:
            row = rows.filter(fingerprint=place.fingerprint, counted_until__lt=until)
            if not row.update(counted_until=until):
                place.counted_until = until
                new.append(place)
    rows.bulk_create(new, batch_size=BATCH_SIZE, ignore_conflicts=True)
