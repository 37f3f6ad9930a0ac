"""The tables of the counts, the problems and the digest mail.

Written by `storage`, read by `reports`. Three rules hold for all of them:

- A process (a *writer*) owns its rows and stores absolute totals, so that storing
  the same totals twice changes nothing.
- Rows rolled up have no writer. What a writer will not store again is taken from its
  rows and added to those of all three resolutions in one transaction, so at any moment
  the rows without a writer, of any one resolution, and the rows with one are together
  what was counted, once.
- A unique key stays under 3072 bytes when each character takes four, the limit of
  InnoDB. Longer values are shortened by `recording.fingerprints.shortened`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext_lazy as _

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.recording import histogram

ALIAS_LENGTH = 64
SERVER_LENGTH = 255
KEY_GROUP_LENGTH = 120
WRITER_LENGTH = 64
HOST_LENGTH = 255
FACET_LENGTH = 200
CALL_SITE_LENGTH = 200
ERROR_LENGTH = 200


class Resolution(models.IntegerChoices):
    """Length of a bucket in minutes."""

    FIVE_MINUTES = 5, _("5 minutes")
    HOUR = 60, _("hour")
    DAY = 1440, _("day")

    @property
    def length(self) -> timedelta:
        return timedelta(minutes=self.value)

    def start_of(self, moment: datetime) -> datetime:
        """The start, in UTC, of the bucket that `moment` is in; days are UTC's."""
        seconds = self.value * 60
        start = moment.timestamp() // seconds * seconds
        return datetime.fromtimestamp(start, timezone.utc)


if TYPE_CHECKING:
    _Field = models.Field[Any, Any]
    _CountField = models.PositiveBigIntegerField[int, int]
    _SecondsField = models.FloatField[float, float]
    _TextField = models.CharField[str, str]
else:
    # Django's own take no type parameters when they run.
    _Field = models.Field
    _CountField = models.PositiveBigIntegerField
    _SecondsField = models.FloatField
    _TextField = models.CharField


