"""What a call to one server came to: the facts that telemetry is made of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

from django_safecache.events import get_logger

FailureKind = Literal[
    "epipe",
    "reset",
    "closed",
    "timeout",
    "refused",
    "unreachable",
    "too_many_connections",
    "server_error",
    "client_error",
    "protocol",
    "too_large",
    "undecodable",
    "breaker_open",
    "deadline",
    "pool_exhausted",
]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
"""The one vocabulary of failures: columns, chart series, mail and log use it."""

Phase = Literal["connect", "send", "receive", "parse"]


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong between this process and one server.

    `text` is the server's own words or the operating system's: hostile until
    scrubbed. It carries no exception object, so that nothing keeps the frames
    of a failed call alive.
    """

    kind: FailureKind
    server: str
    phase: Phase
    exception: str
    """Qualified class name, ``builtins.BrokenPipeError``; empty for none."""
    errno: int | None
    text: str
    keys: int
    """How many keys the server did not answer for because of it."""
    bytes_sent: int
    bytes_received: int
    connection_age: float | None
    """Seconds since the connection was opened; None if it never was."""


class Outcome(NamedTuple):
    """What one operation came to on one server (or, for ``load``, in a loader).

    For reads ``hits + misses + unavailable == len(keys)``. `keys`, `found` and
    `lost` hold the caller's own keys and are there to be grouped and counted
    during `Observer.observe`; an observer must not keep them.

    A named tuple, because one is made for every call: a frozen dataclass of this many
    fields takes four times as long to make, as long as half a local round trip.
    """

    alias: str
    server: str
    operation: str
    """The wire operation: get, set, add, delete, touch, incr, decr, flush_all;
    or load."""
    keys: Collection[object]
    found: Collection[object] = ()
    """Contains every hit of `keys`; other servers' hits may be in it too."""
    lost: Collection[object] = ()
    """The unavailable ones of `keys`."""
    hits: int = 0
    misses: int = 0
    unavailable: int = 0
    stored: int = 0
    deleted: int = 0
    loaded: int = 0
    lines: int = 0
    retries: int = 0
    splits: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    duration: float = 0.0
    """Seconds from the first byte sent to the last byte wanted."""
    failures: tuple[Failure, ...] = ()


class Observer(Protocol):
    """Is told what came of every operation, in the thread that ran it."""

    def observe(self, outcome: Outcome) -> None: ...


class Observers:
    """Hands each outcome to all connected observers, and never raises.

    `errors` counts the outcomes an observer failed on: telemetry that breaks is
    counted too, and must not break a cache call.
    """

    def __init__(self) -> None:
        self._of_all: tuple[Observer, ...] = ()
        self._of_failures: tuple[Observer, ...] = ()
        self.errors = 0

    def connect(self, observer: Observer) -> None:
        """Add `observer` unless it is connected already."""
        if observer not in self._of_all:
            self._of_all = (*self._of_all, observer)

    def connect_to_failures(self, observer: Observer) -> None:
        """Add `observer`, but hand it only outcomes that have failures."""
        if observer not in self._of_failures:
            self._of_failures = (*self._of_failures, observer)

    def disconnect(self, observer: Observer) -> None:
        """Remove `observer` if it is connected."""
        self._of_all = tuple(o for o in self._of_all if o is not observer)
        self._of_failures = tuple(o for o in self._of_failures if o is not observer)

    def observe(self, outcome: Outcome) -> None:
        those = self._of_all
        if outcome.failures:
            those += self._of_failures
        for observer in those:
            try:
                observer.observe(outcome)
            except Exception:  # an observer may be anybody's code
                self.errors += 1
                if self.errors == 1:
                    get_logger().exception("observer_failed", observer=repr(observer))


observers = Observers()
"""The observers of every cache of this process; `apps.py` connects the recorder."""
