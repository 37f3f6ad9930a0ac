"""What the tables say of one closed local day. Only reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import chain
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

PROBLEMS_COUNTED = 200
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Digest:
    """One local day. Texts in it are printable, on one line and short.

    `totals` is None when no process reported on the day, which is not "no errors".
    `hours` is empty for a day so long ago that only whole days are known.
    `before` is the local day before; `loaders` is what was asked of loaders.
    `servers` has those with most failures first. `muted` counts the problems that
    occurred and are not told; `reported_before` is whether any process ever did.
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
    muted: int
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
        return not (counted or self.muted or any(self.problems))

    @property
    def problems(self) -> Iterable[ProblemCountRow]:
        return chain(self.new, self.regressed, self.escalating, self.ongoing)

    @property
    def exceptions(self) -> int:
        """Occurrences of the site's own exceptions."""
        return self._occurrences("application")

    @property
    def browser_errors(self) -> int:
        """Occurrences of errors that browsers reported."""
        return self._occurrences("browser")

    def _occurrences(self, kind: str) -> int:
        return sum(row.count for row in self.problems if row.kind == kind)


def compose(day: date) -> Digest:
    """What the tables say of the local `day`, in the time zone of the digest."""
    conf = get_settings().digest
    # The whole hours or days around a day of long ago: the mail states what it is of.
    period = reports.answerable(Period.for_day(day, conf.zone))
    hours = reports.series(period, step=HOUR)
    problems = _problems(period)
    return Digest(
        day=day,
        zone=conf.zone,
        environment=clean(conf.environment, 40),
        period=period,
        totals=reports.totals(period),
        before=reports.totals(Period.for_day(day - timedelta(days=1), conf.zone)),
        loaders=reports.totals(period, server=""),
        servers=_servers(period),
        hours=tuple(hours) if all(_is_an_hour(point) for point in hours) else (),
        new=tuple(problems[ProblemStatus.NEW]),
        regressed=tuple(problems[ProblemStatus.REGRESSED]),
        escalating=tuple(problems[ProblemStatus.ESCALATING]),
        ongoing=tuple(problems[ProblemStatus.ONGOING]),
        muted=len(problems[ProblemStatus.MUTED]),
        reported_before=reports.reported_before(period.end),
    )


def _is_an_hour(point: SeriesPoint) -> bool:
    return point.end - point.start <= HOUR


def _problems(
    period: Period,
) -> defaultdict[ProblemStatus, list[ProblemCountRow]]:
    """What occurred, by how it is told."""
    told: defaultdict[ProblemStatus, list[ProblemCountRow]] = defaultdict(list)
    for row in reports.problems(period, limit=PROBLEMS_COUNTED):
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
