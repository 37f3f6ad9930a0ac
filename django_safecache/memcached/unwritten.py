"""Keys whose write was lost: what their server holds may be older than the site's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from django_safecache.events import get_logger
from django_safecache.forks import in_forked_child

MAX_UNWRITTEN = 10_000
"""Keys that a process remembers for one server."""
AGAIN_AFTER = 1.0
"""Seconds after which a key is deleted a second time whose lost write may have been
sent: a server that was stopped carries it out when it goes on, perhaps after the
delete. Until then what it has of that key is not believed."""
LOG_INTERVAL = 60.0
"""Seconds between two lines in the log about keys of one server that were deleted."""
REFUSED_FOR = 30.0
"""Seconds after which a server that answers, but refuses to delete, is believed all the
same: it would be of no use for ever."""


@dataclass(frozen=True, slots=True)
class Due:
    """When a key is to be deleted; `sent`: its lost write may be carried out yet."""

    at: float
    sent: bool


class Unwritten:
    """The keys of one server to be deleted before its answers are believed again; some
    of them twice, and in between only what it says of others is believed.

    Thread-safe. A forked child keeps them: to delete a key twice does no harm.
    """

    def __init__(
        self, server: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._clock = clock
        self._due: dict[bytes, Due] = {}
        self._next_due = 0.0
        self._refused_since: float | None = None
        self._untold = 0
        self._told = -LOG_INTERVAL
        self.forgotten = 0
        """Keys for which there was no room: what the server holds of them is old."""
        self.after_fork()

    def after_fork(self) -> None:
        """A thread that held the lock, or was deleting, may not exist in the child."""
        self._lock = threading.RLock()
        self._deleting_until = 0.0

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: bytes) -> bool:
        """Whether what the server has of `key` is not believed."""
        return key in self._due

    def among(self, keys: Collection[bytes]) -> frozenset[bytes]:
        """Those of `keys` of which what the server has is not believed."""
        if not self._due:
            return frozenset()
        with self._lock:
            return frozenset(self._due.keys() & set(keys))

    @property
    def is_due(self) -> bool:
        """Whether there is something to delete before the server is asked."""
        return bool(self._due) and self._clock() >= self._next_due

    def add(self, keys: Collection[bytes], *, sent: bool) -> None:
        """Remember `keys`; `sent` tells that the server may carry out the write yet."""
        with self._lock:
            for key in keys:
                known = self._due.get(key)
                if known is None and len(self._due) >= MAX_UNWRITTEN:
                    self._forget(1)
                else:
                    self._due[key] = Due(
                        0.0, sent or (known is not None and known.sent)
                    )
                    self._next_due = 0.0

    def nothing_was_sent(self) -> None:
        """What was lost so far cannot be carried out any more: it went nowhere."""
        with self._lock:
            for key, each in self._due.items():
                if each.sent:
                    self._due[key] = Due(each.at, sent=False)

    def _forget(self, count: int) -> None:
        if count and not self.forgotten:
            get_logger().error("unwritten_forgotten", server=self._server)
        self.forgotten += count

    def claim(self, until: float, *, early: bool = False) -> dict[bytes, Due] | None:
        """The keys to delete now, for one thread at a time; None if another is at it.

        `early`, also those that are to be deleted later. Whoever gets them, hands them
        to `deleted`. One that does not, because it was ended, is given up at `until`.
        """
        with self._lock:
            now = self._clock()
            if now < self._deleting_until:
                return None
            due = {
                key: each for key, each in self._due.items() if early or each.at <= now
            }
            if due:
                self._deleting_until = until
            return due

    def deleted(
        self, due: Mapping[bytes, Due], confirmed: Collection[bytes], *, refused: bool
    ) -> None:
        """Of `due` the server has `confirmed` some; `refused` tells that it answered to
        others with an error."""
        with self._lock:
            now = self._clock()
            self._deleting_until = 0.0
            for key in confirmed:
                if self._due.get(key) is not due[key]:
                    continue  # lost once more since
                if due[key].sent:
                    self._due[key] = Due(now + AGAIN_AFTER, sent=False)
                else:
                    del self._due[key]
            self._count_refusals(now, due, confirmed, refused=refused)
            self._next_due = min([each.at for each in self._due.values()], default=0.0)
            self._untold += len(confirmed)
            keys = self._untold if now - self._told >= LOG_INTERVAL else 0
            if keys:
                self._untold, self._told = 0, now
        if keys:
            get_logger().info("unwritten_deleted", server=self._server, keys=keys)

    def _count_refusals(
        self,
        now: float,
        due: Mapping[bytes, Due],
        confirmed: Collection[bytes],
        *,
        refused: bool,
    ) -> None:
        if not refused:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since >= REFUSED_FOR:
            left = due.keys() - set(confirmed)
            for key in left:
                self._due.pop(key, None)
            self._forget(len(left))


_by_server: WeakValueDictionary[str, Unwritten] = WeakValueDictionary()


def unwritten_of(server: str) -> Unwritten:
    """The one list of a server, for all caches of this process that use it."""
    return _by_server.setdefault(server, Unwritten(server))


def _after_fork() -> None:
    for each in list(_by_server.values()):
        each.after_fork()


in_forked_child(_after_fork)
