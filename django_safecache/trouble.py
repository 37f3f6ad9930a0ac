"""How storing goes wrong: counted, told, and a reason to wait longer."""

from __future__ import annotations

import random
import time
from datetime import datetime, timezone

from django_safecache.events import get_logger
from django_safecache.recording.fingerprints import scrubbed
from django_safecache.recording.snapshots import FlushErrors

LOG_INTERVAL = 60.0
# So that the processes of a site, all started at once, do not store at once for ever.
JITTER = 0.15
# What a process waits at most between two tries, when the database has been away long.
MAX_PAUSE = 120.0


class Trouble:
    """What one process had with its `database`. Not thread-safe."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._in_a_row = 0
        self._logged_at = float("-inf")
        self.errors = FlushErrors()

    def add(self, error: Exception) -> None:
        """Count `error`, and log it unless one was logged within a minute."""
        self._in_a_row += 1
        # Of MySQL's drivers the first is a number; as a whole it would be quoted.
        text = scrubbed(" ".join(map(str, error.args)))
        self.errors = FlushErrors(
            count=self.errors.count + 1,
            last=f"{type(error).__name__}: {text}",
            last_at=datetime.now(timezone.utc),
        )
        now = time.monotonic()
        if now - self._logged_at < LOG_INTERVAL:
            return
        self._logged_at = now
        get_logger().warning(
            "flush_failed",
            database=self._database,
            errors=self.errors.count,
            exception=type(error).__name__,
            message=text,
        )

    def over(self) -> None:
        """Something was stored."""
        self._in_a_row = 0

    def pause(self, interval: float) -> float:
        """Seconds until the next try: `interval`, and twice as much after every failure
        that follows another."""
        doublings = min(max(self._in_a_row - 1, 0), 16)
        pause = min(interval * float(2**doublings), max(interval, MAX_PAUSE))
        return pause * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
