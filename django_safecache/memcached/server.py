"""One memcached as this process knows it: address, connections, health."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakSet

from django_safecache.forks import in_forked_child
from django_safecache.memcached.connection import Connection
from django_safecache.memcached.health import Breaker
from django_safecache.memcached.line_limit import LineLimit
from django_safecache.memcached.options import Options
from django_safecache.memcached.placement import Address
from django_safecache.memcached.pool import Pool
from django_safecache.memcached.unwritten import unwritten_of


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What one process knows of a server, of its own experience."""

    server: str
    breaker_open: bool
    """Whether it is left alone for the moment, because it did not answer."""
    line_limit: int | None
    """Bytes of the longest ``get`` line it takes, where that was found out."""
    connections: int
    """Open ones, in use or not."""
    unwritten: int
    """Keys to be deleted before its answers are believed again."""
    forgotten: int
    """Keys for which there was no room among these, since the process started."""


class Server:
    """Shared by all threads of a process.

    A forked child starts with nothing but the unwritten keys.
    """

    def __init__(self, address: Address, options: Options) -> None:
        self.name = address.name
        self.address = address
        self.options = options
        self.breaker = Breaker(address.name, options.deadline)
        self.line_limit = LineLimit(address.name)
        self.unwritten = unwritten_of(address.name)
        self.pool = Pool(
            lambda: Connection(address, options),
            max_size=options.pool_max_size,
            max_age=options.max_connection_age,
        )
        _servers.add(self)

    def status(self) -> ServerStatus:
        return ServerStatus(
            server=self.name,
            breaker_open=self.breaker.is_open,
            line_limit=self.line_limit.learned,
            connections=self.pool.open_connections(),
            unwritten=len(self.unwritten),
            forgotten=self.unwritten.forgotten,
        )

    def after_fork(self) -> None:
        self.pool.reset()
        self.breaker.reset()
        self.line_limit.reset()


_servers: WeakSet[Server] = WeakSet()


def all_servers() -> list[Server]:
    """Those of all caches of this process."""
    return list(_servers)


def _after_fork() -> None:
    for server in _servers:
        server.after_fork()


in_forked_child(_after_fork)
