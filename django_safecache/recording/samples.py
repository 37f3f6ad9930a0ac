"""A few stacks of each problem, one for each call site, and when they were taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

MAX_SAMPLES = 5
"""Of one problem. Of one call site there is one: five alike would say no more."""
# Of what is bounded by problems and by processes, the bound over all: 2 MB of text
# that waits for the database, and below the names of call sites.
MAX_WAITING = 250
# More than the problems that a process makes in a day, of the site and of browsers: all
# of them would else be taken again and again, for a database that has them.
MAX_REMEMBERED = 2000


@dataclass(frozen=True, slots=True)
class Sample:
    """What a problem looked like once. `text` is scrubbed, see `stacks`."""

    fingerprint: str
    call_site: str
    taken: datetime
    text: str


class Samples:
    """The samples of one process. Not thread-safe: the recorder's lock is around it.

    What was taken is remembered also when it has been stored, so that it is not taken
    again; when too much is remembered, all of it is forgotten and that may happen.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Sample] = {}
        self._taken: dict[str, set[str]] = {}

    def wants(self, fingerprint: str, call_site: str) -> bool:
        """Whether one is to be taken, and if so: remember that it was."""
        sites = self._taken.get(fingerprint)
        if sites is None:
            if len(self._taken) >= MAX_REMEMBERED:
                self._taken.clear()
            sites = self._taken[fingerprint] = set()
        full = len(sites) >= MAX_SAMPLES or len(self._waiting) >= MAX_WAITING
        if full or call_site in sites:
            return False
        sites.add(call_site)
        return True

    def add(self, fingerprint: str, call_site: str, text: str, now: float) -> None:
        """Keep a sample that was wanted until it is stored."""
        if text:
            taken = datetime.fromtimestamp(now, timezone.utc)
            sample = Sample(fingerprint, call_site, taken, text)
            self._waiting[fingerprint, call_site] = sample

    def waiting(self) -> tuple[Sample, ...]:
        """Those that have not been stored yet."""
        return tuple(self._waiting.values())

    def stored(self, sample: Sample) -> None:
        """`sample` need not wait any longer."""
        self._waiting.pop((sample.fingerprint, sample.call_site), None)
