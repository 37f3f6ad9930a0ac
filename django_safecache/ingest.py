"""When and how the recorder's totals reach the database. Never raises."""

from __future__ import annotations

import atexit
import multiprocessing.util
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import tzinfo
from functools import partial

from django.core.signals import request_finished
from django.db import connections, transaction

from django_safecache.conf import FlushMode
from django_safecache.events import get_logger
from django_safecache.recording.fingerprints import scrubbed
from django_safecache.recording.recorder import Recorder
from django_safecache.storage import store

LOG_INTERVAL = 60.0
# How long the end of a process waits for a flush that is under way elsewhere.
EXIT_PATIENCE = 5.0


class Ingest:
    """Stores what `recorder` holds: as totals, so that a failure loses nothing.

    `mode` says when: ``thread`` every `interval` seconds in a daemon thread that is
    started by the first outcome of the process, and again in a forked child;
    ``request`` at the end of a request once the interval has passed; ``manual`` when
    `flush` is called; ``off`` never. The first two also store when the process ends
    orderly. Thread-safe.

    Once `under_test` has said that a test run is on, every mode is ``manual``: the
    database of a test run is gone when its process ends, and the site's own is back
    in its place.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        mode: FlushMode,
        interval: float,
        database: str,
        zone: tzinfo,
        under_test: Callable[[], bool] = lambda: False,
    ) -> None:
        self.recorder = recorder
        self.mode = mode
        self.interval = interval
        self.database = database
        self.zone = zone
        self._under_test = under_test
        self._is_test = False
        self.flush_errors = 0
        self._reset()
        _ingests.add(self)

    def _reset(self) -> None:
        """As in a new process: the threads and locks of a parent are not there."""
        self._lock = threading.Lock()
        # Not the same: a thread that counts must not wait for one that stores.
        self._start_lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._flushed_at = time.monotonic()
        self._logged_at = float("-inf")
        self.flush_errors = 0
        self._reported = False

    def connect(self) -> None:
        """Start to store as `mode` says. Starts no thread and asks no database."""
        if self.mode == "thread":
            self.recorder.on_new_bucket = self._start
        elif self.mode == "request":
            request_finished.connect(self._request_finished)
        if self.mode in ("thread", "request"):
            atexit.register(self.close)
            # A child of multiprocessing ends without atexit, by its own finalizers.
            multiprocessing.util.register_after_fork(self, Ingest._close_at_the_end)

    def _close_at_the_end(self) -> None:
        multiprocessing.util.Finalize(self, self.close, exitpriority=0)

    def flush(self, *, ended: bool = False) -> bool:
        """Store everything now; False if that failed, and the totals are kept.

        Uses the database connection of the calling thread, and therefore its
        transaction. `ended` says that the process will report no more.
        """
        with self._lock:
            return self._flush(ended=ended)

    def close(self) -> None:
        """Stop, store what is left and say that the process has ended."""
        self._stop.set()
        request_finished.disconnect(self._request_finished)
        atexit.unregister(self.close)
        if self._tests():
            return
        if self._lock.acquire(timeout=EXIT_PATIENCE):
            try:
                self._flush(ended=True)
                self._leave_connection()
            finally:
                self._lock.release()

    def _flush(self, *, ended: bool = False) -> bool:
        self._flushed_at = time.monotonic()
        if self.mode == "off":
            return True
        try:
            snapshot = self.recorder.snapshot()
            if not (self._reported or snapshot.cells or snapshot.occurrences):
                # A command that used no cache: nothing to say, and perhaps no table.
                return True
            left_out = store(
                snapshot,
                using=self.database,
                zone=self.zone,
                flush_errors=self.flush_errors,
                ended=ended,
            )
            # What a transaction of the caller's rolls back is to be stored again.
            transaction.on_commit(
                partial(self.recorder.forget, snapshot, left_out=left_out),
                using=self.database,
            )
        except Exception as error:  # no table, no database, locked, read-only, full
            self._failed(error)
            return False
        return True

    def _failed(self, error: Exception) -> None:
        self.flush_errors += 1
        now = time.monotonic()
        if now - self._logged_at < LOG_INTERVAL:
            return
        self._logged_at = now
        get_logger().warning(
            "flush_failed",
            database=self.database,
            errors=self.flush_errors,
            exception=type(error).__name__,
            message=scrubbed(str(error)),
        )

    def _tests(self) -> bool:
        self._is_test = self._is_test or self._under_test()
        return self._is_test

    def _start(self) -> None:
        if self._tests():
            return
        with self._start_lock:
            if self._stop.is_set() or (self._thread and self._thread.is_alive()):
                return
            self._thread = threading.Thread(
                target=self._run, name="django_safecache.ingest", daemon=True
            )
            # No thread can be had when the interpreter is ending, or the machine at
            # its limit; the next bucket tries again.
            with suppress(RuntimeError):
                self._thread.start()

    def _run(self) -> None:
        stop = self._stop
        while not (stop.wait(self.interval) or self._tests()):
            self.flush()
            # Held open, it would cost the database a connection for every process of
            # the site, and work a few milliseconds in ten seconds.
            self._close_connection()

    def _request_finished(self, **kwargs: object) -> None:
        if time.monotonic() - self._flushed_at < self.interval or self._tests():
            return
        # Another thread is at it: this one's request need not wait.
        if self._lock.acquire(blocking=False):
            try:
                self._flush()
                self._leave_connection()
            finally:
                self._lock.release()

    def _leave_connection(self) -> None:
        """Close what Django closes at the end of a request, before this ran."""
        with suppress(Exception):  # not configured, or closed already
            connection = connections[self.database]
            # In the transaction of a test case it would be taken from the test.
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()

    def _close_connection(self) -> None:
        with suppress(Exception):  # not configured, or closed already
            connections[self.database].close()


_ingests: weakref.WeakSet[Ingest] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for ingest in list(_ingests):
        ingest._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
