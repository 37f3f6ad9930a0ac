"""Contenders that do the same work in turns, and what the issue says of the ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


def _nothing(*_: object) -> None:
    pass


Clock = Callable[[], float]


@dataclass(frozen=True)
class Contender:
    """One way to do a piece of work.

    `call` is timed; `prepare` before it and `check` of its result after it are not.
    `check` raises for a wrong answer. A call that does the work `times` over is
    reported for once.
    """

    name: str
    call: Callable[[], Any]
    check: Callable[[Any], None] = _nothing
    prepare: Callable[[], None] = _nothing
    times: int = 1

    def seconds(self, clock: Clock) -> float:
        """Do the work; the seconds of doing it once, by `clock`."""
        self.prepare()
        started = clock()
        result = self.call()
        taken = clock() - started
        self.check(result)
        return taken / self.times


Times = Mapping[str, Sequence[float]]


def in_turns(
    contenders: Sequence[Contender], rounds: int, clock: Clock = time.perf_counter
) -> Times:
    """Seconds of each contender in each round, by name.

    All take their turn in every round, so that what else the machine does meets them
    alike; the order is reversed from round to round. One more round comes first and
    is not counted.
    """
    times: dict[str, list[float]] = {each.name: [] for each in contenders}
    for turn in range(rounds + 1):
        for each in contenders if turn % 2 else reversed(contenders):
            seconds = each.seconds(clock)
            if turn:
                times[each.name].append(seconds)
    return times


def medians(times: Times) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in times.items()}


Verdict = Literal["goal met", "met", "NOT MET", "goal missed", "no limit"]


@dataclass(frozen=True)
class Comparison:
    """SafeCache beside one other. `measured`, in `unit`, is what the limits are for."""

    beside: str
    ratio: float
    measured: float
    unit: str
    must: float | None
    goal: float | None
    at_least: bool

    @property
    def verdict(self) -> Verdict:
        if self._within(self.goal):
            return "goal met"
        if self.must is not None:
            return "met" if self._within(self.must) else "NOT MET"
        return "no limit" if self.goal is None else "goal missed"

    def _within(self, limit: float | None) -> bool:
        if limit is None:
            return False
        return self.measured >= limit if self.at_least else self.measured <= limit


def faster(
    figures: Mapping[str, float],
    other: str,
    must: float | None = None,
    goal: float | None = None,
) -> Comparison:
    """How many times faster SafeCache is than `other`: at least `must`."""
    ratio = figures[other] / figures["SafeCache"]
    return Comparison(other, ratio, ratio, "x faster", must, goal, at_least=True)


def at_most(
    other: str,
    ratio: float,
    must: float | None = None,
    goal: float | None = None,
    *,
    measured: float | None = None,
    unit: str = "x",
) -> Comparison:
    """SafeCache's figure over that of `other`; the ratio is judged, or `measured`."""
    measured = ratio if measured is None else measured
    return Comparison(other, ratio, measured, unit, must, goal, at_least=False)


@dataclass(frozen=True)
class Row:
    """One piece of work: the figures of all who did it, and what they say."""

    name: str
    figures: Mapping[str, float]
    comparisons: Sequence[Comparison]
    note: str = ""
    """What differs between the contenders, or how it was measured."""
    unit: Literal["seconds", "bytes"] = "seconds"
    rounds: int = 1
    more: Mapping[str, Any] = field(default_factory=dict)
    """Other figures, for the JSON only."""

    def as_json(self) -> dict[str, Any]:
        verdicts = [{**asdict(c), "verdict": c.verdict} for c in self.comparisons]
        return {**asdict(self), "comparisons": verdicts}
