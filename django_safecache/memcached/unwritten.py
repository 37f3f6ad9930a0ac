"""Keys whose write was lost: what their server holds may be older than the site's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from django_safecache.events import get_logger

MAX_UNWRITTEN = 10_000
"""Keys that a process remembers for one server."""
AGAIN_AFTER = 1.0
"""Seconds after which a key is deleted a second time whose lost write may have been
sent: a server that was stopped carries it out when it goes on, perhaps after the
delete."""


class Unwritten:
    """The keys of one server to be deleted before its answers are believed again.

    Thread-safe. A forked child keeps them: to delete a key twice does no harm.
    """

    def __init__(
        self, server: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._clock = clock
        self._due: dict[bytes, tuple[float, bool]] = {}
        self._next_due = 0.0
        self.forgotten = 0
        """Keys for which there was no room: what the server holds of them is old."""
        self.renew_lock()

    def renew_lock(self) -> None:
        """Of a forked child, where a thread that held it may not exist."""
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._due)

    @property
    def is_due(self) -> bool:
        """Whether there is something to delete before the server is asked."""
        return bool(self._due) and self._clock() >= self._next_due

    def add(self, keys: Collection[bytes], *, sent: bool) -> None:
        """Remember `keys`; `sent` tells that the server may carry out the write yet."""
        with self._lock:
            room = MAX_UNWRITTEN - len(self._due)
            for key in keys:
                if key not in self._due and room <= 0:
                    self._forget_one()
                    continue
                room -= key not in self._due
                self._due[key] = (0.0, sent)
            self._next_due = 0.0

    def _forget_one(self) -> None:
        self.forgotten += 1
        if self.forgotten == 1:
            get_logger().error(
                "unwritten_forgotten", server=self._server, limit=MAX_UNWRITTEN
            )

    def due(self) -> dict[bytes, tuple[float, bool]]:
        """The keys to delete now; hand it to `deleted` afterwards."""
        with self._lock:
            now = self._clock()
            return {key: due for key, due in self._due.items() if due[0] <= now}

    def deleted(
        self, keys: Collection[bytes], due: dict[bytes, tuple[float, bool]]
    ) -> None:
        """The server has confirmed that of `due` it has deleted `keys`."""
        with self._lock:
            again = self._clock() + AGAIN_AFTER
            for key in keys:
                if self._due.get(key) is not due[key]:
                    continue  # lost once more since
                if due[key][1]:
                    self._due[key] = (again, False)
                else:
                    del self._due[key]
            moments = [moment for moment, _ in self._due.values()]
            self._next_due = min(moments, default=0.0)
        if keys:
            get_logger().info("unwritten_deleted", server=self._server, keys=len(keys))
