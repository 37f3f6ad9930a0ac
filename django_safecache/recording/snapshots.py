"""What a recorder hands over to be stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django_safecache.recording.cells import CellTotals
from django_safecache.recording.fingerprints import Cause
from django_safecache.recording.occurrences import FacetValue, OccurrenceTotals


@dataclass(frozen=True, slots=True)
class WriterIdentity:
    """A process that counts; a forked child is another one."""

    name: str
    host: str
    pid: int
    started: datetime


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
    """Only those that `Recorder.forget` has not yet been told of."""
    dropped: int
    """Details that found no room since the process started. Counts always do."""
