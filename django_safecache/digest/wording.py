"""How counts are put into words, the same in the mail, the admin and the commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.reports import Totals

NO_DATA = "no data"

_BLOCKS = "▁▂▃▄▅▆▇█"
_GAP = "·"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of a period and of the period before it, ready to be printed."""

    label: str
    value: str
    before: str = ""
    change: str = ""
    detail: bool = False
    """Is a part of the figure above it."""


def figures(totals: Totals | None, before: Totals | None = None) -> list[Figure]:
    """The header numbers; kinds of failure that occurred in neither are left out."""
    return [
        _figure("Hits", attrgetter("hits"), totals, before),
        _figure("Misses", attrgetter("misses"), totals, before),
        Figure("Hit ratio", hit_ratio(totals), hit_ratio(before)),
        _figure("Unavailable", attrgetter("unavailable"), totals, before),
        _figure("Loaded from the database", attrgetter("loaded"), totals, before),
        _figure("Failures", attrgetter("errors"), totals, before),
        *_failures_by_kind(totals, before),
    ]


def count(value: int | None) -> str:
    """With thousands separated; None is not zero."""
    return NO_DATA if value is None else f"{value:,}"


def hit_ratio(totals: Totals | None) -> str:
    """Percent, rounded down: a single miss keeps it from being 100."""
    if totals is None:
        return NO_DATA
    if not totals.hits + totals.misses:
        return "no reads answered"
    permille = totals.hits * 1000 // (totals.hits + totals.misses)
    return f"{permille // 10}.{permille % 10} %"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def sparkline(values: Sequence[int | None]) -> str:
    """One character for each value; whatever is above zero can be seen to be.

    None, a time that nothing is known of, is a dot and not a low block.
    """
    top = max((value for value in values if value), default=1)
    steps = len(_BLOCKS) - 1
    return "".join(
        _GAP if value is None else _BLOCKS[-(-value * steps // top)] for value in values
    )


def clean(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, all of them printable.

    Servers and exceptions say what they like. Ends of lines, escape sequences for
    terminals and characters that turn the direction of the text around all go.
    """
    line = " ".join(text.split())
    shown = "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line
    )
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def _failures_by_kind(totals: Totals | None, before: Totals | None) -> list[Figure]:
    return [
        replace(_figure(kind, _failures_of(kind), totals, before), detail=True)
        for kind in FAILURE_KINDS
        if any(side and side.failures[kind] for side in (totals, before))
    ]


def _failures_of(kind: str) -> Callable[[Totals], int]:
    return lambda totals: totals.failures[kind]


def _figure(
    label: str,
    number: Callable[[Totals], int],
    totals: Totals | None,
    before: Totals | None,
) -> Figure:
    now = None if totals is None else number(totals)
    then = None if before is None else number(before)
    return Figure(label, count(now), count(then), _change(now, then))


def _change(now: int | None, then: int | None) -> str:
    if now is None or not then:
        return ""
    if now == then:
        return "same"
    return f"{round((now - then) * 100 / then):+,} %"
