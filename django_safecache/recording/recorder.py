"""The one buffer between the caches and the database: bounded totals in memory."""

from __future__ import annotations

import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial

from django_safecache.forks import in_forked_child
from django_safecache.memcached.outcomes import Outcome
from django_safecache.recording import sightings
from django_safecache.recording.buckets import (
    BUCKET_SECONDS,
    MAX_CELLS,
    MAX_FACETS,
    MAX_PLACES,
    Aside,
    Buckets,
)
from django_safecache.recording.causes import Causes, Fingerprint
from django_safecache.recording.cells import FIRST_FIGURE
from django_safecache.recording.fingerprints import Cause
from django_safecache.recording.first_of_day import FirstOfDay
from django_safecache.recording.key_groups import KeyGroups, divided
from django_safecache.recording.occurrences import (
    DETAILED_OCCURRENCES,
    Occurrences,
    ProblemTally,
    other_of,
)
from django_safecache.recording.samples import Samples
from django_safecache.recording.sightings import Sighting
from django_safecache.recording.snapshots import Snapshot, WriterIdentity

MAX_ASIDE = 400
"""Calls that are put aside, to be added up with others: the code that adds them up is
then run many times in a row, and not fetched from memory for each call."""
NO_GROUP: Sequence[str] = ("",)
"""Of the keys of a call that is not divided."""
MAX_PROBLEMS = 1000
"""So many of a kind a process makes in a day: a row of the tables stays for long."""
# Failures that are counted but are no problem of their own: a breaker is open because
# of another failure, which is one.
CONSEQUENCES = frozenset(["breaker_open"])


