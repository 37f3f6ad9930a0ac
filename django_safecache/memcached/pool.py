"""The connections of this process to one server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from weakref import WeakSet

from django_safecache.exceptions import PoolExhaustedError
from django_safecache.memcached.connection import Connection

RECHECK = 0.005
"""Seconds after which a waiter looks again. It is not woken: a condition's lock is lost
with a thread that is ended while it gets it, and then everybody waits for ever."""


class Pool:
    """Connections shared by all threads; last in, first out; bounded.

    A slot is a `Connection` object that exists and is open, so none can leak: the
    count is taken from the objects, not kept beside them.
    """

    def __init__(
        self, create: Callable[[], Connection], *, max_size: int, max_age: float
    ) -> None:
        self._create = create
        self._max_size = max_size
        self._max_age = max_age
        self.reset()

    def reset(self) -> None:
        """Forget all connections, as a forked child must: they are its parent's.

        The child's copies of the sockets are closed when collected, which says
        nothing to the server.
        """
        self._idle: list[Connection] = []
        self._existing: WeakSet[Connection] = WeakSet()
        # Reentrant, and entered by nothing but `with`: one that an interrupted thread
        # keeps would shut it out of its own pool.
        self._lock = threading.RLock()

    def take_idle(self, now: float, just_used: float = 0.0) -> Connection | None:
        """An open connection that is free, the one used last; None if there is none.

        One that was used in the `just_used` seconds before the monotonic time `now` may
        have been closed since.
        """
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.is_fresh(now, self._max_age, just_used):
                connection.reused = True
                return connection
            connection.close()

    def take(self, until: float) -> Connection:
        """A free connection, or one that is not open yet.

        Waits while `max_size` are in use; `PoolExhaustedError` at the monotonic time
        `until`.
        """
        while True:
            now = time.monotonic()
            connection = self.take_idle(now) or self._new()
            if connection is not None:
                return connection
            if now >= until:
                raise PoolExhaustedError(f"all {self._max_size} connections in use")
            time.sleep(min(until - now, RECHECK))

    def _new(self) -> Connection | None:
        with self._lock:
            if self.open_connections() >= self._max_size:
                return None
            connection = self._create()
            self._existing.add(connection)
            return connection

    def open_connections(self) -> int:
        """How many there are, in use or not."""
        with self._lock:
            return sum(not each.closed for each in self._existing)

    def give_back(self, connection: Connection, now: float) -> None:
        """Make `connection`, which was used until the monotonic time `now`, free for
        others; one that owes a reply is closed."""
        if connection.in_flight or connection.closed:
            connection.close()
        else:
            connection.used = now
            self._idle.append(connection)

    def close_idle(self) -> None:
        """Close what is free; what is in use is closed by who uses it, or kept."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took the last one
                return
