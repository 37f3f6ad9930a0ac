"""One memcached as this process knows it: address, connections, health."""

from __future__ import annotations

import os
from weakref import WeakSet

from django_safecache.memcached.connection import Connection
from django_safecache.memcached.health import Breaker
from django_safecache.memcached.options import Options
from django_safecache.memcached.placement import Address
from django_safecache.memcached.pool import Pool


class Server:
    """Shared by all threads of a process; a forked child starts with nothing."""

    def __init__(self, address: Address, options: Options) -> None:
        self.name = address.name
        self.breaker = Breaker(address.name)
        self.pool = Pool(
            lambda: Connection(address, options),
            max_size=options.pool_max_size,
            max_age=options.max_connection_age,
        )
        _servers.add(self)

    def after_fork(self) -> None:
        self.pool.reset()
        self.breaker.reset()


_servers: WeakSet[Server] = WeakSet()


def _after_fork() -> None:
    for server in _servers:
        server.after_fork()


os.register_at_fork(after_in_child=_after_fork)