class Recorder:
    """Adds outcomes to running totals by bucket, alias, server and key group.

    An observer. Thread-safe, with and without a GIL. After a fork the child starts
    empty and under an identity of its own. Memory is bounded; what finds no room is
    counted under ``<other>``, so that sums stay exact. Totals only grow until
    `forget` drops a closed bucket whole. An exception that is thrown into a thread
    from outside loses at most the outcome that the thread was about to hand over.

    `key_groups` and `account` are called in the thread that is observed; `account`
    must not raise and must return what may be stored. `fingerprint` may name the
    group of a cause, or return None to leave it where it is. `release` is a facet of
    every problem.
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
        key_groups: KeyGroups | None = None,
        account: Callable[[], str] | None = None,
        release: str = "",
        fingerprint: Fingerprint | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bucket_seconds = bucket_seconds
        self._max_cells = max_cells
        self._max_places = max_places
        self._max_facets = max_facets
        self._key_groups = key_groups
        self._account = account
        self._release = release
        self._fingerprint = fingerprint
        self._clock = clock
        self.reset()
        _recorders.add(self)

    def reset(self) -> None:
        """Start over, empty and as a new writer: what a forked child does."""
        # Reentrant, because a destructor that the garbage collector happens to run
        # while the lock is held may log an error, which is counted here as well.
        self._lock = threading.RLock()
        self._aside: Aside = Aside()
        self._buckets = Buckets(
            self._bucket_seconds,
            max_cells=self._max_cells,
            max_places=self._max_places,
            max_facets=self._max_facets,
        )
        self._samples = Samples()
        self._problems = defaultdict[str, FirstOfDay[str]](
            partial(FirstOfDay, MAX_PROBLEMS)
        )
        self._settled = 0.0
        self._dropped = 0
        self.causes = Causes(self._fingerprint)
        self.writer = WriterIdentity.of_this_process(_moment(self._clock()))

    def observe(self, outcome: Outcome) -> None:
        """Count `outcome`, and its failures as occurrences of problems."""
        alias, server, groups = outcome.alias, outcome.server, NO_GROUP
        if self._key_groups is not None and outcome.keys:
            groups = self._key_groups(outcome.keys)
        now = self._clock()
        opened = now >= self._buckets.end and self._open()
        if len(groups) == 1:
            self._aside.append((alias, server, groups[0], outcome[FIRST_FIGURE:]))
        else:
            parts = divided(outcome, groups)
            self._aside.extend([(alias, server, name, part) for name, part in parts])
        if len(self._aside) >= MAX_ASIDE:
            with self._lock:
                self._buckets.add_up(self._aside, now)
        if outcome.failures:
            self._count_failures(outcome, groups[0], now)
        if opened and self.on_new_bucket:
            self.on_new_bucket()

    def account(self) -> str:
        """The current account as it may be stored, ``""`` for none."""
        return self._account() if self._account else ""

    def occurred(
        self,
        cause: Cause,
        seen: Callable[[], Sighting],
        *,
        account: str | None = None,
        alias: str = "",
        server: str = "",
        key_group: str = "",
        known_as: Hashable = None,
    ) -> None:
        """Count one occurrence of a problem.

        `seen` is called when details are wanted, in this thread, before this returns.
        `account` is for who has read it already: then it is kept of every occurrence.
        `known_as` is a name for all that is given, by which `Occurrences.again` knows
        it in a storm.
        """
        now = self._clock()
        with self._lock:
            if not self._problems[cause.kind].has_room(cause.fingerprint, now):
                cause = other_of(cause.kind)
            opened = now >= self._buckets.end and self._open()
            occurrences = self._buckets.current.occurrences
            tally = occurrences.add(cause, alias, server, now, known_as)
            if account and not occurrences.add_facet(tally, "account", account):
                self._dropped += 1
        if opened and self.on_new_bucket:
            self.on_new_bucket()
        if tally.count <= DETAILED_OCCURRENCES:
            facets = {
                "account": self.account() if account is None else "",
                "key_group": key_group,
                "release": self._release,
            }
            self._look(seen(), facets, tally, occurrences)

    def drop(self) -> None:
        """Count a detail that was not kept because there were too many."""
        with self._lock:
            self._dropped += 1

    def snapshot(self) -> Snapshot:
        """The totals of every bucket not yet forgotten, to be stored.

        Changes nothing counted.
        """
        with self._lock:
            now = self._clock()
            self._buckets.add_up(self._aside, now)
            self._buckets.close(now)
            buckets = list(self._buckets)
            for bucket in buckets:
                bucket.offer()
            held = [
                (_moment(bucket.start), bucket.cells, bucket.occurrences.copied())
                for bucket in buckets
            ]
            snapshot = partial(
                Snapshot,
                writer=self.writer,
                taken=_moment(now),
                closed_before=_moment(self._buckets.closed_before),
                settled_before=_moment(self._settled),
                samples=self._samples.waiting(),
                dropped=self._dropped,
            )
        # Out of the lock: this takes most of the time, and changes nothing any more.
        causes = (cause for _, _, each in held for cause in each.causes)
        return snapshot(
            cells=tuple(
                cell.totals(start, *place)
                for start, cells, _ in held
                for place, cell in cells.items()
            ),
            causes=tuple({cause.fingerprint: cause for cause in causes}.values()),
            occurrences=tuple(
                totals for start, _, each in held for totals in each.totals(start)
            ),
            facets=tuple(
                facet for start, _, each in held for facet in each.facet_values(start)
            ),
        )

    def forget(
        self, snapshot: Snapshot, *, left_out_before: datetime | None = None
    ) -> None:
        """Drop what need not be stored again, after `snapshot` was stored.

        That is its closed buckets, its samples, and the facets of the open bucket.

        Buckets that start before `left_out_before` were left out, because this writer
        had been given up for dead. What they had when they were offered to be stored
        the time before is rolled up. What they have more is held, and all that comes is
        counted, under another name. (If it is not known whether they were stored that
        time, they were: less may be told than was counted, and never more.)
        """
        with self._lock:
            if snapshot.writer != self.writer:
                return
            if left_out_before is None:
                closed_before = snapshot.closed_before.timestamp()
                self._buckets.forget(closed_before)
                self._settled = max(self._settled, closed_before)
            else:
                self._rename(left_out_before.timestamp())
                self._dropped -= snapshot.dropped
            for facet in snapshot.facets:
                bucket = self._buckets.at(facet.bucket.timestamp())
                if bucket is not None:
                    bucket.occurrences.facet_stored(facet)
            for sample in snapshot.samples:
                self._samples.stored(sample)

    def _rename(self, left_out_before: float) -> None:
        for bucket in self._buckets:
            bucket.take_back(last=bucket.start >= left_out_before)
        self._settled = 0.0
        self.writer = WriterIdentity.of_this_process(_moment(self._clock()))

    def _open(self) -> bool:
        """Have a bucket open for what comes now; whether it is a new one."""
        with self._lock:
            now = self._clock()
            self._buckets.add_up(self._aside, now)
            return now >= self._buckets.end and self._buckets.open(now)

    def _count_failures(self, outcome: Outcome, key_group: str, now: float) -> None:
        alias, buckets = outcome.alias, self._buckets
        for failure in outcome.failures:
            kind, server, text = failure.kind, failure.server, failure.text
            if kind in CONSEQUENCES:
                continue
            told = (kind, failure.exception, failure.errno, text)
            with self._lock:
                known_as = (alias, server, told)
                occurrences = buckets.current.occurrences
                if now < buckets.end and occurrences.again(known_as, now):
                    continue
            self.occurred(
                self.causes.of(*told, keys=outcome.keys, server=server),
                sightings.here,
                alias=alias,
                server=server,
                key_group=key_group,
                known_as=known_as,
            )

    def _look(
        self,
        seen: Sighting,
        facets: Mapping[str, str],
        tally: ProblemTally,
        occurrences: Occurrences,
    ) -> None:
        """Keep the details of an occurrence."""
        fingerprint, call_site = tally.cause.fingerprint, seen.call_site
        with self._lock:
            for facet, value in {**facets, "call_site": call_site}.items():
                if not occurrences.add_facet(tally, facet, value):
                    self._dropped += 1
            wanted = self._samples.wants(fingerprint, call_site)
        if wanted:
            text, now = seen.sample(), self._clock()
            with self._lock:
                self._samples.add(fingerprint, call_site, text, now)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_recorders):
        recorder.reset()


in_forked_child(_after_fork_in_child)
