"""The rows that stand for what is counted apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django_safecache.models import ALL_SERVERS, CachePlace, Together
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


def ids_of(places: Iterable[CachePlace], using: str) -> dict[str, int]:
    """Fingerprint to id of `places`; those that are new are created, parts together
    with their sums.

    Who knows a part then knows what it may have been added to a moment later.
    """
    wanted = {each.fingerprint: each for each in places}
    known = _known(wanted, using)
    if new := wanted.keys() - known.keys():
        created = {
            place.fingerprint: place
            for each in map(wanted.__getitem__, new)
            for place in (each, *sums_with(each))
        }
        CachePlace.objects.using(using).bulk_create(
            [created[fingerprint] for fingerprint in sorted(created)],
            batch_size=BATCH_SIZE,
            ignore_conflicts=True,
        )
        known |= _known(new, using)
    return known


def _known(fingerprints: Collection[str], using: str) -> dict[str, int]:
    places = CachePlace.objects.using(using)
    found = places.in_bulk(sorted(fingerprints), field_name="fingerprint")
    return {fingerprint: place.pk for fingerprint, place in found.items()}
