"""What a run for exactness measured, what has to hold of it, and both in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.recording.cells import COUNTS
from django_safecache.recording.recorder import CONSEQUENCES

COLUMNS = (*COUNTS, *FAILURE_KINDS)
PROBLEMS = "problems"
OF_KEYS = ("hits", "misses", "unavailable", "stores", "loaded")
KEYS = 16
FIRST_TASK = 1_000_000
"""Requests of the web server have smaller numbers than the tasks of the pool."""
CLOCKS = 0.05
"""Seconds by which what was told before a flush may yet be missing in it: the moment of
a flush is taken when its totals have been added up."""
LATE = 5.0
"""Seconds that a busy machine may be late with a flush."""

Given = Mapping[str, Mapping[str, int]]
"""What a request was given: by key group, how many hits, misses, ..."""


@dataclass(frozen=True)
class Told:
    """A line of the witness; `moment` is the system's time, after it was counted."""

    pid: int
    moment: float
    figures: Mapping[str, int]


@dataclass(frozen=True)
class Reporter:
    """What the tables say of a process, and when it was stored last."""

    pid: int
    last_flush: float
    flush_errors: int
    ended: bool
    columns: Counter[str]
    of_keys: Counter[str]
    """By key group and column, as ``k/00 hits``."""


@dataclass(frozen=True)
class Measured:
    given: Mapping[int, Given]
    """By number of a request, what the client was told that it was given."""
    unanswered: Sequence[int]
    """Requests whose client was told nothing; the site may have done them."""
    asked: Mapping[int, tuple[int, Given]]
    """The site's own journal: by number, the process that did it, and the same."""
    told: Sequence[Told]
    reporters: Sequence[Reporter]
    not_rolled_back: int
    killed: tuple[int, float] | None
    """Process and moment."""
    left: int
    """Files of processes that could not store, and nobody after them until the end."""
    in_flight: int
    """Calls of a process that may be under way at once."""
    interval: float
    exit_codes: Mapping[str, int]
    complaints: Sequence[str]

    def survives(self, pid: int) -> bool:
        return self.killed is None or pid != self.killed[0]


@dataclass(frozen=True)
class Row:
    name: str
    expected: int
    stored: int

    @property
    def difference(self) -> int:
        return self.stored - self.expected


@dataclass(frozen=True)
class Verdict:
    name: str
    held: bool
    detail: str


def judged(run: Measured) -> list[Verdict]:
    verdicts = [
        _equal("every column has what was observed", by_column(run)),
        _equal("every key has what callers were given", by_key(run)),
        Verdict(
            "every request that failed was undone",
            run.not_rolled_back == 0,
            f"{run.not_rolled_back} rows of theirs are left",
        ),
        Verdict(
            "every process but a killed one said that it ended",
            all(each.ended for each in run.reporters if run.survives(each.pid)),
            f"{sum(each.ended for each in run.reporters)} of {len(run.reporters)}",
        ),
        Verdict(
            "everything ended in order, and said nothing",
            not run.complaints and not any(run.exit_codes.values()),
            "; ".join((f"{dict(run.exit_codes)}", *run.complaints[:5])),
        ),
    ]
    return verdicts + ([_lost(run)] if run.killed else [])


def by_column(run: Measured) -> list[Row]:
    """What an observer was told, against the tables; without a killed process."""
    expected = figures(line for line in run.told if run.survives(line.pid))
    stored = _sum(each.columns for each in run.reporters if run.survives(each.pid))
    return [
        Row(name, expected[name], stored[name])
        for name in (*COLUMNS, PROBLEMS)
        if expected[name] or stored[name]
    ]


def by_key(run: Measured) -> list[Row]:
    """What callers were given of each key, against the rows of its group."""
    expected = Counter({f"{group} {name}": 0 for group, name in _comparable()})
    for given in _given(run):
        for group, its in given.items():
            expected.update({f"{group} {name}": n for name, n in its.items()})
    stored = _sum(each.of_keys for each in run.reporters if run.survives(each.pid))
    return [Row(name, n, stored[name]) for name, n in sorted(expected.items())]


