"""What went wrong: causes, how often, where and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_safecache.models.fields import (
    ALIAS_LENGTH,
    CALL_SITE_LENGTH,
    FACET_LENGTH,
    HOST_LENGTH,
    SERVER_LENGTH,
    WRITER_LENGTH,
    HashField,
    Resolution,
)


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
