"""The digest mail, and the page of the dashboard."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_safecache.models.fields import WRITER_LENGTH


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
