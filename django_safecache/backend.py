"""`SafeCache`: Django's cache API on memcached, where failures are not misses."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from django_safecache.failure_log import FailureLog
from django_safecache.loaders import Loader, served
from django_safecache.loading import lease_seconds
from django_safecache.memcached.keys import MadeKeys
from django_safecache.memcached.outcomes import observers
from django_safecache.memcached.serde import Encoded, encode
from django_safecache.signals import FailureSignal
from django_safecache.sync_cache import ManyResult, SyncCache
from django_safecache.threads import call_in_orm_thread, in_any_thread, in_own_thread

__all__ = ["ManyResult", "SafeCache"]

PLAIN = frozenset([str, bytes, int, float, bool, type(None)])
"""What can be pickled in any thread. A query, or a lazy user, would open a connection
to the database there, which nobody closes."""

P = ParamSpec("P")
T = TypeVar("T")


class SafeCache(SyncCache):
    """Drop-in for Django's `PyMemcacheCache`: same placement, keys and formats.

    No transport failure reaches the caller, but for `incr` and `decr`, which have no
    harmless answer, and the operations named in OPTIONS["raise_on_unavailable"]: they
    raise `ServerUnavailableError`, which is also a ValueError. Thread-safe.

    An async call is one hop into a thread, for all of it, and into any thread: the
    network is not waited for in the one that Django keeps for the ORM. Only what may
    use that is called there: loaders, a key function or a method of a subclass, and the
    pickling of values that may be lazy.
    """

    async def aget(
        self, key: Any, default: Any = None, version: int | None = None
    ) -> Any:
        if self._is_overridden("get"):
            return await sync_to_async(self.get)(key, default, version)
        label, made = await self._where_keys_are_made(self._made_one)(key, version)
        started = time.monotonic()
        values = await in_any_thread(self._cluster.get)(made, label)
        if values.lost:
            self._raise_if_asked("get", values.lost, values.failures)
            values.found.update(await self._aload({label: made}, None, started))
        return values.found.get(label, default)

    async def aget_many(
        self,
        keys: Iterable[Any],
        version: int | None = None,
        *,
        loader: Loader | None = None,
    ) -> dict[Any, Any]:
        made = await self._amade(keys, version)
        started = time.monotonic()
        values = await in_any_thread(self._cluster.get_many)(made)
        if values.lost:
            self._raise_if_asked("get_many", values.lost, values.failures)
            lost = made.of(values.lost)
            values.found.update(await self._aload(lost, loader, started))
        return values.found

    async def _aload(
        self, lost: Mapping[Any, bytes], loader: Loader | None, started: float
    ) -> dict[Any, Any]:
        if not served(lost, loader):
            return {}
        loading = self._loading(started, call_in_orm_thread())
        return await in_own_thread(loading.load)(lost, loader)

    async def aread_many(
        self, keys: Iterable[Any], version: int | None = None
    ) -> ManyResult:
        return await in_any_thread(self._read_many)(await self._amade(keys, version))

    async def aget_or_load_many(
        self,
        keys: Iterable[Any],
        loader: Loader | None = None,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        lease: float | None = None,
    ) -> dict[Any, Any]:
        lease, made = lease_seconds(lease), await self._amade(keys, version)
        loading = self._loading(time.monotonic(), call_in_orm_thread())
        result = await in_any_thread(self._read_many)(made)
        if not (result.missing or result.unavailable):
            return result.found
        return await in_own_thread(self._load_what_is_not_found)(
            made, result, loader, timeout, lease, loading
        )

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        made = await self._amade(data, version)
        if not set(map(type, data.values())) <= PLAIN:
            data = await sync_to_async(self._encoded)(made, data)
        return await in_any_thread(self._set_many)(made, data, timeout)

    async def adelete_many(
        self, keys: Iterable[Any], version: int | None = None
    ) -> None:
        await in_any_thread(self._delete_many)(await self._amade(keys, version))

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> None:
        value = await self._aencoded("set", key, value, version)
        await self._in_thread("set")(key, value, timeout, version)

    async def aadd(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        value = await self._aencoded("add", key, value, version)
        return bool(await self._in_thread("add")(key, value, timeout, version))

    async def atouch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        return bool(await self._in_thread("touch")(key, timeout, version))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return bool(await self._in_thread("delete")(key, version))

    async def aclear(self) -> None:
        await self._in_thread("clear")()

    # Django's own of these get and set, up to 6.0.

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return int(await self._in_thread("incr")(key, delta, version))

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return int(await self._in_thread("decr")(key, delta, version))

    async def aincr_version(
        self, key: Any, delta: int = 1, version: int | None = None
    ) -> int:
        return int(await self._in_thread("incr_version")(key, delta, version))

    async def adecr_version(
        self, key: Any, delta: int = 1, version: int | None = None
    ) -> int:
        return int(await self._in_thread("decr_version")(key, delta, version))

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return bool(await self._in_thread("has_key")(key, version))

    def _in_thread(self, name: str) -> Callable[..., Awaitable[Any]]:
        """The method `name` of a single key, which calls no loader, in a thread."""
        sensitive = self._takes_keys_one_by_one or self._is_overridden(name)
        return sync_to_async(getattr(self, name), thread_sensitive=sensitive)

    def _is_overridden(self, name: str) -> bool:
        """By a subclass. What is put onto this very object, to watch it, may be called
        in any thread."""
        return getattr(type(self), name) is not getattr(SyncCache, name)

    async def _aencoded(
        self, name: str, key: Any, value: Any, version: int | None
    ) -> Any:
        """`value`, encoded if the method `name` may not do that in any thread."""
        if type(value) in PLAIN or self._is_overridden(name):
            return value
        made = await self._amade([key], version)
        return (await sync_to_async(self._encoded)(made, {key: value}))[key]

    def _encoded(self, made: MadeKeys, data: Mapping[Any, Any]) -> dict[Any, Any]:
        serde = self._options.serde
        return {
            label: Encoded(*encode(serde, key, data[label]))
            for key, label in made.items()
        }

    async def _amade(self, keys: Iterable[Any], version: int | None) -> MadeKeys:
        return await self._where_keys_are_made(self._made)(list(keys), version)

    def _where_keys_are_made(self, make: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        """`make`, called where the site's own key function expects it to be."""
        if self._takes_keys_one_by_one:
            return sync_to_async(make)

        async def make_here(*args: P.args, **kwargs: P.kwargs) -> T:
            return make(*args, **kwargs)

        return make_here


# Here and not in apps.py: they need no more than CACHES.
observers.connect_to_failures(FailureLog())
observers.connect_to_failures(FailureSignal(sender=SafeCache))
