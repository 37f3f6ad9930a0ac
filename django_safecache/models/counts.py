"""What the caches did, by place and bucket."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models.fields import (
    ALIAS_LENGTH,
    KEY_GROUP_LENGTH,
    SERVER_LENGTH,
    WRITER_LENGTH,
    CountField,
    Resolution,
    SecondsField,
)
from django_safecache.recording import histogram


class Together(models.TextChoices):
    """What a place is the sum of; empty for what is counted.

    In rows that are rolled up there are such sums besides, for those who do not tell
    key groups or servers apart, and would have to add up twenty rows for one. Of
    servers only in hours and days: of the others a question reads few.
    """

    NOTHING = "", _("nothing")
    KEY_GROUPS = "key_groups", _("the key groups of a server")
    SERVERS = "servers", _("the servers of a key group")

    def of(self, resolution: Resolution) -> Together:
        """What to read of a resolution instead of this, where it has no such sums."""
        if self is Together.SERVERS and resolution is Resolution.FIVE_MINUTES:
            return Together.NOTHING
        return self


ALL_SERVERS = "*"


class CachePlace(models.Model):
    """What is counted apart: a key group on a server of an alias.

    `server` is empty for what loaders did. Ten servers that get new addresses every
    week make 3 MB in a year.
    """

    # Of four bytes: each row of counts has it twice, in the table and in its key.
    id = models.AutoField(primary_key=True)
    fingerprint = models.CharField(max_length=32)
    alias = models.CharField(max_length=ALIAS_LENGTH)
    server = models.CharField(max_length=SERVER_LENGTH, blank=True)
    key_group = models.CharField(max_length=KEY_GROUP_LENGTH, blank=True)
    together = models.CharField(
        max_length=16, choices=Together.choices, blank=True, default=Together.NOTHING
    )
    # Moved up before such a row is stored. Reports of later ask for no row of the
    # place, and it is deleted long after there is none.
    counted_until = models.DateTimeField(
        help_text=_("No counts of it begin then or later.")
    )

    class Meta:
        verbose_name = _("cache place")
        verbose_name_plural = _("cache places")
        constraints = [
            # Writers find a place, and agree on its row, by the fingerprint: names
            # that differ are the same to MariaDB when only their case does.
            models.UniqueConstraint(
                fields=["fingerprint"], name="safecache_place_fingerprint"
            )
        ]

    def __str__(self) -> str:
        return f"{self.alias} {self.server} {self.key_group}"


class CacheDigest(models.Model):
    """The counts of one place over one bucket.

    Where the place has no server, `calls` and the durations are the loaders' own. One
    column for each of `FAILURE_KINDS` and of `histogram.COLUMNS` is added below.
    """

    # The writer comes first, so that what is not rolled up yet is in one place, and
    # what a writer has for who rolls it up. The bucket comes last: whoever reads knows
    # which places, and finds a period of each in one piece. No further index is needed,
    # and without an id a row is a sixth smaller.
    pk = models.CompositePrimaryKey("writer", "resolution", "place_id", "bucket")
    # From the longest to the shortest, because PostgreSQL aligns columns.
    bucket = models.DateTimeField(help_text=_("Start of the period."))
    # Places outlive their rows: there is nothing to check or to look up by place.
    place = models.ForeignKey(
        CachePlace,
        on_delete=models.PROTECT,
        related_name="digests",
        db_index=False,
        db_constraint=False,
    )
    resolution = models.PositiveSmallIntegerField(choices=Resolution.choices)
    writer = models.CharField(max_length=WRITER_LENGTH, blank=True)

    calls = CountField()
    lines = CountField()
    hits = CountField()
    misses = CountField()
    unavailable = CountField()
    loaded = CountField()
    stores = CountField()
    deletes = CountField()
    retries = CountField()
    splits = CountField()
    bytes_sent = CountField()
    bytes_received = CountField()
    duration_sum = SecondsField()
    duration_max = SecondsField()

    class Meta:
        verbose_name = _("cache digest")
        verbose_name_plural = _("cache digests")

    def __str__(self) -> str:
        return f"{self.place_id} {self.bucket:%Y-%m-%d %H:%M}"


# From the vocabulary, so that a change of it cannot be forgotten here: makemigrations
# sees it.
for _name in (*FAILURE_KINDS, *histogram.COLUMNS):
    CacheDigest.add_to_class(_name, CountField())
