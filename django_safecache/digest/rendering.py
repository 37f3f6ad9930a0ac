"""A composed day as a mail: its subject, its text and its HTML.

The wording is English whatever language is active, so that all hosts write the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from zoneinfo import ZoneInfo

from django.template.loader import render_to_string
from django.utils import dateformat, translation

from django_safecache.digest.contents import HOUR, PROBLEMS_TOLD, Digest
from django_safecache.digest.wording import (
    count,
    figures,
    hit_ratio,
    plural,
    sparkline,
)
from django_safecache.models import ProblemState
from django_safecache.reports import ProblemCountRow, ServerTotals, told_of

# Gmail clips what is longer than about 102 kB.
SIZE_LIMIT = 100_000
SERVERS_SHOWN = 30
PLACES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Rendered:
    """A mail's subject, on one line, and its two bodies of at most `SIZE_LIMIT`."""

    subject: str
    text: str
    html: str


def render(digest: Digest) -> Rendered:
    """Both bodies, with fewer problems told where they would become too large."""
    shown = PROBLEMS_TOLD
    while True:
        context = _context(digest, shown)
        with translation.override("en"):
            text = render_to_string("django_safecache/digest.txt", context)
            html = render_to_string("django_safecache/digest.html", context)
        if not shown or max(len(text.encode()), len(html.encode())) <= SIZE_LIMIT:
            return Rendered(subject(digest), text.strip() + "\n", html.strip() + "\n")
        shown //= 2


def subject(digest: Digest) -> str:
    """``[prod] safecache Tue 14 Jan: 3 new, 1 regressed, 1,204 errors on 2 servers``"""
    environment = f"[{digest.environment}] " if digest.environment else ""
    return f"{environment}safecache {_date(digest.day, 'D j M')}: {summary(digest)}"


def summary(digest: Digest) -> str:
    """The day in one line. Says so when nothing is known of the cache."""
    parts = []
    if digest.totals is None:
        parts.append("no telemetry")
    for status in ("new", "regressed", "escalating"):
        if number := digest.numbers.get(status, 0):
            parts.append(f"{number:,} {status}")
    if digest.totals and digest.totals.errors:
        failing = sum(bool(entry.totals.errors) for entry in digest.servers)
        on = f" on {plural(failing, 'server')}" if failing else ""
        parts.append(plural(digest.totals.errors, "error") + on)
    if digest.exceptions:
        parts.append(plural(digest.exceptions, "exception"))
    if digest.browser_errors:
        parts.append(plural(digest.browser_errors, "browser error"))
    return ", ".join(parts) or "no errors"


def _context(digest: Digest, shown: int) -> dict[str, object]:
    """What both templates print; `shown` is how many problems are told in full."""
    return {
        "subject": subject(digest),
        "title": f"Cache digest of {_date(digest.day, 'l j F Y')}",
        "environment": digest.environment,
        "period": _period(digest),
        "summary": summary(digest),
        "no_telemetry": digest.totals is None,
        "silent_hours": sum(point.totals is None for point in digest.hours),
        "hours": len(digest.hours),
        "figures": figures(digest.totals, digest.before),
        "lines": _lines(digest),
        "servers": [_server(entry) for entry in digest.servers[:SERVERS_SHOWN]],
        "more_servers": len(digest.servers[SERVERS_SHOWN:]),
        "sections": _sections(digest, shown),
        "more_problems": max(0, digest.problems - shown),
        "muted": plural(digest.muted, "muted problem") if digest.muted else "",
        "cost": _cost(digest),
    }


def _sections(digest: Digest, shown: int) -> list[dict[str, object]]:
    by_status = {
        "new": digest.new,
        "regressed": digest.regressed,
        "escalating": digest.escalating,
        "ongoing": digest.ongoing,
    }
    first = {row.problem_id for row in told_of(chain(*by_status.values()), shown)}
    sections: list[dict[str, object]] = []
    for status, rows in by_status.items():
        told = [_told(row, digest.zone) for row in rows if row.problem_id in first]
        if told:
            title = f"{status.capitalize()} ({digest.numbers[status]:,})"
            sections.append({"title": title, "problems": told})
    return sections


