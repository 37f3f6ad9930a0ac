"""Totals by bucket, as bounded as the memory that holds them until they are stored."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import repeat, starmap

from django_safecache.recording.cells import Cell, Figures
from django_safecache.recording.occurrences import OTHER, Occurrences

BUCKET_SECONDS = 300
# Bounds of what is held for the database, all buckets together. A cell takes 1 kB:
# ten servers with ten key groups fill these in eight hours without a database.
MAX_CELLS = 10_000
MAX_PLACES = 10_000
MAX_FACETS = 20_000

Place = tuple[str, str, str]
"""alias, server, key group"""
Counted = tuple[str, str, str, Figures]
"""A place, and what a call came to there: flat, because one is made for every call."""
Aside = deque[Counted]
"""Calls that were put aside, to be added up with others."""

_State = tuple[dict[Place, Cell], list[Counted]]
"""The cells, and the calls that were taken for them and are not in them yet."""

_NOTHING = Cell()
# What a figure that is no number raises. Nothing else is expected of adding up; an
# exception that is thrown into the thread from outside may be any other.
_MALFORMED = (ArithmeticError, AttributeError, TypeError, ValueError)


class Bucket:
    """The cells and the problems of one bucket."""

    def __init__(self, start: float, occurrences: Occurrences) -> None:
        self.start = start
        self.occurrences = occurrences
        self._state: _State = ({}, [])
        self._offered: Mapping[Place, Cell] = {}
        self._offered_before: Mapping[Place, Cell] = {}

    @property
    def cells(self) -> dict[Place, Cell]:
        return self._state[0]

    def add_up(self, aside: Aside, room: int) -> None:
        """Count what is put `aside`, in `room` cells and the ``<other>`` ones.

        An exception in the middle (of a signal handler, of whoever aborts the thread)
        loses nothing and counts nothing twice: a call is in `aside`, or among the
        calls taken, or in the cells. The first move is one of C code that nothing
        comes in between, the second is the assignment of both at once.
        """
        state = self._state
        cells, taken = state
        with suppress(IndexError):  # when all are taken
            taken.extend(starmap(aside.popleft, repeat(())))
        if not taken:
            return
        after: _State
        try:
            after = (_added(cells, taken, room), [])
        except _MALFORMED:
            # Kept, they would fail again for ever, and all that come after them.
            if self._state is state:
                self._state = (cells, [])
            raise
        # A destructor may have run in between, and have counted something itself: then
        # these calls were added up together with it.
        if self._state is state:
            self._state = after

    def offer(self) -> None:
        """Remember what there is now: it is about to be stored."""
        self._offered_before, self._offered = self._offered, self.cells
        self.occurrences.offer()

    def take_back(self, *, last: bool) -> None:
        """Leave what has come since the last offer, or since the one before."""
        offered = self._offered if last else self._offered_before
        state = cells, taken = self._state
        rest = {
            place: cell.minus(offered[place]) if place in offered else cell
            for place, cell in cells.items()
            if cell != offered.get(place)
        }
        if self._state is not state:  # a destructor has counted something in between
            self.take_back(last=last)
            return
        self._state = (rest, taken)
        self._offered = self._offered_before = {}
        self.occurrences.take_back(last=last)


def _added(
    cells: dict[Place, Cell], calls: list[Counted], room: int
) -> dict[Place, Cell]:
    by_place: defaultdict[Place, list[Figures]] = defaultdict(list)
    for alias, server, group, figures in calls:
        by_place[alias, server, group].append(figures)
    added = cells.copy()
    for place, its in by_place.items():
        if place not in added and len(added) >= room:
            alias, server, _ = place
            # Loaders have no server; mixed with servers their durations would lie.
            place = (alias, OTHER if server else "", OTHER)
        added[place] = added.get(place, _NOTHING).plus(its)
    return added


class Buckets:
    """The buckets that are held. Not thread-safe: the recorder's lock is around it.

    No bucket opens before one that was closed: a clock that is set back does not
    overwrite what is stored.
    """

    def __init__(
        self, seconds: int, *, max_cells: int, max_places: int, max_facets: int
    ) -> None:
        self._seconds = seconds
        self._max_cells = max_cells
        self._max_places = max_places
        self._max_facets = max_facets
        self._held: dict[float, Bucket] = {}
        self.current = Bucket(0.0, Occurrences(0, 0))
        self.end = 0.0
        """When the current one ends, in seconds since the epoch; 0 if none is open."""
        self.closed_before = 0.0
        """Nothing is added any more to buckets that start before this."""

    def __iter__(self) -> Iterator[Bucket]:
        return iter(list(self._held.values()))

    def add_up(self, aside: Aside, now: float) -> None:
        """Count what was put aside, in the bucket that was open then, or in the next
        one if that was closed and stored in between."""
        if aside and not self.end:
            self.open(now)
        others = sum(len(each.cells) for each in self) - len(self.current.cells)
        self.current.add_up(aside, self._max_cells - others)

    def open(self, now: float) -> bool:
        """Make the bucket of `now` the current one; whether it is a new one."""
        start = max(now // self._seconds * self._seconds, self.closed_before)
        opened = start not in self._held
        if opened:
            self._held[start] = Bucket(
                start,
                Occurrences(
                    self._max_places - sum(each.occurrences.places for each in self),
                    self._max_facets - sum(each.occurrences.facets for each in self),
                ),
            )
        self.current = self._held[start]
        self.closed_before = start
        self.end = start + self._seconds
        return opened

    def close(self, now: float) -> None:
        """Let nothing more into the current bucket if it has ended by `now`."""
        if self.end and now >= self.end:
            self.closed_before = self.end
            self.end = 0.0

    def at(self, start: float) -> Bucket | None:
        return self._held.get(start)

    def forget(self, closed_before: float) -> None:
        for start in [start for start in self._held if start < closed_before]:
            del self._held[start]
