"""What a recorder hands over to be stored."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import TypeVar

from django_safecache.recording.cells import CellTotals
from django_safecache.recording.fingerprints import (
    EXCEPTION_LENGTH,
    MESSAGE_LENGTH,
    Cause,
    shortened,
)
from django_safecache.recording.occurrences import FacetValue, OccurrenceTotals
from django_safecache.recording.samples import Sample

_Told = TypeVar("_Told", Cause, OccurrenceTotals, FacetValue, Sample)


@dataclass(frozen=True, slots=True)
class WriterIdentity:
    """A process that counts; a forked child is another one."""

    name: str
    host: str
    pid: int
    started: datetime

    @classmethod
    def of_this_process(cls, started: datetime) -> WriterIdentity:
        """Another one at every call: process ids are used again."""
        host, pid = socket.gethostname(), os.getpid()
        name = f"{host[:40]}:{pid}:{secrets.token_hex(4)}"
        return cls(name=name, host=host, pid=pid, started=started)


@dataclass(frozen=True, slots=True)
class FlushErrors:
    """How often a process could not store its totals, and why not the last time."""

    count: int = 0
    last: str = ""
    """Class and scrubbed text; empty if there never was any."""
    last_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the recorder holds: for each bucket the writer's totals so far."""

    writer: WriterIdentity
    taken: datetime
    closed_before: datetime
    """Nothing will be added any more to buckets that start before this."""
    settled_before: datetime
    """Buckets that start before this are in no later snapshot: `Recorder.forget` was
    told that they are stored."""
    cells: tuple[CellTotals, ...]
    causes: tuple[Cause, ...]
    occurrences: tuple[OccurrenceTotals, ...]
    facets: tuple[FacetValue, ...]
    samples: tuple[Sample, ...]
    """Of facets and samples, those that `Recorder.forget` has not yet been told of."""
    dropped: int
    """Details that found no room since the process started, and problems that no
    database would store. Counts always find room."""

    @property
    def fingerprints(self) -> frozenset[str]:
        """Of all problems in it; one that has no occurrences had them before."""
        told: Iterable[Cause | OccurrenceTotals | FacetValue | Sample] = chain(
            self.causes, self.occurrences, self.facets, self.samples
        )
        return frozenset(each.fingerprint for each in told)


def of_problems(snapshot: Snapshot, fingerprints: Set[str]) -> Snapshot:
    """`snapshot` with no other problems than these; all cells are in it."""
    return replace(
        snapshot,
        causes=_of(snapshot.causes, fingerprints),
        occurrences=_of(snapshot.occurrences, fingerprints),
        facets=_of(snapshot.facets, fingerprints),
        samples=_of(snapshot.samples, fingerprints),
    )


def _of(told: Iterable[_Told], fingerprints: Set[str]) -> tuple[_Told, ...]:
    return tuple(each for each in told if each.fingerprint in fingerprints)


def in_ascii(snapshot: Snapshot) -> Snapshot:
    """`snapshot` with its texts in letters that every database has.

    The names that things are counted under stay as they are.
    """
    return replace(
        snapshot,
        causes=tuple(
            replace(
                cause,
                exception=shortened(_escaped(cause.exception), EXCEPTION_LENGTH),
                message=_escaped(cause.message)[:MESSAGE_LENGTH],
            )
            for cause in snapshot.causes
        ),
        facets=tuple(
            replace(facet, value=_escaped(facet.value)) for facet in snapshot.facets
        ),
        samples=tuple(
            replace(
                sample,
                call_site=_escaped(sample.call_site),
                text=_escaped(sample.text),
            )
            for sample in snapshot.samples
        ),
    )


def _escaped(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
