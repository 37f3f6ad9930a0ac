"""Threads that want the same keys of a loader at the same time share one load."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Load = Callable[[Sequence[Any]], Mapping[Any, Any]]

LONGEST_WAIT = 5.0
"""Seconds that a thread waits for another's load. Then it loads itself: the other may
be waiting for a lock in the database which this one holds."""


_is_loading: ContextVar[bool] = ContextVar("django_safecache_is_loading", default=False)
"""Whether this is code of a loader; known also in the thread it is sent to."""


class Flight:
    """One call of a loader that is under way, and what came of it."""

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.has_passengers = False
        self.succeeded = False
        self.error: Exception | None = None
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
        return None if self._values is None else pickle.loads(self._values)  # noqa: S301


class Flights:
    """The loads under way in this process. Thread-safe.

    A key is known by its `identity`, which must be the same for two threads only if
    its value is: the cache and the made key, not what the caller calls it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """None is under way: in a forked child the threads of its parent are not."""
        # Reentrant: a destructor may use the cache while the lock is held.
        self._lock = threading.RLock()
        self._flights: dict[tuple[object, Any], Flight] = {}
        self._watches: list[tuple[Collection[Any], set[Any]]] = []

    def load(
        self, loader: object, keys: Mapping[Any, Any], load: Load
    ) -> dict[Any, Any]:
        """`load` of `keys`, the identities by key, without those that another thread
        is loading by `loader`: their values are that one's.

        Of another thread's load its exception is raised here as well. Within a load
        nothing is waited for: two that wait for each other would wait for ever.
        """
        if _is_loading.get():
            return _taken(load(list(keys)), keys)
        flight = Flight()
        own, joined = self._board(flight, loader, keys)
        values: dict[Any, Any] = {}
        try:
            if own:
                values = self._fly(flight, own, load)
                flight.succeeded = True
        finally:
            self._land(flight, loader, own, values)
        for other, its in joined.items():
            values.update(self._wait(other, its, load))
        return values

    def _board(
        self, flight: Flight, loader: object, keys: Mapping[Any, Any]
    ) -> tuple[dict[Any, Any], dict[Flight, dict[Any, Any]]]:
        own: dict[Any, Any] = {}
        joined: dict[Flight, dict[Any, Any]] = {}
        with self._lock:
            for key, identity in keys.items():
                other = self._flights.setdefault((loader, identity), flight)
                if other is flight:
                    own[key] = identity
                else:
                    other.has_passengers = True
                    joined.setdefault(other, {})[key] = identity
        return own, joined

    def _fly(
        self, flight: Flight, keys: Mapping[Any, Any], load: Load
    ) -> dict[Any, Any]:
        token = _is_loading.set(True)
        try:
            return _taken(load(list(keys)), keys)
        except Exception as error:
            flight.error = error
            raise
        finally:
            _is_loading.reset(token)

    def _land(
        self,
        flight: Flight,
        loader: object,
        keys: Mapping[Any, Any],
        values: Mapping[Any, Any],
    ) -> None:
        with self._lock:
            for identity in keys.values():
                if self._flights.get((loader, identity)) is flight:
                    del self._flights[loader, identity]
        if flight.has_passengers and flight.succeeded:
            flight.keep({keys[key]: value for key, value in values.items()})
        flight.landed.set()

    def _wait(
        self, other: Flight, keys: Mapping[Any, Any], load: Load
    ) -> Mapping[Any, Any]:
        in_time = other.landed.wait(LONGEST_WAIT)
        if other.error is not None:
            raise other.error
        values = other.values() if in_time else None
        if values is None:
            return _taken(load(list(keys)), keys)
        return {
            key: values[identity]
            for key, identity in keys.items()
            if identity in values
        }

    # Writes that overtake a load.

    @property
    def under_way(self) -> bool:
        """Whether there is anything that a write could overtake."""
        return bool(self._flights or self._watches)

    def overtake(self, identities: Iterable[Any] | None) -> None:
        """These keys (None: all) are about to be written. Whoever asks for one of them
        from now on joins no load that began before; what that gives is old."""
        with self._lock:
            known = {identity for _, identity in self._flights}
            known.update(*[watched for watched, _ in self._watches])
            overtaken = known if identities is None else known.intersection(identities)
            for place in [place for place in self._flights if place[1] in overtaken]:
                del self._flights[place]
            for watched, seen in self._watches:
                seen.update(overtaken.intersection(watched))

    @contextmanager
    def watching(self, identities: Collection[Any]) -> Iterator[set[Any]]:
        """Yields a set that comes to hold those of `identities` that are written."""
        overtaken: set[Any] = set()
        watch = (identities, overtaken)
        with self._lock:
            self._watches.append(watch)
        try:
            yield overtaken
        finally:
            with self._lock:
                self._watches = [each for each in self._watches if each is not watch]


def _taken(given: Mapping[Any, Any], keys: Iterable[Any]) -> dict[Any, Any]:
    """Of what a loader has given, what it was asked for."""
    return {key: given[key] for key in keys if key in given}


flights = Flights()
"""Of all caches of this process."""
os.register_at_fork(after_in_child=flights.reset)
