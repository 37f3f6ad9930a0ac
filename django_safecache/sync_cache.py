"""The part of `SafeCache` that waits for the network in the caller's own thread."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ImproperlyConfigured

from django_safecache.clusters import UNNAMED, alias_of, cluster_of
from django_safecache.exceptions import ServerUnavailableError
from django_safecache.key_making import KeyMakingCache
from django_safecache.loaders import Call, Loader, call_here
from django_safecache.loading import Filling, Loading, lease_seconds, overtake
from django_safecache.memcached.cluster import Statuses
from django_safecache.memcached.keys import MadeKeys
from django_safecache.memcached.options import Options
from django_safecache.memcached.outcomes import Failure
from django_safecache.memcached.server import ServerStatus


@dataclass(frozen=True, slots=True)
class ManyResult:
    """What became of each key of a `read_many`, nothing hidden.

    A key is in exactly one of `found`, `missing` (the server has not got it, or has
    something that cannot be decoded: those are in `undecodable` too) and `unavailable`
    (the server did not answer for it); `failures` say why.
    """

    found: dict[Any, Any]
    missing: list[Any]
    unavailable: list[Any]
    failures: tuple[Failure, ...]
    undecodable: list[Any]


class SyncCache(KeyMakingCache):
    """What `SafeCache` does but for its async methods."""

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        alias = alias_of(type(self), server, params)
        try:
            options = Options.parse(params.get("OPTIONS") or {})
            self._cluster = cluster_of(alias, server, options)
        except (ValueError, TypeError) as error:
            raise ImproperlyConfigured(
                f"CACHES[{alias or UNNAMED!r}]: {error}"
            ) from error
        super().__init__(params, options)
        self.alias = self._cluster.alias

    # Reading.

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """The value; if the server does not answer, the key's loader's; else
        `default`."""
        label, made = self._made_one(key, version)
        started = time.monotonic()
        values = self._cluster.get(made, label)
        if values.found:
            return values.found[label]
        if values.lost:
            self._raise_if_asked("get", values.lost, values.failures)
            loading = self._loading(started)
            return loading.load({label: made}, None).get(label, default)
        return default

    def get_many(
        self,
        keys: Iterable[Any],
        version: int | None = None,
        *,
        loader: Loader | None = None,
    ) -> dict[Any, Any]:
        """The values of the keys that have one.

        `loader`, or each key's registered one, gives those of the keys the servers
        did not answer for; a key that is just not cached stays out.
        """
        made, started = self._made(keys, version), time.monotonic()
        values = self._cluster.get_many(made)
        if values.lost:
            self._raise_if_asked("get_many", values.lost, values.failures)
            lost = made.of(values.lost)
            values.found.update(self._loading(started).load(lost, loader))
        return values.found

    def read_many(self, keys: Iterable[Any], version: int | None = None) -> ManyResult:
        """What the servers said of each key. Calls no loader and raises nothing of
        the transport."""
        return self._read_many(self._made(keys, version))

    def get_or_load_many(
        self,
        keys: Iterable[Any],
        loader: Loader | None = None,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        lease: float | None = None,
    ) -> dict[Any, Any]:
        """The values of all keys that the cache or the loader has.

        The loader gives those of missing and unavailable keys alike; threads that want
        the same keys share one load. Values of missing keys are written back with
        ``add``, so that a newer value is never overwritten. A key that the loader
        leaves out is asked for again next time; one that it gives None is cached.

        `lease` seconds long only one process loads a missing key; the others wait for
        its value that long, and load it themselves if it does not come.
        """
        lease, made = lease_seconds(lease), self._made(keys, version)
        loading = self._loading(time.monotonic())
        result = self._read_many(made)
        return self._load_what_is_not_found(
            made, result, loader, timeout, lease, loading
        )

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Whether the server says that it has the key; False if it says nothing."""
        label, made = self._made_one(key, version)
        return bool(self._cluster.get(made, label).found)

    def _read_many(self, made: MadeKeys) -> ManyResult:
        values = self._cluster.get_many(made)
        lost = set(values.lost)
        return ManyResult(
            found=values.found,
            missing=[
                key
                for key in made.values()
                if key not in values.found and key not in lost
            ],
            unavailable=list(values.lost),
            failures=tuple(values.failures),
            undecodable=list(values.undecodable),
        )

    def _load_what_is_not_found(
        self,
        made: MadeKeys,
        result: ManyResult,
        loader: Loader | None,
        timeout: Any,
        lease: float | None,
        loading: Loading,
    ) -> dict[Any, Any]:
        """All values: those found, and the loaders'; the missing ones written back."""
        filling = Filling(
            loading,
            made.of(result.missing),
            exptime=self.get_backend_timeout(timeout),
            undecodable=result.undecodable,
            lease=lease,
        )
        filled = filling.load(loader)
        loaded = loading.load(made.of(result.unavailable), loader)
        return {**result.found, **filled, **loaded}

    def _loading(self, since: float, call: Call = call_here) -> Loading:
        return Loading(self._cluster, self._options.loader_chunk_size, call, since)

    # Writing.

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> None:
        """Store; if the server refuses the value, the old one is deleted."""
        label, made = self._made_one(key, version)
        overtake([made])
        statuses = self._store("set", label, made, value, timeout)
        if statuses.refusals:
            self._cluster.delete(label, made)

    def add(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """Whether the value was stored, because the key had none. False also if the
        server did not answer."""
        label, made = self._made_one(key, version)
        statuses = self._store("add", label, made, value, timeout)
        return b"STORED" in statuses.answers.values()

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """Store all; returns the keys that were not stored, for whatever reason."""
        return self._set_many(self._made(data, version), data, timeout)

    def _set_many(
        self, made: MadeKeys, data: Mapping[Any, Any], timeout: Any
    ) -> list[Any]:
        overtake(made.keys())
        statuses = self._cluster.store_many(
            "set",
            [(key, encoded, data[key]) for encoded, key in made.items()],
            self.get_backend_timeout(timeout),
        )
        self._raise_if_asked("set_many", statuses.lost, statuses.failures)
        answers = statuses.answers
        return [key for key in made.values() if answers.get(key) != b"STORED"]

    def touch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Whether the server has the key and gave it the new timeout."""
        label, made = self._made_one(key, version)
        exptime = self.get_backend_timeout(timeout)
        statuses = self._cluster.touch(label, made, exptime)
        self._raise_if_asked("touch", statuses.lost, statuses.failures)
        return b"TOUCHED" in statuses.answers.values()

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Whether the server had the key and deleted it."""
        label, made = self._made_one(key, version)
        overtake([made])
        statuses = self._cluster.delete(label, made)
        self._raise_if_asked("delete", statuses.lost, statuses.failures)
        return b"DELETED" in statuses.answers.values()

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self._delete_many(self._made(keys, version))

    def _delete_many(self, made: MadeKeys) -> None:
        overtake(made.keys())
        statuses = self._cluster.delete_many(
            [(key, encoded) for encoded, key in made.items()]
        )
        self._raise_if_asked("delete_many", statuses.lost, statuses.failures)

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """The new number. ValueError if there is none; `ServerUnavailableError`, a
        ValueError too, if the server did not say."""
        delta = operator.index(delta)
        operation = "decr" if delta < 0 else "incr"
        label, made = self._made_one(key, version)
        statuses = self._cluster.arithmetic(operation, label, made, abs(delta))
        if statuses.lost:
            raise _unavailable(operation, statuses.failures)
        if statuses.refusals:
            raise ValueError(f"Key {key!r}: {statuses.refusals[label]}")
        if statuses.answers[label] == b"NOT_FOUND":
            raise ValueError(f"Key '{key}' not found")
        return int(statuses.answers[label])

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """As Django's, but no loader stands in for the value to be moved."""
        if version is None:
            version = self.version
        result = self.read_many([key], version)
        if result.unavailable:
            raise _unavailable("incr_version", result.failures)
        if result.missing:
            raise ValueError(f"Key '{key}' not found")
        self.set(key, result.found[key], version=version + delta)
        self.delete(key, version=version)
        return version + delta

    def clear(self) -> None:
        """Empty every server that answers, other caches' keys on it included."""
        overtake(None)
        self._cluster.flush_all()

    def _store(
        self, command: str, label: Any, made: bytes, value: Any, timeout: Any
    ) -> Statuses:
        exptime = self.get_backend_timeout(timeout)
        statuses = self._cluster.store(command, label, made, value, exptime)
        self._raise_if_asked(command, statuses.lost, statuses.failures)
        return statuses

    def _raise_if_asked(
        self, operation: str, lost: Sequence[Any], failures: Sequence[Failure]
    ) -> None:
        if lost and operation in self._options.raise_on_unavailable:
            raise _unavailable(operation, failures)

    # Connections.

    def close(self, **kwargs: Any) -> None:
        """Does nothing: Django calls it after every request, and connections are
        worth keeping. `disconnect_all` closes them."""

    def server_status(self) -> list[ServerStatus]:
        """What this process knows of each server; asks none."""
        return self._cluster.status()

    def disconnect_all(self) -> None:
        """Close all connections that are not in use."""
        self._cluster.close()


def _unavailable(operation: str, failures: Sequence[Failure]) -> ServerUnavailableError:
    """The error that names the last failure of those that lost keys."""
    last = next(each for each in reversed(failures) if each.kind != "undecodable")
    return ServerUnavailableError(last.server, last.kind, operation)
