"""What processes that ended could not store: left to those that come after them."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Protocol

from django_safecache.database_errors import UNFIT
from django_safecache.events import get_logger
from django_safecache.recording.fingerprints import scrubbed
from django_safecache.recording.leftovers import Leftover, Leftovers
from django_safecache.recording.snapshots import FlushErrors, Snapshot


class Write(Protocol):
    """As `storage.store` does; returns the moment that what was left out is before."""

    def __call__(
        self, snapshot: Snapshot, errors: FlushErrors, *, ended: bool
    ) -> datetime | None: ...


class LeftBehind:
    """Keeps totals in `leftovers`, and stores those that others left there by `write`.

    `database` is how the log names what they are for.
    """

    def __init__(
        self, leftovers: Leftovers | None, database: str, write: Write
    ) -> None:
        self._leftovers = leftovers
        self._database = database
        self._write = write

    def keep(self, snapshot: Snapshot, errors: FlushErrors) -> None:
        """Put what is to be stored where the next process finds it, or log its loss."""
        if not (snapshot.cells or snapshot.occurrences):
            return
        try:
            if self._leftovers is None:
                raise FileNotFoundError("there is no folder for them")
            self._leftovers.keep(Leftover(snapshot, errors))
        except Exception as error:  # no such folder, read-only, full, not ours
            calls = sum(cell.counts["calls"] for cell in snapshot.cells)
            self._log_lost(calls=calls, reason=str(error))

    def store(self, until: float) -> None:
        """Store what others left, one after the other, until that monotonic time.

        Raises what says that there is no use in trying more of them now.
        """
        if self._leftovers is None:
            return
        for file, left in self._leftovers.each():
            if time.monotonic() > until:
                break
            self._store(self._leftovers, file, left)

    def _store(self, leftovers: Leftovers, file: Path, left: Leftover) -> None:
        try:
            left_out_before = self._write(left.snapshot, left.errors, ended=True)
        except UNFIT as error:
            leftovers.refuse(file)
            reason = f"{type(error).__name__}: {scrubbed(str(error))}"
            self._log_lost(file=str(file), reason=reason)
            return
        except Exception:
            # It may be for what the file says nevertheless: others come first then.
            leftovers.postpone(file)
            raise
        file.unlink(missing_ok=True)
        if left_out_before:
            # Or it had been stored already, which nobody can tell any more.
            reason = "the process had been given up for dead, and its time rolled up"
            writer = left.snapshot.writer.name
            self._log_lost(writer=writer, before=left_out_before, reason=reason)

    def _log_lost(self, **told: object) -> None:
        get_logger().error("counts_lost", database=self._database, **told)
