"""How often each problem occurred in a bucket, where, and with which facets."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import NamedTuple

from django_safecache.recording.fingerprints import Cause, cause_of

OTHER = "<other>"
"""Stands for what had no room of its own."""

# Of one problem in one bucket. In a storm the first occurrences say what there is to
# say; the rest is counted, and nothing is looked at: no account, no stack.
DETAILED_OCCURRENCES = 50
# Names by which problems that storm are known; a hundred servers with ten each.
MAX_STORMY = 1000
# One problem on a thousand accounts needs no thousand-and-first to be believed, and
# must leave room for the facets of other problems.
MAX_FACETS_OF_PROBLEM = 1000


@dataclass(frozen=True, slots=True)
class OccurrenceTotals:
    """Occurrences of a problem at one server, absolute for the bucket."""

    bucket: datetime
    fingerprint: str
    alias: str
    server: str
    count: int
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value that a problem occurred with in a bucket."""

    bucket: datetime
    fingerprint: str
    facet: str
    value: str


class Place:
    """Where a problem occurred: how often, first and last when."""

    __slots__ = ("count", "first_seen", "last_seen", "offered", "offered_before")

    def __init__(self, now: float) -> None:
        self.count = 0
        self.offered = 0
        self.offered_before = 0
        self.first_seen = now
        self.last_seen = now


class ProblemTally:
    """One problem in one bucket."""

    def __init__(self, cause: Cause) -> None:
        self.cause = cause
        self.count = 0
        self.places: dict[tuple[str, str], Place] = {}
        self.facets: dict[tuple[str, str], bool] = {}
        """Facet and value, and whether they have been stored."""


class OccurrencesCopy(NamedTuple):
    """The problems of one bucket, copied as plainly as can be: whoever counts waits
    for that. Not for what is made of it."""

    causes: list[Cause]
    places: list[tuple[str, str, str, int, float, float]]
    """Fingerprint, alias, server, count, first and last seen."""
    facets: list[tuple[str, str, str]]
    """Fingerprint, facet and value."""

    def totals(self, bucket: datetime) -> Iterator[OccurrenceTotals]:
        for fingerprint, alias, server, count, first_seen, last_seen in self.places:
            yield OccurrenceTotals(
                bucket=bucket,
                fingerprint=fingerprint,
                alias=alias,
                server=server,
                count=count,
                first_seen=datetime.fromtimestamp(first_seen, timezone.utc),
                last_seen=datetime.fromtimestamp(last_seen, timezone.utc),
            )

    def facet_values(self, bucket: datetime) -> Iterator[FacetValue]:
        return (FacetValue(bucket, *facet) for facet in self.facets)


class Occurrences:
    """The problems of one bucket. Not thread-safe: the recorder's lock is around it.

    At most `max_places` pairs of problem and server are told apart; what comes after
    is counted at the server ``<other>``, and new problems as one a kind. At most
    `max_facets` values are kept.
    """

    def __init__(self, max_places: int, max_facets: int) -> None:
        self._max_places = max_places
        self._max_facets = max_facets
        self._problems: dict[str, ProblemTally] = {}
        self._stormy: dict[Hashable, tuple[ProblemTally, Place]] = {}
        self.places = 0
        self.facets = 0

    def again(self, known_as: Hashable, now: float) -> bool:
        """Count one more of what `add` was told of by that name, if it is a storm.

        Then there is nothing to find out, and no detail to be looked at.
        """
        known = self._stormy.get(known_as)
        if known is None:
            return False
        tally, place = known
        tally.count += 1
        place.count += 1
        if now > place.last_seen:
            place.last_seen = now
        return True

    def add(
        self,
        cause: Cause,
        alias: str,
        server: str,
        now: float,
        known_as: Hashable = None,
    ) -> ProblemTally:
        """Count one occurrence, and return the tally it went to."""
        tally = self._problems.get(cause.fingerprint)
        place = tally.places.get((alias, server)) if tally else None
        if tally is None or place is None:
            if self.places >= self._max_places:
                server = OTHER
                cause = tally.cause if tally else other_of(cause.kind)
            tally = self._problems.setdefault(cause.fingerprint, ProblemTally(cause))
            place = self._place(tally, alias, server, now)
        tally.count += 1
        place.count += 1
        if now > place.last_seen:
            place.last_seen = now
        elif now < place.first_seen:
            place.first_seen = now
        if known_as is not None and tally.count >= DETAILED_OCCURRENCES:
            if len(self._stormy) >= MAX_STORMY:
                self._stormy.clear()
            self._stormy[known_as] = tally, place
        return tally

    def _place(self, tally: ProblemTally, alias: str, server: str, now: float) -> Place:
        place = tally.places.get((alias, server))
        if place is None:
            place = tally.places[alias, server] = Place(now)
            self.places += 1
        return place

    def add_facet(self, tally: ProblemTally, facet: str, value: str) -> bool:
        """Keep a value that `tally` occurred with; False if there is no room."""
        if not value or (facet, value) in tally.facets:
            return True
        if (
            self.facets >= self._max_facets
            or len(tally.facets) >= MAX_FACETS_OF_PROBLEM
        ):
            return False
        tally.facets[facet, value] = False
        self.facets += 1
        return True

    def offer(self) -> None:
        """Remember what there is now: it is about to be stored."""
        for place in self._places():
            place.offered_before, place.offered = place.offered, place.count

    def take_back(self, *, last: bool) -> None:
        """Leave what has come since the last offer, or since the one before."""
        for place in self._places():
            place.count -= place.offered if last else place.offered_before
            place.offered = place.offered_before = 0

    def _places(self) -> Iterator[Place]:
        for tally in list(self._problems.values()):
            yield from list(tally.places.values())

    def copied(self) -> OccurrencesCopy:
        """All of it as it is now, but the facets that have been stored."""
        # Copies, because they are made in one piece. While a list of pairs is made, the
        # collector may run a destructor that logs an error, which is counted.
        problems = self._problems.copy()
        return OccurrencesCopy(
            causes=[tally.cause for tally in problems.values()],
            places=[
                (fingerprint, *where, place.count, place.first_seen, place.last_seen)
                for fingerprint, tally in problems.items()
                for where, place in tally.places.copy().items()
                if place.count
            ],
            facets=[
                (fingerprint, *facet)
                for fingerprint, tally in problems.items()
                for facet, stored in tally.facets.copy().items()
                if not stored
            ],
        )

    def facet_stored(self, stored: FacetValue) -> None:
        """Do not yield `stored` again."""
        tally = self._problems.get(stored.fingerprint)
        if tally is not None:
            tally.facets[stored.facet, stored.value] = True


@lru_cache(maxsize=64)
def other_of(kind: str) -> Cause:
    """The problem of a kind that what has no room is counted as."""
    return cause_of(kind, "", None, OTHER)
