"""Values that the cache could not give: loaded, shared, and written back."""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django_safecache.loaders import Call, Loader, call_here, load, served
from django_safecache.memcached.cluster import Cluster
from django_safecache.memcached.outcomes import Outcome, observers
from django_safecache.single_flight import PATIENCE, flights, is_loading

LEASE_PREFIX = b"safecache.lease."
FIRST_LOOK, LAST_LOOK = 0.01, 0.1
"""Seconds between two looks for a value that another process is loading; doubled up to
the last."""


@dataclass(frozen=True)
class Loading:
    """How one cache asks loaders. `call` is how a loader is called: in which thread."""

    cluster: Cluster
    chunk_size: int
    call: Call
    since: float
    """When the cache was asked, a monotonic time: nothing older is of use."""

    def load(
        self,
        keys: Mapping[Any, bytes],
        loader: Loader | None,
        call: Call | None = None,
        patience: float = PATIENCE,
    ) -> dict[Any, Any]:
        """The loaders' values of `keys`, made keys by the caller's; counted, if any of
        them has a loader."""
        loaders = served(keys, loader) if keys else ()
        if not loaders:
            return {}
        started = time.monotonic()
        loaded: dict[Any, Any] = {}
        try:
            loaded = load(
                self._identities(keys),
                loaders,
                chunk_size=self.chunk_size,
                since=self.since,
                call=call or self.call,
                patience=patience,
            )
        finally:
            observers.observe(
                Outcome(
                    alias=self.cluster.alias,
                    server="",
                    operation="load",
                    keys=[key for _, its in loaders for key in its],
                    found=loaded,
                    loaded=len(loaded),
                    duration=time.monotonic() - started,
                )
            )
        return loaded

    def _identities(self, keys: Mapping[Any, bytes]) -> dict[Any, Any]:
        # Not shared between calls that load in their own thread and those that send the
        # loader to the ORM's: it may be the very thread that would wait.
        realm = (self.cluster.alias, self.call is call_here)
        return {key: (*realm, made) for key, made in keys.items()}


@dataclass(frozen=True)
class Filling:
    """Loads what is missing and writes it back; `keys` are all that may be asked for.

    `exptime` is the wire's, `undecodable` are those of the keys that the server has a
    value for which nothing can be made of.
    """

    loading: Loading
    keys: Mapping[Any, bytes]
    exptime: int
    undecodable: Collection[Any]
    lease: float | None

    def load(self, loader: Loader | None) -> dict[Any, Any]:
        """The values of all keys that a loader has."""
        if self.lease is None or is_loading():
            return self.loading.load(self.keys, loader, self._fill)
        call = partial(self._fill_leased, time.monotonic() + self.lease)
        return self.loading.load(self.keys, loader, call, PATIENCE + self.lease)

    def _fill(self, loader: Loader, keys: Sequence[Any]) -> Mapping[Any, Any]:
        """Load and write back, with ``add``: a newer value is never overwritten.

        Nor is one written back that this process writes or deletes meanwhile: what was
        read in the database may be older.
        """
        made = {key: self.keys[key] for key in keys}
        with flights.watching(set(made.values())) as overtaken:
            values = self.loading.call(loader, keys)
            given = [
                key for key in keys if key in values and made[key] not in overtaken
            ]
            # Over what cannot be decoded nothing can be added, and it would be loaded
            # again by every call.
            self._delete([key for key in given if key in self.undecodable])
            items = [(key, made[key], values[key]) for key in given]
            self.loading.cluster.store_many("add", items, self.exptime, repeat=True)
            self._delete([key for key in given if made[key] in overtaken])
        return values

    def _delete(self, keys: Collection[Any]) -> None:
        if keys:
            self.loading.cluster.delete_many([(key, self.keys[key]) for key in keys])

    # With leases: one process loads, the others wait for what it writes.

    def _fill_leased(
        self, until: float, loader: Loader, keys: Sequence[Any]
    ) -> Mapping[Any, Any]:
        token = secrets.token_hex(8)
        mine = self._take_leases(keys, token)
        values: dict[Any, Any] = {}
        try:
            # One that held the lease before may have written since this call has read.
            values.update(self._read(mine))
            missing = [key for key in mine if key not in values]
            if missing:
                values.update(self._fill(loader, missing))
        finally:
            self._give_up_leases(mine, token)
        others = [key for key in keys if key not in mine]
        values.update(self._wait_for(others, until))
        missing = [key for key in others if key not in values]
        if missing:
            values.update(self._fill(loader, missing))
        return values

    def _take_leases(self, keys: Sequence[Any], token: str) -> set[Any]:
        """Those of `keys` that nobody else is loading, as far as the server says."""
        statuses = self.loading.cluster.store_many(
            "add",
            [(key, self._lease_key(key), token) for key in keys],
            math.ceil(self.lease or 0),
        )
        return {key for key in keys if statuses.answers.get(key) != b"NOT_STORED"}

    def _give_up_leases(self, keys: Collection[Any], token: str) -> None:
        """Of `keys` those that are held yet: others may have got them since."""
        held = self._held(keys)
        self.loading.cluster.delete_many(
            [(key, self._lease_key(key)) for key in keys if held.get(key) == token]
        )

    def _wait_for(self, keys: Sequence[Any], until: float) -> dict[Any, Any]:
        """What others write of `keys` while they hold the leases."""
        found: dict[Any, Any] = {}
        pause, waiting = FIRST_LOOK, list(keys)
        while waiting:
            # First whether it is still held: what it wrote, it wrote before.
            held = self._held(waiting)
            found.update(self._read(waiting))
            waiting = [key for key in waiting if key in held and key not in found]
            if time.monotonic() >= until:
                break
            time.sleep(pause)
            pause = min(2 * pause, LAST_LOOK)
        return found

    def _held(self, keys: Collection[Any]) -> Mapping[Any, Any]:
        leases = {self._lease_key(key): key for key in keys}
        return self.loading.cluster.get_many(leases).found if leases else {}

    def _read(self, keys: Iterable[Any]) -> dict[Any, Any]:
        made = {self.keys[key]: key for key in keys}
        return self.loading.cluster.get_many(made).found if made else {}

    def _lease_key(self, key: Any) -> bytes:
        """Of a fixed length: with a prefix, a key of 250 bytes would be too long."""
        digest = hashlib.blake2b(self.keys[key], digest_size=16)
        return LEASE_PREFIX + digest.hexdigest().encode()


def overtake(made: Iterable[bytes] | None) -> None:
    """These keys (None: all), of whatever cache, are about to be written."""
    if flights.watches:
        flights.overtake(None if made is None else set(made))


MAX_LEASE = 3600
"""Seconds: also the longest that one that waits for another may wait."""


def lease_seconds(lease: float | None) -> float | None:
    """`lease` if it can be one; raises `ValueError`."""
    if lease is None or (type(lease) in (int, float) and 0 < lease <= MAX_LEASE):
        return lease
    raise ValueError(
        f"lease={lease!r}; expected seconds, over 0 and at most {MAX_LEASE}, or None"
    )