class _ZeroIsNull(_Field):
    """Zero in Python is NULL in the table, where it takes no room.

    Two thirds of the 43 figures of a cell are zero, so rows are half as large. What
    aggregates nothing, or only zeros, is 0. Compare with ``__gt`` and the like, which
    NULL never fulfils, and not with ``=0``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"null": True, "default": 0, **kwargs})

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        return super().get_db_prep_save(value or None, connection)

    def from_db_value(self, value: Any, *args: object) -> Any:
        return 0 if value is None else value


class CountField(_ZeroIsNull, _CountField):
    """64 bits: bytes of a day pass 2^31 easily, and so do the failures of a storm."""


class SecondsField(_ZeroIsNull, _SecondsField):
    """A duration."""


HASH_LENGTH = 32


def hash_of(*texts: str) -> str:
    """Differs where `texts` do. None may have a NUL, which no column can hold."""
    names = "\0".join(texts)
    return blake2b(names.encode(), digest_size=HASH_LENGTH // 2).hexdigest()


class HashField(_TextField):
    """The hash of the fields `of`, for a unique key; set whenever a row is saved.

    Texts that differ are the same to MariaDB when only their case, accents or trailing
    spaces do, as to any database with such a collation.
    """

    def __init__(self, *args: Any, of: Sequence[str] = (), **kwargs: Any) -> None:
        self.of = tuple(of)
        fixed = {"max_length": HASH_LENGTH, "editable": False}
        super().__init__(*args, **{**kwargs, **fixed})

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        del kwargs["max_length"], kwargs["editable"]
        return name, path, args, {**kwargs, "of": self.of}

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        value = hash_of(*(getattr(model_instance, name) for name in self.of))
        setattr(model_instance, self.attname, value)
        return value


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

    `server` is empty for what loaders did. Rows are neither changed nor deleted: ten
    servers that get new addresses every week make 2 MB in a year.
    """

    fingerprint = models.CharField(max_length=32)
    alias = models.CharField(max_length=ALIAS_LENGTH)
    server = models.CharField(max_length=SERVER_LENGTH, blank=True)
    key_group = models.CharField(max_length=KEY_GROUP_LENGTH, blank=True)
    together = models.CharField(
        max_length=16, choices=Together.choices, blank=True, default=Together.NOTHING
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
    # Places are never deleted: there is nothing to check or to look up by place.
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


class ProblemState(models.TextChoices):
    OPEN = "open", _("open")
    RESOLVED = "resolved", _("resolved")
    REGRESSED = "regressed", _("regressed")
    MUTED = "muted", _("muted")


class Problem(models.Model):
    """One cause of failures or exceptions, however often and wherever it occurs.

    `kind` is one of `FAILURE_KINDS`, ``application`` for an exception of the site's
    own, or ``browser`` for an error that a visitor's browser reported. `message`
    is scrubbed, and still not to be trusted as markup.

    Problems made by older rules (`algorithm`) stay as they are, and are pruned like
    others when they have not been seen for long: no two are ever made one.
    """

    NOT_MUTED: ClassVar[Mapping[str, None]] = {
        "muted_at": None,
        "muted_until": None,
        "muted_above": None,
    }
    """The columns of a problem that is not."""

    fingerprint = models.CharField(max_length=64)
    algorithm = models.PositiveSmallIntegerField(
        default=1, help_text=_("Version of the rules the fingerprint was made by.")
    )
    kind = models.CharField(max_length=32)
    exception = models.CharField(max_length=200, blank=True)
    errno = models.IntegerField(null=True, blank=True)
    message = models.CharField(max_length=500, blank=True)
    state = models.CharField(
        max_length=16, choices=ProblemState.choices, default=ProblemState.OPEN
    )
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    regressed_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text=_("When it first occurred after it was resolved the last time."),
    )
    muted_at = models.DateTimeField(null=True, blank=True)
    muted_until = models.DateTimeField(
        null=True, blank=True, help_text=_("An occurrence from then on opens it again.")
    )
    muted_above = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text=_("More occurrences than this in an hour open it again."),
    )

    class Meta:
        verbose_name = _("problem")
        verbose_name_plural = _("problems")
        constraints = [
            # Writers find a problem, and agree on its row, by the fingerprint.
            models.UniqueConstraint(
                fields=["fingerprint"], name="safecache_problem_fingerprint"
            )
        ]
        indexes = [
            # The list of problems, latest first, and the prune of forgotten ones.
            models.Index(fields=["last_seen"], name="safecache_problem_last_seen")
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.exception} {self.message}".strip()


class ProblemCount(models.Model):
    """Occurrences of a problem in one bucket: as one writer saw them, or of all."""

    problem = models.ForeignKey(
        Problem, on_delete=models.CASCADE, related_name="counts"
    )
    resolution = models.PositiveSmallIntegerField(choices=Resolution.choices)
    bucket = models.DateTimeField(help_text=_("Start of the period."))
    alias = models.CharField(max_length=ALIAS_LENGTH, blank=True)
    server = models.CharField(max_length=SERVER_LENGTH, blank=True)
    place_hash = HashField(of=["alias", "server"])
    writer = models.CharField(max_length=WRITER_LENGTH, blank=True)
    host = models.CharField(max_length=HOST_LENGTH, blank=True)
    count = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name = _("problem count")
        verbose_name_plural = _("problem counts")
        constraints = [
            # The upsert needs it; the writer first, as in CacheDigest. The history of
            # one problem goes through the foreign key's own index.
            models.UniqueConstraint(
                fields=[
                    "writer",
                    "resolution",
                    "bucket",
                    "problem",
                    "place_hash",
                ],
                name="safecache_problem_count_cell",
            )
        ]

    def __str__(self) -> str:
        return f"{self.count} of {self.problem_id}"


class Facet(models.TextChoices):
    ACCOUNT = "account", _("account")
    CALL_SITE = "call_site", _("call site")
    KEY_GROUP = "key_group", _("key group")
    RELEASE = "release", _("release")


