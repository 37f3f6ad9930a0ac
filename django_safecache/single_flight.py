"""Threads that want the same keys of a loader at the same time share one load."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django_safecache.forks import in_forked_child

Load = Callable[[Sequence[Any]], Mapping[Any, Any]]

PATIENCE = 5.0
"""Seconds after which the first of those that wait for another thread's load loads
itself: that one may be waiting for a lock in the database which this one holds. After
each further such time it is twice as many."""

_is_loading: ContextVar[bool] = ContextVar("django_safecache_is_loading", default=False)
"""Whether this is code of a loader; known also in the thread it is sent to."""


def is_loading() -> bool:
    """Whether this is called by a loader."""
    return _is_loading.get()


class Flight:
    """One call of a loader, to come or under way, and what came of it."""

    def __init__(self) -> None:
        self.began = float("inf")
        self.landed = threading.Event()
        self.passengers = 0
        self.error: Exception | None = None
        self.identities: Set[Any] = frozenset()
        """Of the keys that it was for, once it has landed."""
        self._values: bytes | None = None

    def keep(self, values: Mapping[Any, Any]) -> None:
        """For the passengers. Pickled, for what is taken from a cache is one's own: two
        threads must not get the same list."""
        try:
            self._values = pickle.dumps(values)
        except Exception:  # anybody's classes; then the passengers load themselves
            self._values = None

    def values(self) -> Mapping[Any, Any] | None:
        """A copy of what it brought; None if it brought nothing that can be shared."""
        if self._values is None:
            return None
        try:
            values: Mapping[Any, Any] = pickle.loads(  # noqa: S301 - by this process
                self._values
            )
        except Exception:  # anybody's classes
            return None
        return values


class Flights:
    """The loads of this process: of each key at most one under way, and one to come.

    Thread-safe. A key is known by its `identity`, which must be the same for two
    threads only if its value is: the cache and the made key, not what the caller calls
    it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """None is under way: in a forked child the threads of its parent are not."""
        # Reentrant: a destructor may use the cache while the lock is held.
        self._lock = threading.RLock()
        self._under_way: dict[tuple[object, Any], Flight] = {}
        self._to_come: dict[tuple[object, Any], Flight] = {}
        self.watches: list[tuple[set[Any], set[Any]]] = []
        """What a write could overtake, and what of it was written; usually nothing."""

    def load(
        self,
        loader: object,
        keys: Mapping[Any, Any],
        load: Load,
        since: float,
        patience: float = PATIENCE,
    ) -> dict[Any, Any]:
        """`load` of `keys`, the identities by key, as few times as can be.

        Shared is only what was loaded after the monotonic time `since`, when the caller
        began: a load that began before may have read what was changed since, perhaps
        by another process. Who comes later than it began waits for its end, and then
        one of all these loads for all.

        The exception of a load of the same keys is raised here as well. Within a load
        nothing is waited for: two that wait for each other would wait for ever.
        """
        if is_loading():
            return _taken(load(list(keys)), keys)
        now, later = Flight(), Flight()
        with self._lock:
            boarded = self._board(loader, keys, since, now, later)
        waits = {
            other: time.monotonic() + patience * other.passengers.bit_length()
            for other in boarded
        }
        own, own_later = boarded.pop(now, {}), boarded.pop(later, {})
        values: dict[Any, Any] = {}
        errors = []
        try:
            for flight, its in ((now, own), (later, own_later)):
                if its:
                    if flight is later:
                        self._take_off(later, loader, its, patience)
                    try:
                        values.update(self._fly(flight, loader, its, load))
                    except Exception as error:
                        errors.append(error)  # others wait for the other flight
        finally:
            self._land(later, loader, own_later)
        if errors:
            raise errors.pop()
        for other, its in boarded.items():
            values.update(self._wait(other, waits[other], its, load))
        return values

    def _board(
        self,
        loader: object,
        keys: Mapping[Any, Any],
        since: float,
        now: Flight,
        later: Flight,
    ) -> dict[Flight, dict[Any, Any]]:
        """Which flight each key is on: `now` where none is under way, else that one if
        it is young enough, else the next one, which may be `later`."""
        boarded: dict[Flight, dict[Any, Any]] = {}
        for key, identity in keys.items():
            place = loader, identity
            flight = self._under_way.get(place)
            if flight is None or flight.began < since:
                if place in self._to_come:
                    flight = self._to_come[place]
                elif flight is None:
                    flight = self._under_way[place] = now
                else:
                    flight = self._to_come[place] = later
            flight.passengers += flight not in (now, later)
            boarded.setdefault(flight, {})[key] = identity
        now.began = time.monotonic()
        return boarded

    def _take_off(
        self, flight: Flight, loader: object, keys: Mapping[Any, Any], patience: float
    ) -> None:
        """When what is under way of `keys` has landed, or takes too long."""
        until = time.monotonic() + patience
        places = [(loader, identity) for identity in keys.values()]
        for place in places:
            other = self._under_way.get(place)
            if other is not None:
                other.landed.wait(max(until - time.monotonic(), 0.0))
        with self._lock:
            flight.began = time.monotonic()
            for place in places:
                del self._to_come[place]
                self._under_way[place] = flight

    def _fly(
        self, flight: Flight, loader: object, keys: Mapping[Any, Any], load: Load
    ) -> dict[Any, Any]:
        values = None
        token = _is_loading.set(True)
        try:
            values = _taken(load(list(keys)), keys)
        except CancelledError:  # of the owner's event loop, and nobody else's
            raise
        except Exception as error:
            flight.error = _copy(error)
            raise
        finally:
            _is_loading.reset(token)
            self._land(flight, loader, keys, values)
        return values

    def _land(
        self,
        flight: Flight,
        loader: object,
        keys: Mapping[Any, Any],
        values: Mapping[Any, Any] | None = None,
    ) -> None:
        with self._lock:
            for identity in keys.values():
                for flights in (self._under_way, self._to_come):
                    if flights.get((loader, identity)) is flight:
                        del flights[loader, identity]
        # Nobody can board any more.
        flight.identities = frozenset(keys.values())
        if flight.passengers and values is not None:
            flight.keep({keys[key]: value for key, value in values.items()})
        flight.landed.set()

    def _wait(
        self, other: Flight, until: float, keys: Mapping[Any, Any], load: Load
    ) -> Mapping[Any, Any]:
        in_time = other.landed.wait(max(until - time.monotonic(), 0.0))
        # Of another set of keys it may have failed for one that is not among these.
        same = other.identities == set(keys.values())
        if in_time and same and (error := _copy(other.error)) is not None:
            raise error
        values = other.values() if in_time else None
        if values is None:
            return _taken(load(list(keys)), keys)
        return {
            key: values[identity]
            for key, identity in keys.items()
            if identity in values
        }

    # Writes that overtake a load.

    def overtake(self, identities: set[Any] | None) -> None:
        """These keys (None: all) are about to be written: what is loaded of them now
        may be older."""
        with self._lock:
            for watched, seen in self.watches:
                seen.update(watched if identities is None else watched & identities)

    @contextmanager
    def watching(self, identities: set[Any]) -> Iterator[set[Any]]:
        """Yields a set that comes to hold those of `identities` that are written."""
        overtaken: set[Any] = set()
        watch = (identities, overtaken)
        with self._lock:
            self.watches.append(watch)
        try:
            yield overtaken
        finally:
            with self._lock:
                self.watches = [each for each in self.watches if each is not watch]


def _copy(error: Exception | None) -> Exception | None:
    """One without the traceback, to which each thread that raises it would add; None if
    it cannot be copied."""
    try:
        return copy.copy(error)
    except Exception:  # anybody's class
        return None


def _taken(given: Mapping[Any, Any], keys: Iterable[Any]) -> dict[Any, Any]:
    """Of what a loader has given, what it was asked for."""
    return {key: given[key] for key in keys if key in given}


flights = Flights()
"""Of all caches of this process."""
in_forked_child(flights.reset)
