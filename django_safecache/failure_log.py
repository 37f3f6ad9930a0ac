"""Failures in the site's log: the first at once, those after it summed up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from weakref import WeakSet

from django_safecache.events import get_logger
from django_safecache.forks import in_forked_child
from django_safecache.memcached.outcomes import FailureKind, Outcome
from django_safecache.recording.recorder import CONSEQUENCES

INTERVAL = 60.0
"""Seconds between two lines about one server of one alias."""


class Tally:
    """What failed at one server of one alias since the last line about it."""

    def __init__(self) -> None:
        self.told: float | None = None
        self.failures: Counter[FailureKind] = Counter()
        self.unavailable = 0


class FailureLog:
    """Logs ``cache_failures``, a warning: alias, server, how many `failures` of each
    kind and how many `unavailable` keys there were in the `seconds` since the last.

    An observer. Says neither keys nor what the server or an exception said. What
    follows from other failures is counted, and no reason for a line. Thread-safe; a
    forked child starts with nothing counted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset()
        _logs.add(self)

    def reset(self) -> None:
        """Forget what was counted and when it was told."""
        # Reentrant: a destructor may use the cache while the lock is held.
        self._lock = threading.RLock()
        self._tallies: dict[tuple[str, str], Tally] = {}

    def observe(self, outcome: Outcome) -> None:
        """Count the failures of `outcome`, and tell if it is time to."""
        if not outcome.failures:
            return
        place = (outcome.alias, outcome.server)
        with self._lock:
            tally = self._tallies.setdefault(place, Tally())
            tally.failures.update(failure.kind for failure in outcome.failures)
            tally.unavailable += outcome.unavailable
            now = self._clock()
            if not _worth_a_line(outcome) or not _is_due(tally, now):
                return
            self._tallies[place] = following = Tally()
            following.told = now
        # Outside the lock: a handler of the site may take its time, or use the cache.
        get_logger().warning(
            "cache_failures",
            alias=outcome.alias,
            server=outcome.server,
            failures=dict(tally.failures),
            unavailable=tally.unavailable,
            seconds=round(now - (now if tally.told is None else tally.told)),
        )


def _worth_a_line(outcome: Outcome) -> bool:
    return any(failure.kind not in CONSEQUENCES for failure in outcome.failures)


def _is_due(tally: Tally, now: float) -> bool:
    return tally.told is None or now - tally.told >= INTERVAL


_logs: WeakSet[FailureLog] = WeakSet()


def _after_fork() -> None:
    for log in list(_logs):
        log.reset()


in_forked_child(_after_fork)
