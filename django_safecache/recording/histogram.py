"""Upper bounds that durations are counted under, fixed so that rows can be added."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

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


def counted(durations: Iterable[float]) -> list[int]:
    """How many of `durations` (seconds) belong to each of `COLUMNS`, in that order."""
    ordered = sorted(durations)
    # A search for each of a dozen bounds, instead of one for each of a hundred calls.
    up_to = [bisect_right(ordered, bound) for bound in UPPER_BOUNDS]
    up_to.append(len(ordered))
    return [up_to[0], *(more - less for less, more in pairwise(up_to))]


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
