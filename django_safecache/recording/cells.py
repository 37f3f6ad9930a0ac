"""The running totals of one place in one bucket, and how an outcome adds to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import add, attrgetter, sub
from typing import Any, NamedTuple

from django_safecache.memcached.outcomes import Failure, Outcome
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
FIRST_OF_CALL = Outcome._fields.index("lines") - FIRST_FIGURE
"""Of `Figures`: those before it are of keys, from there on they are of the call."""
OF_NO_CALL: Figures = (0, 0, 0, 0, 0, None, ())
"""What stands there where the call is counted elsewhere; it takes no time at all."""


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


class Cell(NamedTuple):
    """Never changed: `plus` makes another, so that a sum is either old or new."""

    calls: int = 0
    lines: int = 0
    hits: int = 0
    misses: int = 0
    unavailable: int = 0
    loaded: int = 0
    stores: int = 0
    deletes: int = 0
    retries: int = 0
    splits: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    duration_sum: float = 0.0
    duration_max: float = 0.0
    durations: tuple[int, ...] = (0,) * len(histogram.COLUMNS)
    failures: Mapping[str, int] = {}

    def plus(self, calls: Sequence[Figures]) -> Cell:
        """This cell and `calls`, of which there must be one."""
        hits, misses, unavailable, stored, deleted, loaded, *of_call = zip(
            *calls, strict=True
        )
        lines, retries, splits, bytes_sent, bytes_received, times, failures = of_call
        durations = [each for each in times if each is not None]
        kinds = _kinds(failures) if any(failures) else None
        return Cell(
            calls=self.calls + len(durations),
            lines=self.lines + sum(lines),
            hits=self.hits + sum(hits),
            misses=self.misses + sum(misses),
            unavailable=self.unavailable + sum(unavailable),
            loaded=self.loaded + sum(loaded),
            stores=self.stores + sum(stored),
            deletes=self.deletes + sum(deleted),
            retries=self.retries + sum(retries),
            splits=self.splits + sum(splits),
            bytes_sent=self.bytes_sent + sum(bytes_sent),
            bytes_received=self.bytes_received + sum(bytes_received),
            duration_sum=self.duration_sum + sum(durations),
            duration_max=max(self.duration_max, max(durations, default=0.0)),
            durations=tuple(map(add, self.durations, histogram.counted(durations))),
            failures=Counter(self.failures) + kinds if kinds else self.failures,
        )

    def minus(self, part: Cell) -> Cell:
        """What this cell has more than it had when it was `part`."""
        counts = {name: getattr(self, name) - getattr(part, name) for name in COUNTS}
        return Cell(
            **counts,
            duration_sum=max(self.duration_sum - part.duration_sum, 0.0),
            duration_max=self.duration_max,
            durations=tuple(map(sub, self.durations, part.durations)),
            failures=Counter(self.failures) - Counter(part.failures),
        )

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
            durations=self.durations,
        )


def _kinds(failures: Iterable[Iterable[Failure]]) -> Counter[str]:
    return Counter(map(attrgetter("kind"), chain.from_iterable(failures)))
