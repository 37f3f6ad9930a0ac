"""`outage`: caches that fail for as long as a test wants them to."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.core.cache import caches

from django_safecache.backend import SafeCache
from django_safecache.memcached.cluster import Cluster
from django_safecache.memcached.placement import parse_address
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
    CACHES as they are when it begins, and for the calls that begin in it. Within
    another, the one that began last counts. Begins and ends with breakers closed and no
    connection idle; the keys whose writes were lost in it are remembered, as of writes
    that never reached a server.
    """
    if kind not in CUTS:
        raise ValueError(f"no outage of kind {kind!r}; there are {', '.join(CUTS)}")
    return Outage(kind, alias, server)


@dataclass(frozen=True)
class Place:
    """Where a server is, or what stands in for it during an outage."""

    cluster: Cluster
    index: int

    @property
    def server(self) -> Server:
        return self.cluster.servers[self.index]


class Outage:
    """What `outage` returns. May be used again, also within itself."""

    def __init__(self, kind: str, alias: str | None, server: str | None) -> None:
        self._kind = kind
        self._alias = alias
        self._server = server
        self._begun: list[ExitStack] = []

    def __enter__(self) -> Outage:
        with ExitStack() as begun:
            for place in _places(self._alias, self._server):
                begun.enter_context(_cut_off(place, self._kind))
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


def _places(alias: str | None, name: str | None) -> list[Place]:
    """Where the servers meant are; `ValueError` if there are none."""
    # Two aliases with the same configuration share their cluster.
    clusters = dict.fromkeys(cache._cluster for cache in _safe_caches(alias))
    places = [
        Place(cluster, index)
        for cluster in clusters
        for index in range(len(cluster.servers))
    ]
    if name is None:
        return places
    wanted = parse_address(name).name
    found = [place for place in places if place.server.name == wanted]
    if not found:
        of = "a SafeCache" if alias is None else f"CACHES[{alias!r}]"
        names = ", ".join(dict.fromkeys(place.server.name for place in places))
        raise ValueError(f"{of} has no server {name!r}; there are {names}")
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


def _severed(server: Server, kind: str) -> Server:
    """`server` as it is in an outage. It shares what has to be made good later."""
    # What is left out is about TCP and TLS, which the severed network has not.
    options = replace(
        server.options,
        socket_module=cast(Any, Severed(kind)),
        tls_context=None,
        no_delay=False,
        socket_keepalive=None,
    )
    severed = Server(server.address, options)
    severed.unwritten = server.unwritten
    return severed


_lock = threading.RLock()
_in_place: dict[Place, list[Server]] = {}
"""The server of a place and those of its outages; calls begin with the last."""


@contextmanager
def _cut_off(place: Place, kind: str) -> Iterator[None]:
    """Put a severed server in `place`. Outages may end in any order.

    Another server, and not this one with other connections: a call that another thread
    has under way ends with the connections and the breaker that it began with.
    """
    with _lock:
        servers = _in_place.setdefault(place, [place.server])
        severed = _severed(servers[0], kind)
        servers.append(severed)
        _use(place, severed)
    try:
        yield
    finally:
        with _lock:
            servers.remove(severed)
            severed.unwritten.nothing_was_sent()
            _use(place, servers[-1])
            if len(servers) == 1:
                del _in_place[place]


def _use(place: Place, server: Server) -> None:
    """Begin calls with `server`, which then knows nothing of before."""
    previous = place.server
    server.breaker.reset()
    place.cluster.servers[place.index] = server
    for each in (previous, server):
        each.pool.close_idle()
