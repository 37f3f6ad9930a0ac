"""What was counted: read back from the tables, and as the mail of the day."""

from __future__ import annotations

from email import message_from_bytes, policy
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.utils import timezone
from terminal import Terminal

from django_safecache import reports
from django_safecache.conf import get_settings
from django_safecache.digest.delivery import close
from django_safecache.reports import Period, Totals


def show_counts(terminal: Terminal, *, hits: int, loaded: int) -> None:
    """The stored counts, which are to be the ones that the demo saw."""
    terminal.section("(d) What was counted, from the database")
    stored = apps.get_app_config("django_safecache").ingest.flush()
    period = Period.last(hours=1)
    totals = reports.totals(period) or Totals()
    for entry in reports.by_server(period):
        terminal.fact(entry.server or f"{entry.alias}, loaders", told(entry.totals))
    terminal.fact("all", told(totals))
    kinds = ", ".join(f"{count} {kind}" for kind, count in failures(totals).items())
    terminal.promise(
        f"{hits:,} hits and {loaded:,} loaded: as many as seen above",
        kept=stored and (totals.hits, totals.loaded) == (hits, loaded),
    )
    terminal.promise(
        f"The stopped cache is in it: {totals.unavailable:,} keys unavailable, {kinds}",
        kept=totals.unavailable > 0 and bool(kinds),
    )


def show_mail(terminal: Terminal) -> None:
    """Send the digest of today so far, as every other day's is sent once it is over."""
    terminal.section("The digest mail of it, today's up to now")
    now = timezone.now()
    closed = close(now.astimezone(get_settings().digest.zone).date(), now)
    files = sorted(settings.MAIL_DIR.glob("*.log"))
    terminal.promise(
        f"One mail was sent to {', '.join(closed.sent) if closed else 'nobody'}",
        kept=closed is not None and len(closed.sent) == 1 and len(files) == 1,
    )
    for file in files:
        show_file(terminal, file)


def show_file(terminal: Terminal, file: Path) -> None:
    mail = message_from_bytes(file.read_bytes(), policy=policy.default)
    text = mail.get_body(("plain",)).get_content()
    totals = reports.totals(Period.last(hours=1)) or Totals()
    terminal.promise(
        f"It says {totals.unavailable:,} unavailable and {totals.loaded:,} loaded",
        kept=f"{totals.unavailable:,}" in text and f"{totals.loaded:,}" in text,
    )
    terminal.fact("file", file.relative_to(settings.VAR_DIR))
    terminal.quote(f"Subject: {mail['Subject']}\n\n{text}")


def failures(totals: Totals) -> dict[str, int]:
    """The kinds of failure that happened."""
    return {kind: count for kind, count in totals.failures.items() if count}


def told(totals: Totals) -> str:
    figures = {
        "hits": totals.hits,
        "misses": totals.misses,
        "unavailable": totals.unavailable,
        "loaded": totals.loaded,
        "lines": totals.lines,
        **failures(totals),
    }
    return ", ".join(f"{count:,} {name}" for name, count in figures.items() if count)
