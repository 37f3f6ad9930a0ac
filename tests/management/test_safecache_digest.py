from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from django.apps import apps
from django.core import mail
from django.core.management import CommandError, call_command
from mail_server import SMTP, MailServer, mail_settings
from observed import make_outcome
from stored import counted, occurred

from django_safecache.models import CacheDigest, DigestDelivery, DigestMail

pytestmark = pytest.mark.django_db

RECIPIENTS = ["ops@example.com", "dev@example.com"]
TODAY = datetime.now(timezone.utc).date()
YESTERDAY = TODAY - timedelta(days=1)
NOON = datetime(YESTERDAY.year, YESTERDAY.month, YESTERDAY.day, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def _site(settings):
    settings.SAFECACHE = {
        "FLUSH": "manual",
        "DIGEST": {"RECIPIENTS": RECIPIENTS, "FROM": "cache@example.com"},
    }
    for name, value in mail_settings().items():
        setattr(settings, name, value)


@pytest.fixture
def server(settings):
    with MailServer() as server:
        for name, value in mail_settings(SMTP, port=server.port).items():
            setattr(settings, name, value)
        yield server


def digest(*arguments):
    output = io.StringIO()
    call_command("safecache_digest", *arguments, stdout=output)
    return output.getvalue()


class TestSending:
    def test_yesterday_is_mailed_and_then_nothing_is_due(self, server):
        counted(NOON, hits=5)
        occurred(NOON)
        assert digest() == (
            f"{YESTERDAY}: mailed to ops@example.com, dev@example.com.\n"
        )
        assert digest() == "Nothing to do: no day is due.\n"
        assert server.recipients == sorted(RECIPIENTS)

    def test_missed_days_are_caught_up(self):
        DigestMail.objects.create(day=TODAY - timedelta(days=30), status="sent")
        for days in range(6):
            counted(NOON - timedelta(days=days), hits=5)
        assert digest().count("mailed to") == 4

    @pytest.mark.parametrize(("count", "told"), [(100, False), (101, True)])
    def test_what_exceeded_what_it_is_muted_for_is_told(self, count, told):
        occurred(
            NOON,
            message="too often",
            count=count,
            state="muted",
            muted_at=NOON - timedelta(days=5),
            muted_above=100,
        )
        digest()
        text = mail.outbox[0].body
        assert ("too often" in text, "1 muted problem" in text) == (told, not told)

    def test_an_empty_day_is_said_to_be(self):
        assert digest() == f"{YESTERDAY}: nothing was counted; recorded, not sent.\n"
        assert mail.outbox == []

    def test_one_day_can_be_named(self):
        day = YESTERDAY - timedelta(days=10)
        counted(NOON - timedelta(days=10), hits=5)
        assert digest("--date", f"{day}").startswith(f"{day}: mailed to")
        assert digest("--date", f"{day}") == f"{day}: left alone, its mail is sent.\n"

    def test_what_this_process_counted_is_stored_first(self):
        recorder = apps.get_app_config("django_safecache").ingest.recorder
        recorder.observe(make_outcome(alias="own", keys=["a"], hits=1))
        digest()
        assert CacheDigest.objects.filter(place__alias="own").exists()


class TestFailing:
    def test_it_says_who_could_not_be_mailed_and_mails_the_others(self, server):
        server.refuse["ops@example.com"] = "550 no such mailbox"
        counted(NOON, hits=5)
        with pytest.raises(CommandError) as caught:
            digest()
        assert f"Could not mail\n{YESTERDAY}: ops@example.com: SMTP" in str(
            caught.value
        )
        assert caught.value.returncode == 1
        assert server.recipients == ["dev@example.com"]
        assert "no such mailbox" in DigestDelivery.objects.get(sent_at=None).error

    @pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--resend",)])
    def test_without_recipients_it_cannot_work(self, settings, arguments):
        settings.SAFECACHE = {"DIGEST": {"RECIPIENTS": []}}
        with pytest.raises(CommandError) as caught:
            digest(*arguments)
        assert str(caught.value) == (
            'Nobody to mail: SAFECACHE["DIGEST"]["RECIPIENTS"] is empty.'
        )

    @pytest.mark.parametrize("text", ["yesterday", "2025-02-30", "14.1.2025", "x\n"])
    def test_what_is_not_a_day_is_refused(self, text):
        with pytest.raises(CommandError) as caught:
            digest("--date", text)
        assert str(caught.value) == f"--date {text!r} is not a day like 2026-01-14."

    @pytest.mark.parametrize("days", [0, 1, 1000])
    @pytest.mark.parametrize("arguments", [(), ("--preview",), ("--dry-run",)])
    def test_a_day_that_is_not_over_is_refused(self, days, arguments):
        day = TODAY + timedelta(days=days)
        with pytest.raises(CommandError, match=f"{day} is not over yet in UTC."):
            digest("--date", f"{day}", *arguments)

    def test_whether_it_is_over_is_decided_by_the_zone_of_the_digest(self, settings):
        zone = "Pacific/Kiritimati"
        settings.SAFECACHE = {"DIGEST": {"RECIPIENTS": ["a@b"], "TIME_ZONE": zone}}
        there = datetime.now(ZoneInfo(zone)).date()
        assert "recorded" in digest("--date", f"{there - timedelta(days=1)}")
        with pytest.raises(CommandError, match="not over yet in Pacific/Kiritimati"):
            digest("--date", f"{there}")

    @pytest.mark.parametrize(
        "arguments", [("--preview", "--dry-run"), ("--dry-run", "--resend")]
    )
    def test_what_contradicts_itself_is_refused(self, arguments):
        with pytest.raises(CommandError, match="not allowed with argument"):
            digest(*arguments)


class TestPreview:
    def test_it_prints_the_mail_and_changes_nothing(self):
        counted(NOON, hits=1234, epipe=1)
        text = digest("--preview")
        assert text.startswith("Subject: safecache ")
        assert "1,234" in text
        assert not DigestMail.objects.exists()
        assert mail.outbox == []

    def test_it_needs_no_recipients(self, settings):
        settings.SAFECACHE = {"DIGEST": {"RECIPIENTS": []}}
        assert "NO TELEMETRY" in digest("--preview")

    def test_it_prints_the_day_that_is_named(self):
        assert "Tuesday 14 January 2025" in digest("--preview", "--date", "2025-01-14")


class TestDryRun:
    def test_it_says_what_would_be_done_and_does_nothing(self):
        counted(NOON, hits=5)
        assert digest("--dry-run") == (
            f"{YESTERDAY}: would be closed and mailed to"
            " ops@example.com, dev@example.com.\n"
        )
        assert not DigestMail.objects.exists()
        assert mail.outbox == []

    def test_it_says_what_would_be_left_alone(self):
        DigestMail.objects.create(day=YESTERDAY, status="sent")
        assert digest("--dry-run") == "Nothing to do: no day is due.\n"
        assert digest("--dry-run", "--date", f"{YESTERDAY}") == (
            f"{YESTERDAY}: left alone, its mail is sent.\n"
        )


class TestResending:
    def test_to_those_without_the_mail_or_to_all(self, server):
        server.refuse["ops@example.com"] = "550 no such mailbox"
        counted(NOON, hits=5)
        with pytest.raises(CommandError):
            digest()
        server.refuse.clear()
        assert digest("--resend") == f"{YESTERDAY}: mailed to ops@example.com.\n"
        assert digest("--resend") == f"{YESTERDAY}: everybody has the mail already.\n"
        assert digest("--resend=all").endswith("ops@example.com, dev@example.com.\n")
        assert len(server.received) == 4

    def test_not_what_was_never_written(self):
        with pytest.raises(CommandError) as caught:
            digest("--resend", "--date", "2025-01-14")
        assert str(caught.value) == (
            "2025-01-14: there is nothing to send again, no mail of it is stored."
        )
