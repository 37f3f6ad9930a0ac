"""When and how the recorder's totals reach the database. Never raises."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import datetime, tzinfo
from functools import partial

from django.core.signals import request_finished
from django.db import connections, transaction

from django_safecache.conf import FlushMode
from django_safecache.forks import in_forked_child
from django_safecache.left_behind import LeftBehind
from django_safecache.own_connection import own_connection
from django_safecache.process_ends import (
    at_process_end,
    at_worker_end,
    not_at_process_end,
)
from django_safecache.recording.leftovers import Leftovers
from django_safecache.recording.recorder import Recorder
from django_safecache.recording.snapshots import FlushErrors, Snapshot, of_problems
from django_safecache.storage import Stored, store, store_trouble
from django_safecache.storage.transactions import unbroken
from django_safecache.trouble import Trouble

# How long the end of a process waits for its last totals to be stored.
EXIT_PATIENCE = 5.0


class Ingest:
    """Stores what `recorder` holds: as totals, so that a failure loses nothing.

    `mode` says when: ``thread`` every `interval` seconds in a daemon thread that is
    started by the first outcome of the process, and again in a forked child;
    ``request`` at the end of a request once the interval has passed; ``manual`` when
    `flush` is called; ``off`` never. After failures that follow each other it is done
    less often. The first two modes use a connection of their own, and also store when
    the process ends in order. If that cannot be done within `EXIT_PATIENCE` seconds, or
    as long as the database lets a statement of ``request`` wait, the totals are put
    among the `leftovers`, which the next process stores that can. Thread-safe.

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
        leftovers: Leftovers | None = None,
        under_test: Callable[[], bool] = lambda: False,
    ) -> None:
        self.recorder = recorder
        self.mode = mode
        self.interval = interval
        self.database = database
        self.zone = zone
        self._left_behind = LeftBehind(leftovers, database, self._write_left)
        self._under_test = under_test
        self._is_test = False
        self._reset()
        _ingests.add(self)

    def _reset(self) -> None:
        """As in a new process: the threads and locks of a parent are not there."""
        self._lock = threading.Lock()
        # Not the same: a thread that counts must not wait for one that stores.
        self._start_lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._started = False
        self._reported = False
        self._ended = False
        self.trouble = Trouble(self.database)
        self._refused: set[str] = set()
        self._refused_until: datetime | None = None
        self._next_flush = time.monotonic() + self.trouble.pause(self.interval)

    def connect(self) -> None:
        """Start to store as `mode` says. Starts no thread and asks no database."""
        if self.mode in ("thread", "request"):
            self.recorder.on_new_bucket = self._start
            request_finished.connect(self._request_finished)
            at_process_end(self.close)

    def flush(self) -> bool:
        """Store everything now; False if that failed, and the totals are kept.

        Uses the database connection of the calling thread, and therefore its
        transaction.
        """
        with self._lock:
            return self._flush()

    def close(self, **kwargs: object) -> None:
        """Stop, store what is left and say that the process has ended.

        In the modes ``manual`` and ``off`` nothing is stored.
        """
        self._stop.set()
        request_finished.disconnect(self._request_finished)
        not_at_process_end(self.close)
        if self._tests() or self._ended or not self._started:
            return
        thread = self._thread
        if thread is not None and thread.is_alive():
            # It does that itself, and is left alone if the database does not answer.
            thread.join(EXIT_PATIENCE)
        elif self._lock.acquire(timeout=EXIT_PATIENCE):
            try:
                self._flush(own=True, ended=True)
            finally:
                self._lock.release()
        if not self._ended:
            self._ended = True
            self._left_behind.keep(self.recorder.snapshot(), self.trouble.errors)

    def _flush(self, *, own: bool = False, ended: bool = False) -> bool:
        if self.mode == "off":
            return True
        try:
            with own_connection(self.database) if own else nullcontext():
                return self._flush_here(own=own, ended=ended)
        except Exception as error:  # there is no such database
            self.trouble.add(error)
            return False
        finally:
            self._next_flush = time.monotonic() + self.trouble.pause(self.interval)

    def _flush_here(self, *, own: bool, ended: bool) -> bool:
        try:
            writer = self.recorder.writer
            self._store(ended=ended)
            if self.recorder.writer != writer:
                # It has another name now, under which there may be something to store.
                self._store(ended=ended)
            self._ended = self._ended or ended
        except Exception as error:  # no table, no database, locked, read-only, full
            self.trouble.add(error)
            with suppress(Exception):  # the same, as a rule
                self._store_trouble()
            return False
        self.trouble.over()
        if own:
            self._store_leftovers()
        return True

    def _store(self, *, ended: bool) -> None:
        snapshot = self.recorder.snapshot()
        if not (self._reported or snapshot.cells or snapshot.occurrences):
            # A command that used no cache: nothing to say, and perhaps no table.
            return
        if self._refused_until != snapshot.closed_before:
            # A bucket has closed since: it is tried once more, before it is forgotten.
            self._refused.clear()
            self._refused_until = snapshot.closed_before
        rest = of_problems(snapshot, snapshot.fingerprints - self._refused)
        stored = self._write(rest, self.trouble.errors, ended=ended)
        # The counts must not wait for a problem that the database does not take.
        self._refused.update(stored.refused)
        for _ in stored.refused:
            self.recorder.drop()
        # What a transaction of the caller's rolls back is to be stored again.
        transaction.on_commit(
            partial(self._stored, snapshot, stored.left_out_before),
            using=self.database,
        )

    def _write(self, snapshot: Snapshot, errors: FlushErrors, *, ended: bool) -> Stored:
        using = self.database
        with unbroken(using):
            stored = store(
                snapshot, using=using, zone=self.zone, errors=errors, ended=ended
            )
        for error in stored.refused.values():
            self.trouble.add(error)
        return stored

    def _write_left(
        self, snapshot: Snapshot, errors: FlushErrors, *, ended: bool
    ) -> datetime | None:
        # What is refused there is no reason to refuse what this process counts.
        return self._write(snapshot, errors, ended=ended).left_out_before

    def _stored(self, snapshot: Snapshot, left_out_before: datetime | None) -> None:
        self.recorder.forget(snapshot, left_out_before=left_out_before)
        self._reported = True

    def _store_trouble(self) -> None:
        connection = connections[self.database]
        # Without a connection there is no use in trying, and within a transaction of
        # the caller's it would do harm.
        if connection.connection is not None and not connection.in_atomic_block:
            store_trouble(
                self.recorder.writer, self.trouble.errors, using=self.database
            )

    def _store_leftovers(self) -> None:
        # At the end of a process there is no more time than for some of them.
        until = time.monotonic() + EXIT_PATIENCE / 2
        try:
            self._left_behind.store(until)
        except Exception as error:  # the same as of its own totals, or of the files
            self.trouble.add(error)

    def _tests(self) -> bool:
        self._is_test = self._is_test or self._under_test()
        return self._is_test

    def _start(self) -> None:
        """The first outcome of this process, or the first in a new bucket."""
        if self._tests():
            return
        with self._start_lock:
            if self._stop.is_set():
                return
            if not self._started:
                self._started = True
                at_worker_end(self.close)
            if self.mode == "request" or (self._thread and self._thread.is_alive()):
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
        while not stop.wait(max(self._next_flush - time.monotonic(), 0.0)):
            if self._tests():
                return
            with self._lock:
                self._flush(own=True)
        if not self._tests():
            with self._lock:
                self._flush(own=True, ended=True)

    def _request_finished(self, **kwargs: object) -> None:
        # The thread does not get to run where uWSGI has none, or a processor too few.
        grace = 0.0 if self.mode == "request" else self.interval
        if time.monotonic() < self._next_flush + grace or self._tests():
            return
        # Another thread is at it: this one's request need not wait.
        if self._lock.acquire(blocking=False):
            try:
                self._flush(own=True)
            finally:
                self._lock.release()


_ingests: weakref.WeakSet[Ingest] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for ingest in list(_ingests):
        ingest._reset()


in_forked_child(_after_fork_in_child)
