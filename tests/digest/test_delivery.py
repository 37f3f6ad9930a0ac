from __future__ import annotations

from datetime import date, timedelta

import pytest
from django.core import mail
from mail_server import SMTP, MailServer, mail_settings
from stored import at, counted, occurred

from django_safecache.digest.delivery import UNKNOWN, close, due_days, is_due, resend
from django_safecache.models import DigestDelivery, DigestMail

pytestmark = pytest.mark.django_db

DAY = date(2025, 1, 14)
NOON = at(2025, 1, 14, 12)
MORNING = at(2025, 1, 15, 6)
LATER = MORNING + timedelta(hours=2)
FAILS_FOR_OPS = "mail_server.FailsForOne"
SENDS_NOTHING = "mail_server.SendsNothing"
OPS, DEV = "ops@example.com", "dev@example.com"


def digest_settings(**changes):
    values = {"RECIPIENTS": [OPS, DEV], "FROM": "cache@example.com", **changes}
    return {"FLUSH": "manual", "DIGEST": values}


@pytest.fixture
def send_by(settings):
    """Send mail by another backend, or by the SMTP server at a port."""

    def change(backend=SMTP, **options):
        for name, value in mail_settings(backend, **options).items():
            setattr(settings, name, value)

    return change


@pytest.fixture(autouse=True)
def _site(settings, send_by):
    settings.SAFECACHE = digest_settings()
    send_by("django.core.mail.backends.locmem.EmailBackend")


@pytest.fixture
def server(send_by):
    with MailServer() as server:
        send_by(port=server.port)
        yield server


def stored():
    return DigestMail.objects.get(day=DAY)


def errors():
    return dict(DigestDelivery.objects.values_list("recipient", "error"))


class TestClosing:
    def test_each_recipient_gets_a_mail_of_its_own_in_both_forms(self, server):
        counted(NOON, hits=5)
        occurred(NOON, message="Größe <b>")
        closed = close(DAY, MORNING)
        assert closed.sent == (OPS, DEV)
        assert [recipients for recipients, _ in server.received] == [(OPS,), (DEV,)]
        _, message = server.received[0]
        assert message["To"] == OPS
        assert message["From"] == "cache@example.com"
        assert message["Subject"] == "safecache Tue 14 Jan: 1 new"
        assert message["Auto-Submitted"] == "auto-generated"
        text, html = message.iter_parts()
        assert "Größe <b>" in text.get_content()
        assert "Größe &lt;b&gt;" in html.get_content()

    def test_what_was_sent_is_stored(self, server):
        counted(NOON, hits=5)
        close(DAY, MORNING)
        _, message = server.received[0]
        text, html = message.iter_parts()
        assert stored().status == "sent"
        assert stored().sent_at is not None
        assert stored().subject == message["Subject"]
        assert stored().text.splitlines() == text.get_content().splitlines()
        assert stored().html.splitlines() == html.get_content().splitlines()

    def test_a_day_is_mailed_once(self):
        counted(NOON, hits=5)
        close(DAY, MORNING)
        assert close(DAY, MORNING) is None
        assert close(DAY, MORNING + timedelta(days=2)) is None
        assert len(mail.outbox) == 2

    def test_a_recipient_named_twice_gets_one_mail(self, settings):
        settings.SAFECACHE = digest_settings(RECIPIENTS=[OPS, OPS])
        counted(NOON, hits=5)
        assert close(DAY, MORNING).sent == (OPS,)
        assert len(mail.outbox) == 1

    def test_without_a_sender_of_its_own_the_site_s_is_used(self, settings):
        settings.SAFECACHE = digest_settings(FROM=None)
        settings.DEFAULT_FROM_EMAIL = "site@example.com"
        counted(NOON, hits=5)
        close(DAY, MORNING)
        assert mail.outbox[0].from_email == "site@example.com"


class TestEmptyDays:
    def test_they_are_recorded_and_not_mailed(self):
        closed = close(DAY, MORNING)
        assert (closed.status, closed.sent) == ("empty", ())
        assert mail.outbox == []
        assert stored().status == "empty"
        assert stored().subject == "safecache Tue 14 Jan: no telemetry"
        assert close(DAY, LATER) is None

    def test_they_are_mailed_when_asked_for(self, settings):
        settings.SAFECACHE = digest_settings(SEND_EMPTY="always")
        assert close(DAY, MORNING).sent == (OPS, DEV)
        assert "NO TELEMETRY" in mail.outbox[0].body


