"""Closes the days that are over: composes their mail and sends it, once."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from datetime import date, timedelta
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from django_safecache.conf import get_settings
from django_safecache.digest.contents import compose
from django_safecache.digest.delivery import (
    CATCH_UP_DAYS,
    Closed,
    close,
    due_days,
    is_due,
    resend,
    status_of,
)
from django_safecache.digest.rendering import render
from django_safecache.models import MailStatus
from django_safecache.reports import Period
from django_safecache.storage import now_at_most, roll_up, unmute_what_exceeds

# A run at midnight sharp waits for what other processes still have to store, so that
# the mail's numbers are those of the whole day; but never longer than this.
PATIENCE = timedelta(minutes=1)
# Yesterday, the days before it that may have been missed, and the one that is not over.
LOOK_BACK = timedelta(days=CATCH_UP_DAYS + 2)


class Command(BaseCommand):
    help = (
        "Mail the digest of yesterday, and of days that were missed. Safe to run on "
        "every host and at any time: each day is mailed once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--date", metavar="YYYY-MM-DD", help="This day instead of all that are due."
        )
        only = parser.add_mutually_exclusive_group()
        only.add_argument(
            "--preview",
            action="store_true",
            help="Print the mail as it would be now; store and send nothing.",
        )
        only.add_argument(
            "--dry-run",
            action="store_true",
            help="Say which days would be mailed to whom; store and send nothing.",
        )
        only.add_argument(
            "--resend",
            nargs="?",
            const="failed",
            choices=["failed", "all"],
            help="Send the stored mail again: to those who do not have it, or to all.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        asked = self._day(options["date"]) if options["date"] else None
        if options["preview"]:
            self._preview(asked or self._yesterday())
            return
        if not get_settings().digest.recipients:
            raise CommandError(
                'Nobody to mail: SAFECACHE["DIGEST"]["RECIPIENTS"] is empty.'
            )
        if options["dry_run"]:
            self._tell_plan(asked)
        elif options["resend"]:
            everyone = options["resend"] == "all"
            self._resend(asked or self._yesterday(), everyone=everyone)
        else:
            self._close(asked)

    def _day(self, given: str) -> date:
        try:
            day = date.fromisoformat(given)
            Period.for_day(day, get_settings().digest.zone)
        except (ValueError, OverflowError) as error:
            raise CommandError(
                f"--date {given!r} is not a day like 2026-01-14."
            ) from error
        if day > self._yesterday():
            zone = get_settings().digest.zone.key
            raise CommandError(f"{day} is not over yet in {zone}.")
        return day

    def _yesterday(self) -> date:
        today = timezone.now().astimezone(get_settings().digest.zone).date()
        return today - timedelta(days=1)

    def _preview(self, day: date) -> None:
        rendered = render(compose(day))
        self.stdout.write(f"Subject: {rendered.subject}\n\n{rendered.text}")

    def _tell_plan(self, asked: date | None) -> None:
        now = timezone.now()
        recipients = ", ".join(get_settings().digest.recipients)
        days = [asked] if asked else due_days(now)
        for day in days:
            if is_due(day, now):
                self.stdout.write(f"{day}: would be closed and mailed to {recipients}.")
            else:
                self._leave(day)
        if not days:
            self.stdout.write("Nothing to do: no day is due.")

    def _resend(self, day: date, *, everyone: bool) -> None:
        closed = resend(day, timezone.now(), everyone=everyone)
        if closed is None:
            raise CommandError(
                f"{day}: there is nothing to send again, {_told(status_of(day))}."
            )
        self._report([closed])

    def _close(self, asked: date | None) -> None:
        _flush_own_counts()
        self._wait_for_the_last_counts()
        database = get_settings().database
        now = now_at_most(database)
        days = [asked] if asked else due_days(now)
        if not days:
            self.stdout.write("Nothing to do: no day is due.")
        outcomes = []
        # Processes see to it as they store, but not to what others store with them.
        unmute_what_exceeds(since=now - LOOK_BACK, using=database)
        for day in days:
            closed = close(day, now)
            if closed is None:
                self._leave(day)
            else:
                outcomes.append(closed)
        roll_up(now, using=database, retention=get_settings().retention_days)
        self._report(outcomes)

    def _leave(self, day: date) -> None:
        self.stdout.write(f"{day}: left alone, {_told(status_of(day))}.")

    def _wait_for_the_last_counts(self) -> None:
        conf = get_settings()
        now = timezone.now()
        today = now.astimezone(conf.digest.zone).date()
        since_midnight = now - Period.for_day(today, conf.digest.zone).start
        settled = min(2 * timedelta(seconds=conf.flush_interval), PATIENCE)
        if conf.flush == "thread" and since_midnight < settled:
            time.sleep((settled - since_midnight).total_seconds())

    def _report(self, outcomes: list[Closed]) -> None:
        """Say what was sent; raises CommandError when somebody could not be mailed."""
        failures = []
        for closed in outcomes:
            if closed.status == MailStatus.EMPTY:
                self.stdout.write(
                    f"{closed.day}: nothing was counted; recorded, not sent."
                )
            elif closed.sent:
                self.stdout.write(f"{closed.day}: mailed to {', '.join(closed.sent)}.")
            elif not closed.failed:
                self.stdout.write(f"{closed.day}: everybody has the mail already.")
            failures += [
                f"{closed.day}: {recipient}: {error}"
                for recipient, error in closed.failed.items()
            ]
        if failures:
            raise CommandError("Could not mail\n" + "\n".join(failures))


def _told(status: str | None) -> str:
    return f"its mail is {status}" if status else "no mail of it is stored"


def _flush_own_counts() -> None:
    # By the registry and not by import: the app's configuration is the layer above.
    ingest = getattr(apps.get_app_config("django_safecache"), "ingest", None)
    if ingest is not None:
        ingest.flush()
