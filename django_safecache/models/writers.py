"""Who writes the counts, and how far back they go."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_safecache.models.fields import (
    ERROR_LENGTH,
    HOST_LENGTH,
    WRITER_LENGTH,
    Resolution,
)


class Writer(models.Model):
    """A process that reports, and how well it gets on with that.

    Processes that are long gone are put together: one row for a time in which some
    process reported without a break.
    """

    name = models.CharField(max_length=WRITER_LENGTH)
    host = models.CharField(max_length=HOST_LENGTH)
    pid = models.PositiveBigIntegerField()
    started = models.DateTimeField()
    last_flush = models.DateTimeField()
    ended = models.DateTimeField(
        null=True, blank=True, help_text=_("Empty until the process ended orderly.")
    )
    settled = models.DateTimeField(
        null=True, blank=True, help_text=_("Buckets before this are final.")
    )
    dropped = models.PositiveBigIntegerField(
        default=0, help_text=_("Details not kept because there were too many.")
    )
    flush_errors = models.PositiveBigIntegerField(
        default=0, help_text=_("How often its totals could not be stored.")
    )
    last_error = models.CharField(
        max_length=ERROR_LENGTH,
        blank=True,
        help_text=_("Why not, last time; without names, numbers and values."),
    )
    last_error_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("writer")
        verbose_name_plural = _("writers")
        constraints = [
            # The upsert of a flush needs it.
            models.UniqueConstraint(fields=["name"], name="safecache_writer_name")
        ]
        indexes = [
            # Who reported lately, who reported in a period, and the prune.
            models.Index(fields=["last_flush"], name="safecache_writer_last_flush")
        ]

    def __str__(self) -> str:
        return self.name


class Horizon(models.Model):
    """How far back the rows of one resolution that have no writer go.

    They are deleted `GRACE` later than is said here: who has just asked where they
    begin still finds them, for as long as it takes to read them.

    Whoever rolls up or prunes holds the row of `Resolution.DAY` locked.
    """

    GRACE = timedelta(hours=1)

    resolution = models.PositiveSmallIntegerField(
        choices=Resolution.choices, primary_key=True
    )
    kept_from = models.DateTimeField(
        null=True, blank=True, help_text=_("Buckets before this may be deleted.")
    )

    class Meta:
        verbose_name = _("horizon")
        verbose_name_plural = _("horizons")

    def __str__(self) -> str:
        return f"{self.get_resolution_display()}: {self.kept_from}"
