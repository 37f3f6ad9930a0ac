"""What the tables say of one closed local day. Only reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from django_safecache import reports
from django_safecache.conf import get_settings
from django_safecache.digest.wording import clean
from django_safecache.reports import (
    Period,
    ProblemCountRow,
    ProblemStatus,
    SeriesPoint,
    ServerTotals,
    Totals,
)

PROBLEMS_TOLD = 50
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Digest:
    """One local day. Texts in it are printable, on one line and short.

    `totals` is None when no process reported on the day, which is not "no errors".
    `hours` is empty for a day so long ago that only whole days are known.
    `before` is the local day before, None where the rows left are of longer times and
    do not tell it alone; `loaders` is what was asked of loaders.
    `servers` has those with most failures first. `new` to `ongoing` have at most
    `PROBLEMS_TOLD` problems together; `numbers` counts all by `ProblemStatus`, and
    `occurrences` by kind theirs but of muted ones. `reported_before` is whether any
    process ever did.
    """

    day: date
    zone: ZoneInfo
    environment: str
    period: Period
    totals: Totals | None
    before: Totals | None
    loaders: Totals | None
    servers: tuple[ServerTotals, ...]
    hours: tuple[SeriesPoint, ...]
    new: tuple[ProblemCountRow, ...]
    regressed: tuple[ProblemCountRow, ...]
    escalating: tuple[ProblemCountRow, ...]
    ongoing: tuple[ProblemCountRow, ...]
    numbers: Mapping[str, int]
    occurrences: Mapping[str, int]
    reported_before: bool

    @property
    def is_empty(self) -> bool:
        """Nothing was counted, and no problem occurred.

        Silence is no such day where processes have reported before: it is told, for
        it may be the telemetry that is broken.
        """
        if self.totals is None and self.reported_before:
            return False
        counted = self.totals and (
            self.totals.calls or self.totals.loaded or self.totals.errors
        )
        return not (counted or any(self.numbers.values()))

    @property
    def problems(self) -> int:
        """How many there are that are not muted."""
        return sum(self.numbers.values()) - self.muted

    @property
    def muted(self) -> int:
        return self.numbers.get(ProblemStatus.MUTED, 0)

    @property
    def exceptions(self) -> int:
        """Occurrences of the site's own exceptions."""
        return self.occurrences.get("application", 0)

    @property
    def browser_errors(self) -> int:
        """Occurrences of errors that browsers reported."""
        return self.occurrences.get("browser", 0)


def compose(day: date) -> Digest:
    """What the tables say of the local `day`, in the time zone of the digest."""
    conf = get_settings().digest
    # The whole hours or days around a day of long ago: the mail states what it is of.
    period = reports.answerable(Period.for_day(day, conf.zone))
    before = Period.for_day(day - timedelta(days=1), conf.zone)
    hours = reports.series(period, step=HOUR)
    worst = reports.worst_problems(period, limit=PROBLEMS_TOLD)
    problems = _by_status(worst.told)
    return Digest(
        day=day,
        zone=conf.zone,
        environment=clean(conf.environment, 40),
        period=period,
        totals=reports.totals(period),
        before=reports.totals(before) if reports.answerable(before) == before else None,
        loaders=reports.totals(period, server=""),
        servers=_servers(period),
        hours=tuple(hours) if all(_is_an_hour(point) for point in hours) else (),
        new=tuple(problems[ProblemStatus.NEW]),
        regressed=tuple(problems[ProblemStatus.REGRESSED]),
        escalating=tuple(problems[ProblemStatus.ESCALATING]),
        ongoing=tuple(problems[ProblemStatus.ONGOING]),
        numbers=worst.numbers,
        occurrences=worst.occurrences,
        reported_before=reports.reported_before(period.end),
    )


def _is_an_hour(point: SeriesPoint) -> bool:
    return point.end - point.start <= HOUR


def _by_status(
    rows: Iterable[ProblemCountRow],
) -> defaultdict[ProblemStatus, list[ProblemCountRow]]:
    """What occurred, by how it is told."""
    told: defaultdict[ProblemStatus, list[ProblemCountRow]] = defaultdict(list)
    for row in rows:
        told[row.status].append(_printable(row))
    return told


def _printable(row: ProblemCountRow) -> ProblemCountRow:
    return replace(
        row,
        exception=clean(row.exception, 120),
        message=clean(row.message, 200),
        servers=tuple(clean(server, 100) for server in row.servers),
        call_sites=tuple(clean(site, 120) for site in row.call_sites),
    )


def _servers(period: Period) -> tuple[ServerTotals, ...]:
    servers = [
        replace(entry, alias=clean(entry.alias, 64), server=clean(entry.server, 100))
        for entry in reports.by_server(period)
        if entry.server
    ]
    return tuple(sorted(servers, key=lambda entry: -entry.totals.errors))