class TestFailures:
    def test_a_refused_recipient_does_not_stop_the_others(self, server):
        server.refuse[OPS] = "550 no such mailbox"
        counted(NOON, hits=5)
        closed = close(DAY, MORNING)
        assert closed.sent == (DEV,)
        assert list(closed.failed) == [OPS]
        assert "no such mailbox" in closed.failed[OPS]
        assert stored().status == "failed"
        assert errors() == {OPS: closed.failed[OPS], DEV: ""}

    def test_what_is_refused_for_good_is_not_tried_again(self, server):
        server.refuse[OPS] = "550 no such mailbox"
        counted(NOON, hits=5)
        close(DAY, MORNING)
        assert not is_due(DAY, LATER)

    def test_what_is_refused_for_now_is_tried_again_after_an_hour(self, server):
        server.refuse[OPS] = "450 greylisted"
        counted(NOON, hits=5)
        failed = close(DAY, MORNING).failed
        assert failed[OPS].startswith("Not sent, will be tried again: SMTPRecipients")
        server.refuse.clear()
        assert close(DAY, MORNING + timedelta(minutes=59)) is None
        assert close(DAY, MORNING + timedelta(minutes=60)).sent == (OPS,)
        assert server.recipients == [DEV, OPS]
        assert stored().status == "sent"
        assert errors() == {OPS: "", DEV: ""}

    def test_a_mail_server_that_is_down_is_tried_again(self, server, send_by):
        counted(NOON, hits=5)
        send_by(port=1)
        assert list(close(DAY, MORNING).failed) == [OPS, DEV]
        assert stored().sent_at is None
        send_by(port=server.port)
        assert close(DAY, LATER).sent == (OPS, DEV)

    def test_a_mail_setting_that_is_wrong_is_tried_again(self, send_by):
        counted(NOON, hits=5)
        send_by("no.such.Backend")
        assert list(close(DAY, MORNING).failed) == [OPS, DEV]
        send_by("django.core.mail.backends.locmem.EmailBackend")
        assert close(DAY, LATER).sent == (OPS, DEV)

    def test_what_may_have_been_sent_is_not_tried_again(self, send_by):
        send_by(FAILS_FOR_OPS)
        counted(NOON, hits=5)
        closed = close(DAY, MORNING)
        assert closed.failed == {OPS: "TimeoutError: timed out after the data"}
        assert closed.sent == (DEV,)
        assert close(DAY, LATER) is None

    def test_it_is_tried_again_where_twice_is_better_than_never(
        self, settings, send_by
    ):
        settings.SAFECACHE = digest_settings(DELIVERY="at_least_once")
        send_by(FAILS_FOR_OPS)
        counted(NOON, hits=5)
        close(DAY, MORNING)
        assert list(close(DAY, LATER).failed) == [OPS]
        assert [message.to for message in mail.outbox] == [[DEV]]

    def test_a_backend_that_sends_nothing_has_failed(self, send_by):
        send_by(SENDS_NOTHING)
        counted(NOON, hits=5)
        assert close(DAY, MORNING).failed[OPS] == (
            "Not sent, will be tried again: the mail backend sent nothing."
        )

    def test_a_sender_that_would_add_a_header_is_refused(self, settings):
        settings.SAFECACHE = digest_settings(FROM="a@example.com\nBcc: all@example.com")
        counted(NOON, hits=5)
        closed = close(DAY, MORNING)
        assert closed.sent == ()
        assert mail.outbox == []