def _told(row: ProblemCountRow, zone: ZoneInfo) -> dict[str, object]:
    errno = f" (errno {row.errno})" if row.errno is not None else ""
    return {
        "name": " ".join(filter(None, [row.kind, row.exception])) + errno,
        "message": row.message,
        "resolved": row.state == ProblemState.RESOLVED,
        "count": count(row.count),
        "trend": _trend(row),
        "first_seen": _moment(row.first_seen, zone),
        "last_seen": _moment(row.last_seen, zone),
        "accounts": plural(row.accounts, "account") if row.accounts else "",
        "servers": _some(row.servers),
        "call_sites": _some(row.call_sites),
    }


def _trend(row: ProblemCountRow) -> str:
    """The days before and this one as blocks, and the mean of those before in words."""
    if row.usual is None:
        return ""
    return f"{sparkline([*row.history, row.count])} usually {row.usual:,.1f} a day"


def _some(places: tuple[str, ...]) -> str:
    more = [f"{len(places) - PLACES_SHOWN} more"] if places[PLACES_SHOWN:] else []
    return ", ".join([*places[:PLACES_SHOWN], *more])


def _server(entry: ServerTotals) -> dict[str, str]:
    return {
        "alias": entry.alias,
        "server": entry.server,
        "hits": count(entry.totals.hits),
        "misses": count(entry.totals.misses),
        "hit_ratio": hit_ratio(entry.totals),
        "unavailable": count(entry.totals.unavailable),
        "errors": count(entry.totals.errors),
        "kinds": ", ".join(
            f"{kind} {count(number)}"
            for kind, number in entry.totals.failures.items()
            if number
        ),
    }


def _lines(digest: Digest) -> list[dict[str, str]]:
    """A sparkline of the hours for each number that was not zero all day."""
    lines = [
        _line(digest, "Hits", "hits"),
        _line(digest, "Unavailable", "unavailable"),
        _line(digest, "Loaded", "loaded"),
        _line(digest, "Failures", "errors"),
    ]
    return [line for line in lines if line]


def _line(digest: Digest, label: str, name: str) -> dict[str, str] | None:
    values = [
        None if point.totals is None else int(getattr(point.totals, name))
        for point in digest.hours
    ]
    peak = max((value or 0 for value in values), default=0)
    if not peak:
        return None
    hour = digest.hours[values.index(peak)].start.astimezone(digest.zone)
    return {
        "label": label,
        "blocks": sparkline(values),
        "peak": f"most {count(peak)}, from {hour:%H:%M}",
    }


def _cost(digest: Digest) -> str:
    """What the failures cost, in a sentence or two; empty if nothing is known."""
    if digest.totals is None:
        return ""
    told = []
    if digest.totals.unavailable:
        told.append(
            f"{plural(digest.totals.unavailable, 'key')} unavailable:"
            " no server answered for them."
        )
    if digest.totals.loaded:
        told.append(
            f"{plural(digest.totals.loaded, 'value')} loaded from the database"
            f" instead{_loading(digest)}."
        )
    return " ".join(told) or "Nothing: the cache answered for every key."


def _loading(digest: Digest) -> str:
    if digest.loaders is None or not digest.loaders.calls:
        return ""
    calls = plural(digest.loaders.calls, "call")
    return f", in {calls} of loaders that took {digest.loaders.duration_sum:,.2f} s"


def _period(digest: Digest) -> str:
    start = _moment(digest.period.start, digest.zone)
    end = _moment(digest.period.end, digest.zone)
    hours = digest.period.length / HOUR
    return f"{start} to {end} {digest.zone.key}, {hours:g} hours"


def _moment(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def _date(day: date, form: str) -> str:
    # Not strftime, which speaks the language of the process's locale.
    with translation.override("en"):
        return dateformat.format(day, form)
