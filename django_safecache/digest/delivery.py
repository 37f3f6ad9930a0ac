"""Sends the mail of a closed day once, whichever hosts ask for it and how often.

The day's row is inserted with conflicts ignored, then claimed by one conditional
update; whoever changed it sends. A recipient's row is inserted, or its passing
failure taken back, before the mail goes out, so that a claim taken over from a
process that died cannot mail anybody twice.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from smtplib import SMTPRecipientsRefused, SMTPResponseException
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMultiAlternatives
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from django_safecache.conf import get_settings
from django_safecache.digest.contents import compose
from django_safecache.digest.rendering import render
from django_safecache.digest.wording import clean
from django_safecache.models import DigestDelivery, DigestMail, MailStatus
from django_safecache.recording.fingerprints import without_credentials

CATCH_UP_DAYS = 3
# Longer than any sending takes; also how long a passing failure is left alone.
CLAIM_EXPIRES = timedelta(hours=1)

# How the text of a delivery's error begins when a later run may try again. All other
# failures may have reached the recipient, or will not pass.
AGAIN = "Not sent, will be tried again: "
_BEFORE_SENDING = (
    ConnectionRefusedError,
    socket.gaierror,
    ImproperlyConfigured,
    ImportError,
)
UNKNOWN = "The process that was sending died; the mail may have been sent."


@dataclass(frozen=True, slots=True)
class Closed:
    """What came of closing a day: who was mailed now, and who could not be."""

    day: date
    status: str
    sent: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


def due_days(now: datetime) -> list[date]:
    """The closed days whose mail is to be sent now, oldest first.

    Yesterday, and of the days before it at most `CATCH_UP_DAYS` that were missed:
    a day is not missed when nothing was ever recorded before it.
    """
    yesterday = now.astimezone(get_settings().digest.zone).date() - timedelta(days=1)
    first = yesterday - timedelta(days=CATCH_UP_DAYS)
    began = _mails().order_by("day").values_list("day", flat=True).first()
    days = (first + timedelta(days=index) for index in range(CATCH_UP_DAYS + 1))
    return [
        day
        for day in days
        if (day == yesterday or (began and began <= day)) and is_due(day, now)
    ]


def is_due(day: date, now: datetime) -> bool:
    """Whether the mail of the closed `day` is to be sent, and in nobody's hands."""
    mail = _mails().filter(day=day).first()
    return mail is None or _is_due(mail, now)


def status_of(day: date) -> str | None:
    """The `MailStatus` of the day's mail; None if there is no mail of it."""
    return _mails().filter(day=day).values_list("status", flat=True).first()


def close(day: date, now: datetime) -> Closed | None:
    """Claim, compose, store and send the mail of `day`; None if it is not to be sent.

    It is not when it was sent, is recorded as empty, or is in other hands. Never
    raises for a recipient that cannot be mailed: see `Closed.failed`.
    """
    zone = get_settings().digest.zone
    row = DigestMail(day=day, time_zone=zone.key)
    _mails().bulk_create([row], ignore_conflicts=True)
    mail = _mails().get(day=day)
    if not (_is_due(mail, now) and _claim(mail, now)):
        return None
    # A mail that was taken over is sent as it was written: all recipients get the same.
    if not mail.subject:
        _write(mail)
    if mail.status == MailStatus.EMPTY:
        return Closed(day, mail.status)
    return _deliver(mail)


def resend(day: date, now: datetime, *, everyone: bool) -> Closed | None:
    """Send the stored mail of `day` again, to `everyone` or to those without it.

    None if there is no such mail, or it is being sent.
    """
    mail = _mails().filter(day=day).exclude(subject="").first()
    if mail is None or _is_claimed(mail, now) or not _claim(mail, now):
        return None
    deliveries = _deliveries().filter(mail=mail)
    if not everyone:
        deliveries = deliveries.filter(sent_at=None)
    deliveries.update(sent_at=None, error=AGAIN)
    return _deliver(mail)


def _is_claimed(mail: DigestMail, now: datetime) -> bool:
    return (
        mail.status == MailStatus.CLAIMED
        and mail.claimed_at is not None
        and mail.claimed_at > now - CLAIM_EXPIRES
    )


def _is_due(mail: DigestMail, now: datetime) -> bool:
    if mail.status == MailStatus.FAILED:
        rested = mail.claimed_at is None or mail.claimed_at <= now - CLAIM_EXPIRES
        passing = _deliveries().filter(mail=mail, error__startswith=AGAIN)
        return rested and passing.exists()
    if mail.status == MailStatus.CLAIMED:
        return not _is_claimed(mail, now)
    return mail.status == MailStatus.PENDING


