"""Problems: how often they occurred, where, on how many accounts, and what that means.

A problem that is older than the period is escalating if it occurred more than
`ESCALATING_FACTOR` times as often as usual, which is the mean of up to 14 days before:
two weeks, so that a weekend is in them as often as it is in the year. Three times,
because the counts of one and the same fault vary twofold from day to day with the
traffic. And at least `ESCALATING_COUNT` times, because three instead of one is chance.
Where fewer than `ENOUGH_DAYS` of those days are known, it is not said of any.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from django.db.models import Count, QuerySet, Sum, Window
from django.db.models.functions import DenseRank

from django_safecache.conf import get_settings
from django_safecache.models import (
    Facet,
    Problem,
    ProblemCount,
    ProblemFacet,
    ProblemState,
)
from django_safecache.recording.browser_errors import KIND as BROWSER
from django_safecache.reports.crowds import first
from django_safecache.reports.days_before import DAY, Counts, DaysBefore
from django_safecache.reports.facts import (
    Period,
    ProblemCountRow,
    ProblemStatus,
    WorstProblems,
)
from django_safecache.reports.rows import rows_of_writers, rows_rolled_up, to_read

BATCH_SIZE = 500
CALL_SITES_SHOWN = 10
ENOUGH_DAYS = 3
ESCALATING_COUNT = 10
ESCALATING_FACTOR = 3


def problems(period: Period, *, limit: int = 50) -> list[ProblemCountRow]:
    """The problems that occurred in the period, most occurrences first.

    Errors of browsers have their share of them, see `crowds`.
    """
    period = to_read(period)
    counted = _counted(period)
    browsers = _browsers(period) if len(counted) > limit else frozenset()
    ordered = sorted(counted, key=lambda pk: (-counted[pk], pk))
    most = first(ordered, limit, browsers.__contains__)
    return _rows(period, {pk: counted[pk] for pk in most}, DaysBefore.of(period.start))


def worst_problems(period: Period, *, limit: int = 50) -> WorstProblems:
    """All that occurred in the period, counted; those to be told first, in full.

    They are in the order of `ProblemStatus`, most occurrences first, without those
    that were muted; errors of browsers have their share of them, see `crowds`. Of all
    others no more is held than a few numbers.
    """
    period = to_read(period)
    counted = _counted(period)
    days = DaysBefore.of(period.start)
    numbers: Counter[str] = Counter()
    occurrences: Counter[str] = Counter()
    found: list[tuple[int, int, int]] = []
    browsers: set[int] = set()
    order = {status: place for place, status in enumerate(ProblemStatus)}
    ids = list(counted)
    for start in range(0, len(ids), BATCH_SIZE):
        batch = {pk: counted[pk] for pk in ids[start : start + BATCH_SIZE]}
        for problem, status in _statuses(period, batch, days):
            numbers[status] += 1
            if status != ProblemStatus.MUTED:
                occurrences[problem.kind] += batch[problem.pk]
                found.append((order[status], -batch[problem.pk], problem.pk))
                if problem.kind == BROWSER:
                    browsers.add(problem.pk)
    told = first([pk for _, _, pk in sorted(found)], limit, browsers.__contains__)
    rows = _rows(period, {pk: counted[pk] for pk in told}, days)
    return WorstProblems(tuple(rows), numbers, occurrences)


def _browsers(period: Period) -> frozenset[int]:
    """The problems of browsers that may have occurred in the period."""
    found = Problem.objects.using(get_settings().database).filter(
        kind=BROWSER, last_seen__gte=period.start
    )
    return frozenset(found.values_list("pk", flat=True))


def _counted(period: Period) -> dict[int, int]:
    """Problem id to occurrences in a period to read."""
    counts = _counts(period).order_by().values_list("problem")
    return dict(counts.annotate(total=Sum("count")))


def _counts(period: Period) -> QuerySet[ProblemCount]:
    return ProblemCount.objects.using(get_settings().database).filter(
        rows_of_writers(period) | rows_rolled_up(period)
    )


def _statuses(
    period: Period, counted: Mapping[int, int], days: DaysBefore
) -> Iterator[tuple[Problem, ProblemStatus]]:
    found = Problem.objects.using(get_settings().database).in_bulk(list(counted))
    history = days.counts({pk: problem.first_seen for pk, problem in found.items()})
    escalates = sum(days.known) >= ENOUGH_DAYS
    for pk, problem in found.items():
        usual = _usual(history[pk], period.length)
        yield (
            problem,
            _status(problem, counted[pk], usual, period, escalates=escalates),
        )


def _rows(
    period: Period, counted: Mapping[int, int], days: DaysBefore
) -> list[ProblemCountRow]:
    found = Problem.objects.using(get_settings().database).in_bulk(list(counted))
    servers: defaultdict[int, set[str]] = defaultdict(set)
    places = _counts(period).filter(problem__in=list(counted))
    named = places.values_list("problem", "server", "place_hash").distinct().order_by()
    for problem_id, server, _ in named:
        if server:
            servers[problem_id].add(server)
    accounts = _accounts(period, counted)
    call_sites = _call_sites(period, counted)
    history = days.counts({pk: problem.first_seen for pk, problem in found.items()})
    return [
        _problem_row(
            found[problem_id],
            count,
            accounts.get(problem_id, 0),
            tuple(call_sites[problem_id]),
            tuple(sorted(servers[problem_id])),
            history[problem_id],
            period,
            escalates=sum(days.known) >= ENOUGH_DAYS,
        )
        for problem_id, count in counted.items()
        if problem_id in found
    ]


def _facets(
    period: Period, problem_ids: Iterable[int], facet: Facet
) -> QuerySet[ProblemFacet]:
    """Of the local days that the period touches."""
    conf = get_settings()
    zone = conf.digest.zone
    return ProblemFacet.objects.using(conf.database).filter(
        problem__in=list(problem_ids),
        facet=facet,
        day__gte=period.start.astimezone(zone).date(),
        day__lte=(period.end - timedelta.resolution).astimezone(zone).date(),
    )


def _accounts(period: Period, problem_ids: Iterable[int]) -> dict[int, int]:
    """Problem id to how many; counted by the database, for there may be very many."""
    rows = _facets(period, problem_ids, Facet.ACCOUNT).order_by()
    return dict(
        rows.values_list("problem").annotate(Count("value_hash", distinct=True))
    )


def _call_sites(
    period: Period, problem_ids: Iterable[int]
) -> defaultdict[int, list[str]]:
    """Problem id to the first `CALL_SITES_SHOWN` of its call sites."""
    place = Window(DenseRank(), partition_by="problem", order_by="value")
    rows = _facets(period, problem_ids, Facet.CALL_SITE).annotate(place=place)
    first = rows.filter(place__lte=CALL_SITES_SHOWN).values_list("problem", "value")
    sites: defaultdict[int, list[str]] = defaultdict(list)
    # Once for each day until here.
    for problem_id, site in sorted(set(first)):
        sites[problem_id].append(site)
    return sites


def _usual(history: Counts, length: timedelta) -> float | None:
    known = [count for count in history if count is not None]
    return sum(known) / len(known) * (length / DAY) if known else None


def _was_muted(problem: Problem, period: Period) -> bool:
    """Whether it was all the time, whatever has become of it since."""
    if problem.muted_at and problem.muted_at > period.start:
        return False
    if problem.state == ProblemState.MUTED:
        return True
    return problem.muted_until is not None and problem.muted_until >= period.end


def _status(
    problem: Problem,
    count: int,
    usual: float | None,
    period: Period,
    *,
    escalates: bool,
) -> ProblemStatus:
    if _was_muted(problem, period):
        return ProblemStatus.MUTED
    if problem.first_seen >= period.start:
        return ProblemStatus.NEW
    regressed_at = problem.regressed_at
    if regressed_at and period.start <= regressed_at < period.end:
        return ProblemStatus.REGRESSED
    if usual is None or not escalates:
        return ProblemStatus.ONGOING
    if count >= ESCALATING_COUNT and count > ESCALATING_FACTOR * usual:
        return ProblemStatus.ESCALATING
    return ProblemStatus.ONGOING


def _problem_row(
    problem: Problem,
    count: int,
    accounts: int,
    call_sites: tuple[str, ...],
    servers: tuple[str, ...],
    history: Counts,
    period: Period,
    *,
    escalates: bool,
) -> ProblemCountRow:
    usual = _usual(history, period.length)
    return ProblemCountRow(
        problem_id=problem.pk,
        fingerprint=problem.fingerprint,
        kind=problem.kind,
        exception=problem.exception,
        errno=problem.errno,
        message=problem.message,
        state=problem.state,
        first_seen=problem.first_seen,
        last_seen=problem.last_seen,
        count=count,
        accounts=accounts,
        servers=servers,
        call_sites=call_sites,
        history=history,
        usual=usual,
        status=_status(problem, count, usual, period, escalates=escalates),
    )
