"""Whether a server is worth asking: a circuit breaker per server and process."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from django_safecache.events import get_logger
from django_safecache.memcached.outcomes import FailureKind

OPENS_AT_ONCE = frozenset[FailureKind](["refused", "unreachable"])
TIMEOUTS_IN_A_ROW = 3
FIRST_PROBE = 1.0
LAST_PROBE = 30.0
"""Seconds until an open breaker lets one call through; doubled after each that
fails, up to the last. Up to a tenth is taken off, so that processes spread out."""


class Breaker:
    """Closed: everybody asks. Open: nobody does, but for one probe at a time.

    Thread-safe. A probe may take `patience` seconds; one that never reports, because
    its thread was killed, is given up after that, or the same delay.
    """

    def __init__(
        self,
        server: str,
        patience: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._patience = patience
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Closed, knowing nothing: how a process starts, and a forked child."""
        # Reentrant: the handler of a signal may use the cache while it is held.
        self._lock = threading.RLock()
        self._timeouts = 0
        self._delay = FIRST_PROBE
        self._next_probe = 0.0
        self._probing = False
        self.is_open = False

    @property
    def is_left_alone(self) -> bool:
        """Whether `allows` would say no, now."""
        return self.is_open and self._clock() < self._next_probe

    def allows(self) -> bool:
        """Whether the caller may ask the server; of those that come when a probe is
        due, one may. Whoever may, must report with `succeeded` or `failed`."""
        if not self.is_open:
            return True
        now = self._clock()
        with self._lock:
            if now < self._next_probe:
                return False
            self._next_probe = now + max(self._delay, self._patience)
            self._probing = True
            return True

    def succeeded(self) -> None:
        """The server answered."""
        self._timeouts = 0
        if not self.is_open:
            return
        with self._lock:
            was_open, self.is_open = self.is_open, False
            self._delay, self._probing = FIRST_PROBE, False
        if was_open:
            get_logger().info("breaker_closed", server=self._server)

    def failed(self, kind: FailureKind) -> None:
        """The server did not answer, for this reason."""
        with self._lock:
            self._timeouts = self._timeouts + 1 if kind == "timeout" else 0
            if self.is_open:
                # Calls that began before it opened fail late: they are no probes.
                if not self._probing:
                    return
                self._probing = False
                self._delay = min(self._delay * 2, LAST_PROBE)
            elif kind not in OPENS_AT_ONCE and self._timeouts < TIMEOUTS_IN_A_ROW:
                return
            opened, self.is_open = not self.is_open, True
            jitter = 1 - random.random() / 10  # noqa: S311 - spreads load, no secret
            self._next_probe = self._clock() + self._delay * jitter
        if opened:
            get_logger().warning("breaker_opened", server=self._server, kind=kind)
