"""How long a line a server takes, where that was found out by its refusals."""

from __future__ import annotations

import time
from collections.abc import Callable

from django_safecache.events import get_logger

SAFE_LINE = 1024
"""Bytes of a line that every memcached takes, however it is fragmented. Less is never
learned: what looks like it is an accident."""
REMEMBERED = 3600.0
"""Seconds for which a learned limit is kept; then longer lines are tried again."""


class LineLimit:
    """The longest ``get`` line to send to one server. Thread-safe.

    Some versions of memcached drop a connection that holds more than 1024 bytes
    without an end of line, some answer ``ERROR`` to a long one, and proxies have limits
    of their own. None of them says which.
    """

    def __init__(
        self, server: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Nothing is known: how a process starts, and a forked child."""
        # One tuple, so that another thread never sees half of it.
        self._learned: tuple[int, float] | None = None

    @property
    def learned(self) -> int | None:
        """Bytes, line end included; None if no limit is known, or no longer."""
        learned = self._learned
        if learned is None or self._clock() >= learned[1]:
            return None
        return learned[0]

    def of(self, wanted: int) -> int:
        """`wanted` bytes, or less."""
        learned = self.learned
        return wanted if learned is None else min(wanted, learned)

    def learn(self, size: int) -> None:
        """Lines of `size` bytes were answered, where longer ones were not."""
        known = self.learned
        size = max(size, SAFE_LINE)
        if known is not None:
            size = min(size, known)
        self._learned = (size, self._clock() + REMEMBERED)
        if known != size:
            get_logger().warning("limit_learned", server=self._server, bytes=size)