class TestDeadProcesses:
    """What a process that was killed while it sent leaves to the next one."""

    @pytest.fixture
    def left_behind(self):
        counted(NOON, hits=5)
        mail = DigestMail.objects.create(
            day=DAY,
            status="claimed",
            claimed_at=MORNING,
            claimed_by="web-1:1:dead",
            subject="as first written",
            text="text",
            html="<p>html</p>",
        )
        DigestDelivery.objects.create(mail=mail, recipient=OPS)
        return mail

    def test_its_claim_is_respected_for_an_hour(self, left_behind):
        assert close(DAY, MORNING + timedelta(minutes=59)) is None

    def test_then_only_who_cannot_have_the_mail_gets_it(self, left_behind):
        closed = close(DAY, MORNING + timedelta(minutes=60))
        assert closed.sent == (DEV,)
        assert closed.failed == {OPS: UNKNOWN}
        assert [(message.to, message.subject) for message in mail.outbox] == [
            ([DEV], "as first written")
        ]
        assert errors() == {OPS: UNKNOWN, DEV: ""}
        assert close(DAY, MORNING + timedelta(days=1)) is None

    def test_or_everybody_where_twice_is_better_than_never(self, left_behind, settings):
        settings.SAFECACHE = digest_settings(DELIVERY="at_least_once")
        assert close(DAY, LATER).sent == (OPS, DEV)

    def test_one_that_died_before_it_wrote_the_mail_loses_nothing(self):
        counted(NOON, hits=5)
        DigestMail.objects.create(
            day=DAY, status="claimed", claimed_at=MORNING, claimed_by="web-1:1:dead"
        )
        assert close(DAY, LATER).sent == (OPS, DEV)
        assert mail.outbox[0].subject == "safecache Tue 14 Jan: no errors"

    def test_a_mail_that_cannot_be_written_is_given_back(self, settings):
        counted(NOON, hits=5)
        templates = settings.TEMPLATES
        settings.TEMPLATES = [{**templates[0], "APP_DIRS": False}]
        with pytest.raises(Exception, match=r"digest\.txt"):
            close(DAY, MORNING)
        assert stored().status == "pending"
        settings.TEMPLATES = templates
        assert close(DAY, MORNING).sent == (OPS, DEV)


class TestDueDays:
    def test_at_first_it_is_yesterday_alone(self):
        assert due_days(MORNING) == [DAY]

    def test_the_day_is_over_when_it_is_over_there(self, settings):
        settings.SAFECACHE = digest_settings(TIME_ZONE="America/New_York")
        assert due_days(at(2025, 1, 15, 4, 59)) == [date(2025, 1, 13)]
        assert due_days(at(2025, 1, 15, 5, 0)) == [DAY]

    def test_at_most_three_missed_days_are_caught_up_oldest_first(self):
        DigestMail.objects.create(day=date(2025, 1, 1), status="sent")
        assert due_days(MORNING) == [date(2025, 1, day) for day in (11, 12, 13, 14)]

    def test_days_before_the_first_mail_were_not_missed(self):
        DigestMail.objects.create(day=date(2025, 1, 12), status="sent")
        assert due_days(MORNING) == [date(2025, 1, 13), DAY]

    def test_the_first_mail_of_all_is_tried_again_after_its_day_is_past(self, send_by):
        counted(NOON, hits=5)
        send_by(port=1)
        close(DAY, MORNING)
        assert due_days(MORNING + timedelta(days=1)) == [DAY, date(2025, 1, 15)]

    @pytest.mark.parametrize("status", ["sent", "empty", "failed"])
    def test_what_is_done_is_not_due(self, status):
        DigestMail.objects.create(day=DAY, status=status)
        assert due_days(MORNING) == []


class TestResending:
    def test_to_those_without_it(self, server):
        server.refuse[OPS] = "550 no such mailbox"
        counted(NOON, hits=5)
        close(DAY, MORNING)
        server.refuse.clear()
        assert resend(DAY, LATER, everyone=False).sent == (OPS,)
        assert server.recipients == [DEV, OPS]
        assert stored().status == "sent"

    def test_to_a_recipient_added_since(self, settings):
        counted(NOON, hits=5)
        close(DAY, MORNING)
        settings.SAFECACHE = digest_settings(RECIPIENTS=[OPS, DEV, "new@example.com"])
        assert resend(DAY, LATER, everyone=False).sent == ("new@example.com",)

    def test_to_everyone_as_it_was_written(self):
        counted(NOON, hits=5)
        close(DAY, MORNING)
        counted(NOON + timedelta(minutes=5), epipe=3)
        assert resend(DAY, LATER, everyone=True).sent == (OPS, DEV)
        assert len(mail.outbox) == 4
        assert len({message.body for message in mail.outbox}) == 1

    def test_not_while_it_is_being_sent(self):
        DigestMail.objects.create(
            day=DAY, status="claimed", claimed_at=MORNING, subject="s"
        )
        assert resend(DAY, MORNING, everyone=True) is None

    def test_not_without_a_stored_mail(self):
        assert resend(DAY, MORNING, everyone=True) is None
