"""Keeps the tables small: rolls up what is final and deletes what is old."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from django_safecache.conf import get_settings
from django_safecache.storage import now_at_most, roll_up


class Command(BaseCommand):
    help = (
        "Add the counts of five minutes up to hours and days, and delete what is past "
        'SAFECACHE["RETENTION_DAYS"]. Safe to run on every host, at any time and as '
        "often as you like; every five minutes is well."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        conf = get_settings()
        try:
            done = roll_up(
                now_at_most(conf.database),
                using=conf.database,
                retention=conf.retention_days,
            )
        except DatabaseError as error:
            raise CommandError(
                f"The database {conf.database!r} failed, and what is left will be done "
                f"by the next run: {type(error).__name__}: {error}"
            ) from error
        self.stdout.write(
            f"{done.folded} rows rolled up, {done.pruned} rows past retention deleted."
        )
