"""What the dashboard shows of a period: `reports`, chosen and put into words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_safecache import reports
from django_safecache.conf import get_settings
from django_safecache.digest.wording import (
    Figure,
    clean,
    count,
    figures,
    hit_ratio,
    sparkline,
)
from django_safecache.models import DigestMail, Resolution
from django_safecache.reports import BUCKET, Period, SeriesPoint, ServerTotals, Totals

MAILS_SHOWN = 7


@dataclass(frozen=True, slots=True)
class PeriodChoice:
    """A period that can be chosen, and how finely it is divided.

    It begins with a `whole` bucket, and so do its steps: rows of hours and days answer
    for it then, and not thousands of five minutes.
    """

    value: str
    label: Promise
    hours: int
    step: timedelta
    whole: Resolution


PERIODS: Mapping[str, PeriodChoice] = {
    value: PeriodChoice(value, label, hours, step, whole)
    for value, label, hours, step, whole in (
        ("1h", gettext_lazy("1 hour"), 1, BUCKET, Resolution.FIVE_MINUTES),
        ("24h", gettext_lazy("24 hours"), 24, timedelta(hours=1), Resolution.HOUR),
        ("7d", gettext_lazy("7 days"), 7 * 24, timedelta(hours=6), Resolution.HOUR),
        ("90d", gettext_lazy("90 days"), 90 * 24, timedelta(days=3), Resolution.DAY),
    )
}
DEFAULT_PERIOD = PERIODS["24h"]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for. None for an alias or server means all of them.

    `aliases` and `servers` are what can be asked for, `counted` is what there is of
    all of them. `notes` say what of the question was not understood, and left out.
    """

    choice: PeriodChoice
    period: Period
    alias: str | None
    server: str | None
    aliases: tuple[str, ...]
    servers: tuple[str, ...]
    counted: tuple[ServerTotals, ...]
    notes: tuple[str, ...]


def select(question: Mapping[str, str]) -> Selection:
    """Read the parameters of a request; whatever they are, there is a selection."""
    notes = []
    choice = PERIODS.get(question.get("period") or DEFAULT_PERIOD.value)
    if choice is None:
        notes.append(
            _("There is no period “%s”. Shown are the last 24 hours.")
            % clean(question["period"], 40)
        )
        choice = DEFAULT_PERIOD
    period = reports.answerable(Period.last(hours=choice.hours, whole=choice.whole))
    counted = reports.by_server(period)
    known = {
        "alias": sorted({*settings.CACHES, *(entry.alias for entry in counted)}),
        "server": sorted({entry.server for entry in counted if entry.server}),
    }
    chosen: dict[str, str | None] = {}
    for name, values in known.items():
        asked = question.get(name) or None
        chosen[name] = asked if asked in values else None
        if asked and asked not in values:
            notes.append(
                _("Nothing is known of “%s” in this period. Shown is all there is.")
                % clean(asked, 100)
            )
    return Selection(
        choice=choice,
        period=period,
        alias=chosen["alias"],
        server=chosen["server"],
        aliases=tuple(known["alias"]),
        servers=tuple(known["server"]),
        counted=tuple(sorted(counted, key=_loaders_last)),
        notes=tuple(notes),
    )


def context(selection: Selection) -> dict[str, object]:
    """Everything the dashboard's template prints, but for the links."""
    alias, server = selection.alias, selection.server
    totals = reports.totals(selection.period, alias=alias, server=server)
    points = reports.series(
        selection.period, step=selection.choice.step, alias=alias, server=server
    )
    return {
        "selection": selection,
        "periods": PERIODS.values(),
        "totals": totals,
        "figures": figures(totals),
        "servers": [
            _server(entry)
            for entry in selection.counted
            if alias in (None, entry.alias) and server in (None, entry.server)
        ],
        "steps": [_step(point) for point in reversed(points)],
        "lines": _lines(points),
        "problems": [
            {"row": row, "count": count(row.count), "status": row.status.label}
            for row in reports.problems(selection.period)
        ],
        "writers": reports.writers(),
        "mails": _mails(),
    }


def _loaders_last(entry: ServerTotals) -> tuple[str, bool, str]:
    return entry.alias, not entry.server, entry.server


def _server(entry: ServerTotals) -> dict[str, object]:
    return {"alias": entry.alias, "server": entry.server, **_row(entry.totals)}


def _step(point: SeriesPoint) -> dict[str, object]:
    row = {} if point.totals is None else _row(point.totals)
    return {"start": point.start, "known": point.totals is not None, **row}


def _row(totals: Totals) -> dict[str, object]:
    return {
        "hits": count(totals.hits),
        "misses": count(totals.misses),
        "hit_ratio": hit_ratio(totals),
        "unavailable": count(totals.unavailable),
        "loaded": count(totals.loaded),
        "failures": count(totals.errors),
        "kinds": [
            (kind, count(number)) for kind, number in totals.failures.items() if number
        ],
    }


def _lines(points: Iterable[SeriesPoint]) -> list[Figure]:
    known = [point.totals for point in points]
    numbers = {
        _("Hits"): [None if totals is None else totals.hits for totals in known],
        _("Unavailable"): [
            None if totals is None else totals.unavailable for totals in known
        ],
        _("Failures"): [None if totals is None else totals.errors for totals in known],
    }
    return [Figure(label, sparkline(values)) for label, values in numbers.items()]


def _mails() -> list[DigestMail]:
    mails = DigestMail.objects.using(get_settings().database)
    return list(mails.defer("text", "html").order_by("-day")[:MAILS_SHOWN])
