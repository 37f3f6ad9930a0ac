"""Rolling up on hosts whose clocks are wrong."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from django.db import connection
from django.utils import timezone as django_timezone

from django_safecache import reports
from django_safecache.conf import RetentionDays
from django_safecache.models import Horizon, Resolution
from django_safecache.reports import Period
from django_safecache.storage import now_at_most, roll_up
from django_safecache.storage.clocks import database_now

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def now():
    return datetime.now(timezone.utc)


def roll(moment, five_minutes=2):
    retention = RetentionDays(five_minutes=five_minutes, hour=12, day=365)
    roll_up(moment, using="default", retention=retention)


def kept_from(resolution):
    return Horizon.objects.get(resolution=resolution).kept_from


class TestNow:
    @pytest.mark.parametrize("wrong", [-3 * DAY, 3 * DAY])
    def test_it_is_the_earlier_of_the_host_and_the_database(self, monkeypatch, wrong):
        monkeypatch.setattr(django_timezone, "now", lambda: now() + wrong)
        expected = now() + min(wrong, timedelta())
        assert abs(now_at_most("default") - expected) < MINUTE

    def test_the_time_zone_of_the_connection_makes_no_difference(self):
        if connection.vendor != "sqlite":
            zone = {"mysql": "time_zone = '+05:30'", "postgresql": "TIME ZONE 'Japan'"}
            with connection.cursor() as cursor:
                cursor.execute(f"SET {zone[connection.vendor]}")
        assert abs(database_now("default") - now()) < MINUTE


class TestHorizon:
    def test_one_in_the_future_is_brought_back_to_now(self):
        """What was deleted until now is gone; from then on rows are kept again."""
        roll(now() + 30 * DAY)
        before = now()
        roll(before)
        for resolution in (Resolution.FIVE_MINUTES, Resolution.HOUR):
            start = resolution.start_of(before)
            assert kept_from(resolution) in (
                start + resolution.length,
                start + 2 * resolution.length,  # an edge was passed meanwhile
            )
        assert kept_from(Resolution.DAY) < before
        later = Period.last(hours=1, now=before + timedelta(hours=3))
        assert reports.answerable(later) == later

    def test_one_that_is_past_stays_for_what_was_deleted(self):
        roll(now())
        before = kept_from(Resolution.FIVE_MINUTES)
        roll(now(), five_minutes=30)
        assert kept_from(Resolution.FIVE_MINUTES) == before

    def test_a_host_whose_clock_is_behind_does_not_move_it(self):
        roll(now())
        before = list(Horizon.objects.order_by("resolution").values())
        roll(now() - 30 * DAY)
        assert list(Horizon.objects.order_by("resolution").values()) == before