def figures(lines: Iterable[Told]) -> Counter[str]:
    """The columns that these lines come to."""
    total = _sum(line.figures for line in lines)
    causes = [kind for kind in FAILURE_KINDS if kind not in CONSEQUENCES]
    total[PROBLEMS] = sum(total[kind] for kind in causes)
    return total


def lines(
    run: Measured, verdicts: Sequence[Verdict], *, all_keys: bool = False
) -> Iterator[str]:
    tasks = sum(number >= FIRST_TASK for number in run.asked)
    errors = sum(each.flush_errors for each in run.reporters)
    yield (
        f"{len(run.given)} requests answered, {len(run.unanswered)} not; "
        f"{tasks} tasks; {len(run.reporters)} processes stored; "
        f"{errors} flushes failed; {run.left} files were left for the next process"
    )
    yield ""
    yield from _table("observed", by_column(run))
    yield ""
    keys = by_key(run)
    yield from _table("given to callers", keys if all_keys else _summed(keys))
    yield ""
    for verdict in verdicts:
        held = "held" if verdict.held else "BROKEN"
        yield f"{held:<8}{verdict.name}: {verdict.detail}"


def as_json(run: Measured, verdicts: Sequence[Verdict]) -> dict[str, object]:
    return {
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "columns": [asdict(row) for row in by_column(run)],
        "keys": [asdict(row) for row in by_key(run)],
    }


def _given(run: Measured) -> Iterator[Given]:
    """What clients and tasks were given, but for those of a killed process."""
    for number, (pid, given) in run.asked.items():
        # Only the tasks of the pool, and requests whose answer got lost, are taken
        # from the site's own journal.
        if run.survives(pid) and (number >= FIRST_TASK or number not in run.given):
            yield given
    for number, given in run.given.items():
        if run.survives(run.asked[number][0]):
            yield given


def _lost(run: Measured) -> Verdict:
    """Of the process that was killed: all that was counted before its last flush is
    stored, and that was not long ago."""
    pid, moment = run.killed
    its = [line for line in run.told if line.pid == pid]
    (reporter,) = [each for each in run.reporters if each.pid == pid]
    stored, all_told = reporter.columns, figures(its)
    safe = figures(line for line in its if line.moment < reporter.last_flush - CLOCKS)
    missing = dict(safe - stored)
    ago = moment - reporter.last_flush
    # What was counted, and not yet told when the process ended.
    surplus = stored["calls"] - all_told["calls"]
    calls = all_told["calls"] - stored["calls"]
    return Verdict(
        "a killed process loses at most one interval",
        not missing and surplus <= run.in_flight and ago < run.interval * 1.25 + LATE,
        f"{calls} of its {all_told['calls']} calls, and its last flush was {ago:.2f} s "
        f"before, every {run.interval} s; of what was before that flush "
        f"{missing or 'nothing'} is missing",
    )


def _equal(name: str, rows: Sequence[Row]) -> Verdict:
    wrong = [row for row in rows if row.difference]
    detail = ", ".join(f"{row.name} {row.difference:+}" for row in wrong[:10])
    enough = any(row.expected for row in rows)
    return Verdict(name, enough and not wrong, detail or f"{len(rows)} sums are equal")


def _summed(rows: Iterable[Row]) -> list[Row]:
    """Over all keys."""
    expected, stored = Counter(), Counter()
    for row in rows:
        _, name = row.name.split()
        expected[name] += row.expected
        stored[name] += row.stored
    return [Row(name, expected[name], stored[name]) for name in OF_KEYS]


def _table(title: str, rows: Iterable[Row]) -> Iterator[str]:
    yield f"{title:<22}{'expected':>12}{'stored':>12}{'difference':>12}"
    for row in rows:
        yield f"{row.name:<22}{row.expected:>12}{row.stored:>12}{row.difference:>12}"


def _comparable() -> Iterator[tuple[str, str]]:
    # Of the keys of a load a caller is told the values, not where they were from.
    yield "load", "loaded"
    for number in range(KEYS):
        for name in OF_KEYS:
            yield f"k/{number:02}", name


def _sum(those: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in those:
        total.update(each)
    return total
