"""Upper bounds that durations are counted under, fixed so that rows can be added."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# A get on loopback takes 0.1 ms, the deadline of a call is 1 s by default; between
# them the steps of 1, 2.5, 5 that Prometheus' client libraries use.
UPPER_BOUNDS: tuple[float, ...] = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
)
"""Seconds, inclusive. What is longer than the last is counted after it."""

COLUMNS: tuple[str, ...] = (
    *(f"duration_to_{round(bound * 1_000_000)}us" for bound in UPPER_BOUNDS),
    "duration_longer",
)
"""One name for each count, in the order of the bounds. Not cumulative."""


def position(duration: float) -> int:
    """Index into `COLUMNS` of the count that `duration` (seconds) belongs to."""
    return bisect_left(UPPER_BOUNDS, duration)


def percentile(counts: Sequence[int], fraction: float) -> float | None:
    """The upper bound under which `fraction` (0 to 1) of the durations lie.

    None without durations; infinity where the last bound is exceeded, because the
    counts do not say by how much.
    """
    wanted = sum(counts) * fraction
    if not any(counts):
        return None
    seen = 0
    for bound, count in zip((*UPPER_BOUNDS, float("inf")), counts, strict=True):
        seen += count
        if count and seen >= wanted:
            return bound
    return float("inf")
