"""What a run for exactness left: in the tables, and in the files of its processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from exact_report import COLUMNS, OF_KEYS, PROBLEMS, Given, Reporter, Told

from django_safecache.models import CacheDigest, ProblemCount, Resolution, Writer


def reporters() -> list[Reporter]:
    """Of the database that Django is set up for."""
    columns: dict[str, Counter[str]] = {}
    of_keys: dict[str, Counter[str]] = {}
    for row in CacheDigest.objects.select_related("place").filter(
        resolution=Resolution.FIVE_MINUTES, place__together=""
    ):
        total = columns.setdefault(row.writer, Counter())
        total.update({name: getattr(row, name) for name in COLUMNS})
        keys = of_keys.setdefault(row.writer, Counter())
        group = row.place.key_group
        keys.update({f"{group} {name}": getattr(row, name) for name in OF_KEYS})
    for count in ProblemCount.objects.filter(resolution=Resolution.FIVE_MINUTES):
        columns[count.writer][PROBLEMS] += count.count
    return [
        Reporter(
            writer.pid,
            writer.last_flush.timestamp(),
            writer.flush_errors,
            writer.ended is not None,
            columns.get(writer.name, Counter()),
            of_keys.get(writer.name, Counter()),
        )
        for writer in Writer.objects.all()
    ]


def told(folder: Path) -> list[Told]:
    return [
        Told(pid, moment, figures)
        for pid, (moment, figures) in _lines(folder, "witness")
    ]


def asked(folder: Path) -> dict[int, tuple[int, Given]]:
    return {number: (pid, given) for pid, (number, given) in _lines(folder, "asked")}


def _lines(folder: Path, name: str) -> Iterator[tuple[int, list]]:
    for file in folder.glob(f"{name}-*"):
        for line in file.read_text().splitlines():
            yield int(file.name.rpartition("-")[2]), json.loads(line)
