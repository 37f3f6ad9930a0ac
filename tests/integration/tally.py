"""What a process's caches came to, by operation: the tables do not tell those apart.

There a key that a lost ``add`` or ``set`` was for is as unavailable as one of a lost
``get``, and only the latter was asked for by a page.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import Counter
from pathlib import Path

from django.conf import settings

from django_safecache.memcached.outcomes import Outcome, observers


class Tally:
    """An observer. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def observe(self, outcome: Outcome) -> None:
        figures = {
            "keys": len(outcome.keys),
            "hits": outcome.hits,
            "misses": outcome.misses,
            "unavailable": outcome.unavailable,
        }
        with self._lock:
            for name, value in figures.items():
                self._counts[f"{outcome.operation} {name}"] += value

    def save(self, file: Path) -> None:
        with self._lock:
            file.write_text(json.dumps(self._counts))


def count_until_exit() -> None:
    """Count from now on, and leave the counts in the folder of the run."""
    tally = Tally()
    observers.connect(tally)
    folder = settings.VAR_DIR / "tally"
    folder.mkdir(exist_ok=True)
    atexit.register(tally.save, folder / f"{os.getpid()}.json")


def counted(folder: Path) -> Counter[str]:
    """The counts of all processes that have ended, as ``get hits`` and so on."""
    total: Counter[str] = Counter()
    for file in (folder / "tally").iterdir():
        total.update(json.loads(file.read_text()))
    return total
