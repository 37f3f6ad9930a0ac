"""The running totals of one place in one bucket, and how an outcome adds to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django_safecache.memcached.outcomes import Outcome
from django_safecache.recording import histogram

COUNTS: tuple[str, ...] = (
    "calls",
    "lines",
    "hits",
    "misses",
    "unavailable",
    "loaded",
    "stores",
    "deletes",
    "retries",
    "splits",
    "bytes_sent",
    "bytes_received",
)
"""What is counted besides failures; the columns of the table have these names."""


FIRST_FIGURE = Outcome._fields.index("hits")
Figures = tuple[Any, ...]
"""The fields of an `Outcome` from there on: all that is counted, and no keys."""


@dataclass(slots=True)
class KeyCounts:
    """What came of some keys, named as in `Outcome`: what key groups divide."""

    hits: int = 0
    misses: int = 0
    unavailable: int = 0
    stored: int = 0
    deleted: int = 0
    loaded: int = 0


@dataclass(frozen=True, slots=True)
class CellTotals:
    """A copy of a cell: the counts of one writer, absolute for the bucket."""

    bucket: datetime
    alias: str
    server: str
    key_group: str
    counts: Mapping[str, int]
    """By the names of `COUNTS`."""
    failures: Mapping[str, int]
    """Kind to count, only those that occurred."""
    duration_sum: float
    duration_max: float
    durations: tuple[int, ...]
    """In the order of `histogram.COLUMNS`."""


class Cell:
    """Adds up. Not thread-safe: the recorder's lock is around it."""

    __slots__ = (*COUNTS, "duration_max", "duration_sum", "durations", "failures")

    calls: int
    lines: int
    hits: int
    misses: int
    unavailable: int
    loaded: int
    stores: int
    deletes: int
    retries: int
    splits: int
    bytes_sent: int
    bytes_received: int

    def __init__(self) -> None:
        for name in COUNTS:
            setattr(self, name, 0)
        self.duration_sum = 0.0
        self.duration_max = 0.0
        self.durations = [0] * len(histogram.COLUMNS)
        self.failures: dict[str, int] = {}

    def add(self, calls: Sequence[Figures]) -> None:
        """Count calls without failures, as `add_call` and `add_keys` would each."""
        hits, misses, unavailable, stored, deleted, loaded, *of_calls = zip(
            *calls, strict=True
        )
        lines, retries, splits, bytes_sent, bytes_received, durations, _ = of_calls
        self.calls += len(calls)
        self.hits += sum(hits)
        self.misses += sum(misses)
        self.unavailable += sum(unavailable)
        self.stores += sum(stored)
        self.deletes += sum(deleted)
        self.loaded += sum(loaded)
        self.lines += sum(lines)
        self.retries += sum(retries)
        self.splits += sum(splits)
        self.bytes_sent += sum(bytes_sent)
        self.bytes_received += sum(bytes_received)
        self.duration_sum += sum(durations)
        self.duration_max = max(self.duration_max, *durations)
        for duration in durations:
            self.durations[histogram.position(duration)] += 1

    def add_call(self, outcome: Outcome) -> None:
        """Count what belongs to the call as a whole, not to single keys."""
        self.calls += 1
        self.lines += outcome.lines
        self.retries += outcome.retries
        self.splits += outcome.splits
        self.bytes_sent += outcome.bytes_sent
        self.bytes_received += outcome.bytes_received
        duration = outcome.duration
        self.duration_sum += duration
        if duration > self.duration_max:
            self.duration_max = duration
        self.durations[histogram.position(duration)] += 1
        for failure in outcome.failures:
            kind = failure.kind
            self.failures[kind] = self.failures.get(kind, 0) + 1

    def add_keys(self, keys: KeyCounts | Outcome) -> None:
        """Count what came of single keys."""
        self.hits += keys.hits
        self.misses += keys.misses
        self.unavailable += keys.unavailable
        self.loaded += keys.loaded
        self.stores += keys.stored
        self.deletes += keys.deleted

    def totals(
        self, bucket: datetime, alias: str, server: str, key_group: str
    ) -> CellTotals:
        return CellTotals(
            bucket=bucket,
            alias=alias,
            server=server,
            key_group=key_group,
            counts={name: getattr(self, name) for name in COUNTS},
            failures=dict(self.failures),
            duration_sum=self.duration_sum,
            duration_max=self.duration_max,
            durations=tuple(self.durations),
        )
