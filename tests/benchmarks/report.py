"""The machine and the table, fit for a README."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from measurement import Comparison, Row
from stage import available

HEAD = ("work", "SafeCache", "beside", "ratio", "must", "goal", "verdict")


def machine(program: str) -> dict[str, str]:
    """Date, hardware and versions: what the figures hold for."""
    told = subprocess.run(
        [program, "-V"], capture_output=True, text=True, check=False, timeout=10
    )
    packages = ["django-safecache", "Django", "pymemcache"]
    if "PyLibMCCache" in available():
        packages.append("pylibmc")
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "python": platform.python_version(),
        "memcached": told.stdout.strip().removeprefix("memcached "),
        **{name: _version(name) for name in packages},
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from the source folder


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of a table with a line for each comparison, and the notes."""
    yield _line(HEAD)
    yield _line(["---"] * len(HEAD))
    for row in rows:
        for comparison in row.comparisons:
            yield _line(_cells(row, comparison))
    yield ""
    for note in dict.fromkeys(row.note for row in rows if row.note):
        names = [row.name for row in rows if row.note == note]
        yield f"- {'; '.join(names)}: {note}"


def _cells(row: Row, comparison: Comparison) -> list[str]:
    ours = row.figures.get("SafeCache")
    other = row.figures.get(comparison.beside)
    return [
        row.name,
        "" if ours is None else _amount(ours, row.unit),
        comparison.beside + ("" if other is None else f" {_amount(other, row.unit)}"),
        f"{comparison.measured:.2f} {comparison.unit}".replace(" x", "x"),
        _limit(comparison.must, comparison),
        _limit(comparison.goal, comparison),
        comparison.verdict,
    ]


def _limit(limit: float | None, comparison: Comparison) -> str:
    if limit is None:
        return ""
    sign = "at least" if comparison.at_least else "at most"
    return f"{sign} {limit:g}"


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:.2f} MB"
    if value >= 1:
        return f"{value:.2f} s"
    if value >= 0.001:
        return f"{value * 1e3:.2f} ms"
    return f"{value * 1e6:.2f} us"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
