from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone as django_timezone
from stored import counted, reporting

from django_safecache.models import CacheDigest, Horizon, Resolution

NOW = datetime.now(timezone.utc)


def rollup():
    output = io.StringIO()
    call_command("safecache_rollup", stdout=output)
    return output.getvalue()


@pytest.mark.django_db
class TestCommand:
    def test_it_says_what_it_did(self):
        writer = reporting(NOW - timedelta(hours=2), NOW - timedelta(hours=1))
        writer.settled = NOW
        writer.save()
        counted(NOW - timedelta(hours=1), hits=1)
        counted(NOW - timedelta(days=9), hits=1, resolution=60, writer="")
        counted(NOW - timedelta(days=90), hits=1, resolution=60, writer="")
        assert rollup() == "1 rows rolled up, 1 rows past retention deleted.\n"
        assert rollup() == "0 rows rolled up, 0 rows past retention deleted.\n"
        assert not CacheDigest.objects.filter(writer__gt="").exists()

    def test_it_obeys_the_setting(self, settings):
        settings.SAFECACHE = {"RETENTION_DAYS": {"hour": 100}}
        counted(NOW - timedelta(days=90), hits=1, resolution=60, writer="")
        assert rollup() == "0 rows rolled up, 0 rows past retention deleted.\n"

    def test_a_host_whose_clock_is_ahead_takes_nobody_for_dead(self, monkeypatch):
        """Nor what is new for old: the database's clock is right."""
        reporting(NOW - timedelta(hours=2), NOW)
        counted(NOW, hits=1)
        counted(NOW, hits=1, resolution=60, writer="")
        ahead = NOW + timedelta(days=30)
        monkeypatch.setattr(django_timezone, "now", lambda: ahead)
        assert rollup() == "0 rows rolled up, 0 rows past retention deleted.\n"
        assert CacheDigest.objects.count() == 2
        kept = Horizon.objects.get(resolution=Resolution.HOUR).kept_from
        assert kept < NOW


@pytest.fixture
def no_table():
    """One is missing, on a database whose transactions do not undo that as well."""
    table = Horizon._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO hidden")
        yield
        cursor.execute(f"ALTER TABLE hidden RENAME TO {table}")


@pytest.mark.django_db(transaction=True)
def test_a_database_that_fails_is_told_and_is_a_failure(no_table):
    with pytest.raises(CommandError) as caught:
        rollup()
    assert caught.value.returncode == 1
    assert str(caught.value).startswith(
        "The database 'default' failed, and what is left will be done by the next run: "
    )
