"""`outage`: caches that fail for as long as a test wants them to."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast
from weakref import WeakKeyDictionary

from asgiref.sync import iscoroutinefunction
from django.core.cache import caches

from django_safecache.backend import SafeCache
from django_safecache.memcached.connection import Connection
from django_safecache.memcached.placement import parse_address
from django_safecache.memcached.pool import Pool
from django_safecache.memcached.server import Server
from django_safecache.testing.severed import CUTS, Severed

P = ParamSpec("P")
T = TypeVar("T")


def outage(
    kind: str, *, alias: str | None = "default", server: str | None = None
) -> Outage:
    """Caches whose servers fail in the way of `kind`, where and while it is used.

    As ``with outage("timeout"):``, or ``@outage("epipe")`` on a function or coroutine
    function. `alias` is one in CACHES, None all that are a `SafeCache`; `server` one
    entry of their LOCATION, None all. Raises `ValueError` for a kind that it cannot
    make; and, where it begins, for an alias or server that there is not.

    No server is needed or reached, and what fails is the network: everything else is
    as in production. A timeout takes its time, and after the first refusal or the third
    timeout the breaker is open. Holds in all threads and tasks of this process, for
    CACHES as they are when it begins. Within another, the one that began last counts.
    Begins and ends with breakers closed and no connection open.
    """
    if kind not in CUTS:
        raise ValueError(f"no outage of kind {kind!r}; there are {', '.join(CUTS)}")
    return Outage(kind, alias, server)


class Outage:
    """What `outage` returns. May be used again, also within itself."""

    def __init__(self, kind: str, alias: str | None, server: str | None) -> None:
        self._kind = kind
        self._alias = alias
        self._server = server
        self._begun: list[ExitStack] = []

    def __enter__(self) -> Outage:
        with ExitStack() as begun:
            for server in _servers(self._alias, self._server):
                begun.enter_context(_cut_off(server, self._kind))
            self._begun.append(begun.pop_all())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._begun.pop().close()

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """`function` with the outage for the time of each call.

        `TypeError` for what runs later than it is called, and for classes.
        """
        if inspect.isclass(function) or _is_generator(function):
            raise TypeError(f"outage() decorates functions, not {function!r}")
        if iscoroutinefunction(function):
            return cast(Callable[P, T], self._around_coroutine(function))

        @functools.wraps(function)
        def failing(*args: P.args, **kwargs: P.kwargs) -> T:
            with self:
                return function(*args, **kwargs)

        return failing

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def failing(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        return failing


def _is_generator(function: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _servers(alias: str | None, name: str | None) -> list[Server]:
    """The servers meant, each once; `ValueError` if there are none."""
    # Two aliases with the same configuration share their servers.
    servers = dict.fromkeys(
        server for cache in _safe_caches(alias) for server in cache._cluster.servers
    )
    if name is None:
        return list(servers)
    wanted = parse_address(name).name
    found = [server for server in servers if server.name == wanted]
    if not found:
        place = "a SafeCache" if alias is None else f"CACHES[{alias!r}]"
        names = ", ".join(dict.fromkeys(server.name for server in servers))
        raise ValueError(f"{place} has no server {name!r}; there are {names}")
    return found


def _safe_caches(alias: str | None) -> list[SafeCache]:
    if alias is not None and alias in list(caches):
        cache = caches[alias]
        if isinstance(cache, SafeCache):
            return [cache]
    safe = [cache for cache in caches.all() if isinstance(cache, SafeCache)]
    if alias is None and safe:
        return safe
    wanted = "" if alias is None else f" {alias!r}"
    names = ", ".join(cache.alias for cache in safe) or "none"
    raise ValueError(f"CACHES has no SafeCache{wanted}; there are {names}")


class SeveredPool(Pool):
    """A pool that keeps no connection: neither one of before the outage that another
    thread gives back, nor one of its own."""

    def take_idle(self, just_used: float = 0.0) -> None:
        return None

    def give_back(self, connection: Connection) -> None:
        connection.close()


def _severed(server: Server, kind: str) -> SeveredPool:
    # What is left out is about TCP and TLS, which the severed network has not.
    options = replace(
        server.options,
        socket_module=cast(Any, Severed(kind)),
        tls_context=None,
        no_delay=False,
        socket_keepalive=None,
    )
    return SeveredPool(
        lambda: Connection(server.address, options),
        max_size=options.pool_max_size,
        max_age=options.max_connection_age,
    )


_lock = threading.RLock()
_pools: WeakKeyDictionary[Server, list[Pool]] = WeakKeyDictionary()
"""A server's own pool, and those of its outages; the last one is in use."""


@contextmanager
def _cut_off(server: Server, kind: str) -> Iterator[None]:
    """Give `server` a pool of severed connections. Outages may end in any order."""
    pool = _severed(server, kind)
    with _lock:
        _pools.setdefault(server, [server.pool]).append(pool)
        _use_last(server)
    try:
        yield
    finally:
        with _lock:
            _pools[server].remove(pool)
            _use_last(server)


def _use_last(server: Server) -> None:
    *_, server.pool = _pools[server]
    if len(_pools[server]) == 1:
        del _pools[server]
    # Nothing of before: neither a connection nor an opinion.
    server.pool.close_idle()
    server.breaker.reset()
