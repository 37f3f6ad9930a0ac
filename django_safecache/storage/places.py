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
            _move_up(missing, until, using)
            _create([wanted[fingerprint] for fingerprint in missing], until, using)
            known |= _known(missing, until, using)
    return known


def _known(
    fingerprints: Collection[str], until: datetime, using: str
) -> dict[str, int]:
    places = CachePlace.objects.using(using).filter(counted_until__gte=until)
    found = places.in_bulk(sorted(fingerprints), field_name="fingerprint")
    return {fingerprint: place.pk for fingerprint, place in found.items()}


def _move_up(fingerprints: Iterable[str], until: datetime, using: str) -> None:
    """Once a day; one after another, for in one statement they are locked in any order,
    which is a deadlock with another writer that does the same.

    From then on a place is not pruned. If it has been before, there is no row to move,
    and it is to be created anew.
    """
    places = CachePlace.objects.using(using).filter(counted_until__lt=until)
    with transaction.atomic(using=using):
        for fingerprint in fingerprints:
            places.filter(fingerprint=fingerprint).update(counted_until=until)


def _create(places: Iterable[CachePlace], until: datetime, using: str) -> None:
    for place in places:
        place.counted_until = until
    CachePlace.objects.using(using).bulk_create(
        places, batch_size=BATCH_SIZE, ignore_conflicts=True
    )
