"""The one buffer between the caches and the database: bounded totals in memory."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone

from django_safecache.memcached.outcomes import Outcome
from django_safecache.recording import call_sites
from django_safecache.recording.cells import FIRST_FIGURE, Cell, Figures, KeyCounts
from django_safecache.recording.fingerprints import Cause, cause_of
from django_safecache.recording.key_groups import KeyGroup, divide
from django_safecache.recording.occurrences import (
    DETAILED_OCCURRENCES,
    OTHER,
    Occurrences,
)
from django_safecache.recording.snapshots import Snapshot, WriterIdentity

BUCKET_SECONDS = 300
# Bounds of what is held for the database, all buckets together. A cell takes 1 kB:
# ten servers with ten key groups fill these in eight hours without a database.
MAX_CELLS = 10_000
MAX_PLACES = 10_000
MAX_FACETS = 20_000
MAX_CAUSES_REMEMBERED = 1000
MAX_ASIDE = 100
# Failures that are counted but are no problem of their own: a breaker is open because
# of another failure, which is one.
CONSEQUENCES = frozenset(["breaker_open"])


_Place = tuple[str, str, str]
"""alias, server, key group"""


class _Bucket:
    def __init__(self, occurrences: Occurrences) -> None:
        self.cells: dict[_Place, Cell] = {}
        self.occurrences = occurrences


class Recorder:
    """Adds outcomes to running totals by bucket, alias, server and key group.

    An observer. Thread-safe, with and without a GIL. After a fork the child starts
    empty and under an identity of its own. Memory is bounded; what finds no room is
    counted under ``<other>``, so that sums stay exact. Totals only grow until
    `forget` drops a closed bucket whole, and no bucket opens before one that was
    closed: a clock that is set back does not overwrite what is stored.

    `key_group` and `account` are called in the thread that is observed; `account`
    must not raise and must return what may be stored. `fingerprint` may name the
    group of a cause, or return None to leave it where it is.
    """

    on_new_bucket: Callable[[], None] | None = None
    """Called, outside the lock, by the thread that counts first in a bucket."""

    def __init__(
        self,
        *,
        bucket_seconds: int = BUCKET_SECONDS,
        max_cells: int = MAX_CELLS,
        max_places: int = MAX_PLACES,
        max_facets: int = MAX_FACETS,
        key_group: KeyGroup | None = None,
        account: Callable[[], str] | None = None,
        fingerprint: Callable[[Cause], str | None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bucket_seconds = bucket_seconds
        self._max_cells = max_cells
        self._max_places = max_places
        self._max_facets = max_facets
        self._key_group = key_group
        self._account = account
        self._fingerprint = fingerprint
        self._clock = clock
        self.reset()
        _recorders.add(self)

    def reset(self) -> None:
        """Start over, empty and as a new writer: what a forked child does."""
        # Reentrant, because a destructor that the garbage collector happens to run
        # while the lock is held may log an error, which is counted here as well.
        self._lock = threading.RLock()
        self._buckets: dict[float, _Bucket] = {}
        self._aside: deque[tuple[_Place, Figures]] = deque()
        self._current: _Bucket = _Bucket(Occurrences(0, 0))
        self._current_start = 0.0
        self._current_end = 0.0
        self._settled = 0.0
        self._cell_count = 0
        self._causes: dict[tuple[str, str, int | None, str], Cause] = {}
        self._dropped = 0
        self.writer = _identity(self._clock())

    def observe(self, outcome: Outcome) -> None:
        """Count `outcome`, and its failures as occurrences of problems."""
        group = ""
        if self._key_group is not None:
            if len(outcome.keys) != 1:
                self._observe_now(outcome)
                return
            group = self._key_group(next(iter(outcome.keys)))
        if outcome.failures or self._clock() >= self._current_end:
            self._observe_now(outcome)
            return
        # Put aside, to be added up with others: the code that adds them up is then
        # run many times in a row, and not fetched from memory for each call.
        figures = outcome[FIRST_FIGURE:]
        self._aside.append(((outcome.alias, outcome.server, group), figures))
        if len(self._aside) >= MAX_ASIDE:
            with self._lock:
                self._add_up()

    def _observe_now(self, outcome: Outcome) -> None:
        key_group = self._key_group
        groups: Mapping[str, KeyCounts | Outcome] = {"": outcome}
        if key_group is not None:
            groups = divide(outcome, key_group)
        group = next(iter(groups))
        with self._lock:
            self._add_up()
            now = self._clock()
            opened = now >= self._current_end and self._open(now)
            self._cell(outcome.alias, outcome.server, group).add_call(outcome)
            for name, keys in groups.items():
                self._cell(outcome.alias, outcome.server, name).add_keys(keys)
        if outcome.failures:
            self._count_failures(outcome, group)
        if opened and self.on_new_bucket:
            self.on_new_bucket()

    def _add_up(self) -> None:
        """Count what was put aside, in the bucket that was open then, or in the next
        one if that was closed and stored in between."""
        if self._aside and not self._current_end:
            self._open(self._clock())
        calls: dict[_Place, list[Figures]] = {}
        while self._aside:
            place, figures = self._aside.popleft()
            calls.setdefault(place, []).append(figures)
        for place, its in calls.items():
            self._cell(*place).add(its)

    def occurred(
        self,
        cause: Cause,
        call_site: Callable[[], str],
        *,
        alias: str = "",
        server: str = "",
        key_group: str = "",
    ) -> None:
        """Count one occurrence of a problem; `call_site` is called when wanted."""
        account = self._account() if self._account else ""
        with self._lock:
            self._add_up()
            now = self._clock()
            opened = now >= self._current_end and self._open(now)
            occurrences = self._current.occurrences
            tally = occurrences.add(cause, alias, server, now)
            facets = {"account": account}
        if tally.count <= DETAILED_OCCURRENCES:
            facets.update(call_site=call_site(), key_group=key_group)
        with self._lock:
            for facet, value in facets.items():
                if not occurrences.add_facet(tally, facet, value):
                    self._dropped += 1
        if opened and self.on_new_bucket:
            self.on_new_bucket()

    def cause(
        self,
        kind: str,
        exception: str,
        errno: int | None,
        text: str,
        *,
        keys: Iterable[object] = (),
        server: str = "",
    ) -> Cause:
        """The cause of a failure, remembered: a storm has few different texts."""
        known = self._causes.get((kind, exception, errno, text))
        if known is not None:
            return known
        cause = self._regrouped(
            cause_of(kind, exception, errno, text, keys=keys, server=server)
        )
        if len(self._causes) >= MAX_CAUSES_REMEMBERED:
            self._causes.clear()
        self._causes[kind, exception, errno, text] = cause
        return cause

    def snapshot(self) -> Snapshot:
        """The totals of every bucket not yet forgotten. Changes nothing counted."""
        with self._lock:
            self._add_up()
            now = self._clock()
            if now >= self._current_end:
                # The next outcome opens a bucket, and none before this end.
                self._current_start = max(self._current_start, self._current_end)
                self._current_end = 0.0
            held = [(_moment(start), held) for start, held in self._buckets.items()]
            return Snapshot(
                writer=self.writer,
                taken=_moment(now),
                closed_before=_moment(self._current_start),
                settled_before=_moment(self._settled),
                cells=tuple(
                    cell.totals(bucket, *place)
                    for bucket, counted in held
                    for place, cell in counted.cells.items()
                ),
                causes=tuple(
                    {
                        cause.fingerprint: cause
                        for _, counted in held
                        for cause in counted.occurrences.causes()
                    }.values()
                ),
                occurrences=tuple(
                    totals
                    for bucket, counted in held
                    for totals in counted.occurrences.totals(bucket)
                ),
                facets=tuple(
                    facet
                    for bucket, counted in held
                    for facet in counted.occurrences.unstored_facets(bucket)
                ),
                dropped=self._dropped,
            )

    def forget(self, snapshot: Snapshot, *, left_out: int = 0) -> None:
        """Drop what need not be stored again, after `snapshot` was stored.

        That is its closed buckets, and the facets of the open one. `left_out` is how
        many of its totals were not stored; they count as dropped.
        """
        with self._lock:
            if snapshot.writer != self.writer:
                return
            closed_before = snapshot.closed_before.timestamp()
            self._settled = max(self._settled, closed_before)
            self._dropped += left_out
            for start in [start for start in self._buckets if start < closed_before]:
                self._cell_count -= len(self._buckets.pop(start).cells)
            for facet in snapshot.facets:
                bucket = self._buckets.get(facet.bucket.timestamp())
                if bucket is not None:
                    bucket.occurrences.facet_stored(facet)

    def _open(self, now: float) -> bool:
        start = now // self._bucket_seconds * self._bucket_seconds
        self._current_start = start = max(start, self._current_start)
        self._current_end = start + self._bucket_seconds
        opened = start not in self._buckets
        if opened:
            held = [bucket.occurrences for bucket in self._buckets.values()]
            self._buckets[start] = _Bucket(
                Occurrences(
                    self._max_places - sum(bucket.places for bucket in held),
                    self._max_facets - sum(bucket.facets for bucket in held),
                )
            )
        self._current = self._buckets[start]
        return opened

    def _cell(self, alias: str, server: str, key_group: str) -> Cell:
        cells = self._current.cells
        cell = cells.get((alias, server, key_group))
        if cell is not None:
            return cell
        if self._cell_count >= self._max_cells:
            # Loaders have no server; mixed with servers their durations would lie.
            server, key_group = OTHER if server else "", OTHER
        if (alias, server, key_group) not in cells:
            cells[alias, server, key_group] = Cell()
            self._cell_count += 1
        return cells[alias, server, key_group]

    def _count_failures(self, outcome: Outcome, key_group: str) -> None:
        for failure in outcome.failures:
            if failure.kind in CONSEQUENCES:
                continue
            cause = self.cause(
                failure.kind,
                failure.exception,
                failure.errno,
                failure.text,
                keys=outcome.keys,
                server=failure.server,
            )
            self.occurred(
                cause,
                _current_call_site,
                alias=outcome.alias,
                server=failure.server,
                key_group=key_group,
            )

    def _regrouped(self, cause: Cause) -> Cause:
        if self._fingerprint is None:
            return cause
        try:
            name = self._fingerprint(cause)
        except Exception:  # the site's code; the rules of the package are left
            return cause
        return cause if name is None else cause.regrouped(str(name))


def _current_call_site() -> str:
    return call_sites.of_frame(sys._getframe())


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _identity(now: float) -> WriterIdentity:
    host, pid = socket.gethostname(), os.getpid()
    name = f"{host[:40]}:{pid}:{secrets.token_hex(4)}"
    return WriterIdentity(name=name, host=host, pid=pid, started=_moment(now))


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_recorders):
        recorder.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