class ProblemFacet(models.Model):
    """A value that a problem was seen with on one day.

    There is no count on purpose: in a storm call sites are taken of the first
    occurrences only, and a count of those would lie. That a row exists is true
    whoever stores it, and storing it again changes nothing.
    """

    problem = models.ForeignKey(
        Problem, on_delete=models.CASCADE, related_name="facets"
    )
    day = models.DateField(help_text=_("Day in the time zone of the digest."))
    facet = models.CharField(max_length=16, choices=Facet.choices)
    value = models.CharField(max_length=FACET_LENGTH)
    value_hash = HashField(of=["value"])

    class Meta:
        verbose_name = _("problem facet")
        verbose_name_plural = _("problem facets")
        constraints = [
            # Makes storing a value again harmless.
            models.UniqueConstraint(
                fields=["problem", "facet", "day", "value_hash"],
                name="safecache_problem_facet_value",
            )
        ]
        indexes = [
            # The prune of old days; the unique key starts with the problem.
            models.Index(fields=["day"], name="safecache_problem_facet_day")
        ]

    def __str__(self) -> str:
        return f"{self.facet} {self.value}"


class ProblemSample(models.Model):
    """A scrubbed traceback of a problem, in one of a few slots."""

    problem = models.ForeignKey(
        Problem, on_delete=models.CASCADE, related_name="samples"
    )
    slot = models.PositiveSmallIntegerField()
    call_site = models.CharField(max_length=CALL_SITE_LENGTH, blank=True)
    call_site_hash = HashField(of=["call_site"])
    taken_at = models.DateTimeField()
    traceback = models.TextField()

    class Meta:
        verbose_name = _("problem sample")
        verbose_name_plural = _("problem samples")
        constraints = [
            # The slot is what bounds the samples of a problem, whoever stores them.
            models.UniqueConstraint(
                fields=["problem", "slot"], name="safecache_problem_sample_slot"
            ),
            # One for each call site: five alike would say no more.
            models.UniqueConstraint(
                fields=["problem", "call_site_hash"],
                name="safecache_problem_sample_site",
            ),
        ]

    def __str__(self) -> str:
        return f"sample {self.slot} of {self.problem_id}"


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


class MailStatus(models.TextChoices):
    PENDING = "pending", _("pending")
    CLAIMED = "claimed", _("claimed")
    SENT = "sent", _("sent")
    EMPTY = "empty", _("empty, not sent")
    FAILED = "failed", _("failed")


class DigestMail(models.Model):
    """The mail of one closed day. Whoever changes it to claimed sends it."""

    day = models.DateField()
    time_zone = models.CharField(max_length=64)
    status = models.CharField(
        max_length=16, choices=MailStatus.choices, default=MailStatus.PENDING
    )
    claimed_at = models.DateTimeField(null=True, blank=True)
    claimed_by = models.CharField(max_length=WRITER_LENGTH, blank=True)
    subject = models.CharField(max_length=255, blank=True)
    text = models.TextField(blank=True)
    html = models.TextField(blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("digest mail")
        verbose_name_plural = _("digest mails")
        constraints = [
            # One mail a day whatever hosts run the command: the row is inserted with
            # conflicts ignored, then claimed by one conditional update.
            models.UniqueConstraint(fields=["day"], name="safecache_mail_day")
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.status}"


class DigestDelivery(models.Model):
    """One recipient of a digest mail, and what came of sending it there."""

    mail = models.ForeignKey(
        DigestMail, on_delete=models.CASCADE, related_name="deliveries"
    )
    recipient = models.CharField(max_length=320)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        verbose_name = _("digest delivery")
        verbose_name_plural = _("digest deliveries")
        constraints = [
            # A mail goes to a recipient once.
            models.UniqueConstraint(
                fields=["mail", "recipient"], name="safecache_delivery_recipient"
            )
        ]

    def __str__(self) -> str:
        return self.recipient


class Dashboard(models.Model):
    """No table: gives the dashboard its place in the admin and its permission."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = [("view_dashboard", _("Can view the cache dashboard"))]
        verbose_name = _("cache dashboard")
        verbose_name_plural = _("cache dashboard")

    def __str__(self) -> str:
        return "dashboard"