def _claim(mail: DigestMail, now: datetime) -> bool:
    """Whether the row was still as it was read, and now is this caller's.

    Every claim has a name of its own, so an unchanged name is an unchanged claim.
    """
    seen = _mails().filter(pk=mail.pk, status=mail.status, claimed_by=mail.claimed_by)
    name = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
    mail.status, mail.claimed_at, mail.claimed_by = MailStatus.CLAIMED, now, name
    return seen.update(status=mail.status, claimed_at=now, claimed_by=name) == 1


def _change(mail: DigestMail, **values: Any) -> None:
    """Store `values`, unless the claim was taken over meanwhile."""
    for name, value in values.items():
        setattr(mail, name, value)
    _mails().filter(pk=mail.pk, claimed_by=mail.claimed_by).update(**values)


def _write(mail: DigestMail) -> None:
    """Store both renderings, and with them that an empty mail is not to be sent.

    What fails here gives the day back, to be tried again at the next run.
    """
    try:
        digest = compose(mail.day)
        rendered = render(digest)
    except BaseException:
        _change(mail, status=MailStatus.PENDING)
        raise
    send = not digest.is_empty or get_settings().digest.send_empty == "always"
    _change(
        mail,
        status=MailStatus.CLAIMED if send else MailStatus.EMPTY,
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
    )


def _deliver(mail: DigestMail) -> Closed:
    """Mail every recipient not known to have the mail, and record what came of it."""
    errors = {
        recipient: _deliver_to(mail, recipient)
        for recipient in dict.fromkeys(get_settings().digest.recipients)
    }
    sent = tuple(recipient for recipient, error in errors.items() if error == "")
    failed = {recipient: error for recipient, error in errors.items() if error}
    unsent = _deliveries().filter(mail=mail, sent_at=None)
    _change(
        mail,
        status=MailStatus.FAILED if unsent.exists() else MailStatus.SENT,
        sent_at=timezone.now() if sent else mail.sent_at,
    )
    return Closed(mail.day, mail.status, sent, failed)


def _deliver_to(mail: DigestMail, recipient: str) -> str | None:
    """Empty when mailed, else the error; None when there was nothing to do."""
    delivery = _deliveries().filter(mail=mail, recipient=recipient)
    if not _claim_delivery(mail, recipient):
        # Claimed before, and what came of it was never said.
        unknown = delivery.filter(sent_at=None, error="")
        return UNKNOWN if unknown.update(error=UNKNOWN) else None
    error = _send(mail, recipient)
    delivery.update(error=error, sent_at=None if error else timezone.now())
    return error


def _claim_delivery(mail: DigestMail, recipient: str) -> bool:
    """Whether the mail is to be sent to `recipient` now, and by this caller."""
    # Not the mail: a router that does not know this database would be asked, and
    # forbid it.
    delivery = DigestDelivery(mail_id=mail.pk, recipient=recipient)
    try:
        with transaction.atomic(using=_database()):
            delivery.save(using=_database(), force_insert=True)
    except IntegrityError:
        unsent = _deliveries().filter(mail=mail, recipient=recipient, sent_at=None)
        if get_settings().digest.delivery == "at_most_once":
            unsent = unsent.filter(error__startswith=AGAIN)
        return unsent.update(error="") == 1
    return True


def _send(mail: DigestMail, recipient: str) -> str:
    """Empty when the mail was handed over, else what went wrong."""
    message = EmailMultiAlternatives(
        mail.subject,
        mail.text,
        get_settings().digest.sender,
        [recipient],
        headers={"Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(mail.html, "text/html")
    try:
        accepted = message.send()
    except Exception as error:  # mail backends are anybody's code and raise anything
        told = clean(without_credentials(f"{type(error).__name__}: {error}"), 500)
        return f"{AGAIN}{told}" if _passes(error) else told
    return f"{AGAIN}the mail backend sent nothing." if accepted == 0 else ""


def _passes(error: Exception) -> bool:
    """Whether to try again: nothing was accepted, and the same may be accepted later.

    Greylisting, a full mailbox, a mail server that is down and a wrong setting are of
    this kind. What may have been accepted is tried again only if twice is better than
    never.
    """
    if isinstance(error, SMTPRecipientsRefused):
        return all(code < 500 for code, _ in error.recipients.values())
    if isinstance(error, SMTPResponseException):
        return error.smtp_code < 500
    if isinstance(error, _BEFORE_SENDING):
        return True
    return get_settings().digest.delivery == "at_least_once"


def _database() -> str:
    return get_settings().database


def _mails() -> QuerySet[DigestMail]:
    return DigestMail.objects.using(_database())


def _deliveries() -> QuerySet[DigestDelivery]:
    return DigestDelivery.objects.using(_database())
