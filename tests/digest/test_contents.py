from __future__ import annotations

from datetime import date, timedelta

import pytest
from stored import at, counted, occurred, reporting

from django_safecache.digest.contents import compose
from django_safecache.digest.rendering import render
from django_safecache.models import Horizon, Resolution

pytestmark = pytest.mark.django_db

DAY = date(2025, 1, 14)
NOON = at(2025, 1, 14, 12)


def berlin(settings):
    settings.SAFECACHE = {"DIGEST": {"TIME_ZONE": "Europe/Berlin"}}


class TestDay:
    def test_it_is_the_local_day_to_the_minute(self, settings):
        berlin(settings)
        counted(at(2025, 1, 13, 22, 55), hits=1)
        counted(at(2025, 1, 13, 23, 0), hits=10)
        counted(at(2025, 1, 14, 22, 55), hits=100)
        counted(at(2025, 1, 14, 23, 0), hits=1000)
        digest = compose(DAY)
        assert digest.totals.hits == 110
        assert digest.before.hits == 1

    def test_without_a_zone_of_its_own_the_site_s_is_used(self, settings):
        settings.TIME_ZONE = "Asia/Tokyo"
        assert compose(DAY).period.start == at(2025, 1, 13, 15)

    def test_a_day_when_clocks_go_forward_has_23_hours(self, settings):
        berlin(settings)
        counted(at(2025, 3, 29, 23, 0), hits=1)
        counted(at(2025, 3, 30, 21, 55), hits=2)
        counted(at(2025, 3, 30, 22, 0), hits=4)
        digest = compose(date(2025, 3, 30))
        assert digest.totals.hits == 3
        assert len(digest.hours) == 23

    def test_a_day_when_clocks_go_back_has_25_hours(self, settings):
        berlin(settings)
        counted(at(2025, 10, 25, 22, 0), hits=1)
        counted(at(2025, 10, 26, 22, 55), hits=2)
        counted(at(2025, 10, 26, 23, 0), hits=4)
        digest = compose(date(2025, 10, 26))
        assert digest.totals.hits == 3
        assert len(digest.hours) == 25

    def test_a_zone_half_an_hour_off_is_divided_at_its_own_hours(self, settings):
        settings.SAFECACHE = {"DIGEST": {"TIME_ZONE": "Asia/Kolkata"}}
        counted(at(2025, 1, 13, 18, 30), hits=5)
        digest = compose(DAY)
        assert len(digest.hours) == 24
        assert digest.hours[0].totals.hits == 5

    def test_a_day_before_that_is_known_as_part_of_longer_times_only_is_no_data(
        self, settings
    ):
        """Two days would be compared with one, or hours of one with the other."""
        settings.SAFECACHE = {"DIGEST": {"TIME_ZONE": "Asia/Kolkata"}}
        for hour in range(72):
            counted(at(2025, 1, 12) + timedelta(hours=hour), hits=1)
        assert compose(DAY).before.hits == 24
        Horizon.objects.update_or_create(
            resolution=Resolution.FIVE_MINUTES,
            defaults={"kept_from": at(2025, 1, 13, 12)},
        )
        digest = compose(DAY)
        assert (digest.totals.hits, digest.before) == (24, None)


class TestSilence:
    def test_a_day_nobody_reported_on_has_no_totals(self):
        digest = compose(DAY)
        assert digest.totals is None
        assert digest.is_empty

    def test_silence_is_told_where_processes_have_reported_before(self):
        """It may be the telemetry that is broken: no mail would read as health."""
        reporting(at(2025, 1, 10), at(2025, 1, 12))
        digest = compose(DAY)
        assert digest.totals is None
        assert not digest.is_empty

    def test_a_day_without_calls_is_zero_and_empty(self):
        reporting(at(2025, 1, 13), at(2025, 1, 16))
        digest = compose(DAY)
        assert digest.totals.errors == 0
        assert digest.is_empty

    def test_a_day_of_hits_alone_is_not_empty(self):
        counted(NOON, hits=1)
        assert not compose(DAY).is_empty

    def test_an_exception_of_the_site_is_enough(self):
        occurred(NOON, kind="application", server="")
        digest = compose(DAY)
        assert digest.totals is None
        assert not digest.is_empty

    def test_hours_nobody_reported_in_are_known(self):
        reporting(at(2025, 1, 14, 6), at(2025, 1, 14, 18))
        silent = [point.totals is None for point in compose(DAY).hours]
        assert silent == [True] * 6 + [False] * 13 + [True] * 5


class TestProblems:
    def test_they_are_told_as_new_regressed_escalating_or_ongoing(self):
        long_ago = NOON - timedelta(days=40)
        reporting(long_ago, NOON)
        occurred(NOON, exception="a")
        occurred(NOON, exception="b", first_seen=long_ago, regressed_at=NOON)
        occurred(NOON, exception="b2", first_seen=long_ago, count=10)
        occurred(NOON, exception="c", first_seen=long_ago)
        occurred(NOON, exception="d", state="resolved", first_seen=long_ago)
        occurred(NOON, exception="e", state="muted", first_seen=long_ago)
        digest = compose(DAY)
        told = [
            [row.exception for row in rows]
            for rows in (
                digest.new,
                digest.regressed,
                digest.escalating,
                digest.ongoing,
            )
        ]
        assert told == [["a"], ["b"], ["b2"], ["c", "d"]]
        assert digest.muted == 1

    def test_many_that_occur_more_often_hide_no_new_one(self):
        long_ago = NOON - timedelta(days=40)
        for _ in range(60):
            occurred(NOON, kind="browser", first_seen=long_ago, count=2)
        for _ in range(3):
            occurred(NOON, kind="application", exception="payments.ChargedTwice")
        mail = render(compose(DAY))
        assert mail.subject.endswith("3 new, 3 exceptions, 120 browser errors")
        assert mail.text.count("payments.ChargedTwice") == 3
        assert "Ongoing (60)" in mail.text
        assert "... and 13 more." in mail.text

    def test_those_of_other_days_are_not(self):
        occurred(NOON - timedelta(days=1))
        occurred(NOON + timedelta(days=1))
        assert compose(DAY).is_empty

    def test_their_texts_are_made_harmless(self):
        occurred(NOON, message="\x1b[2J\r\n" + "x" * 400, call_sites=["a\nb"])
        (row,) = compose(DAY).new
        assert row.message.startswith("�[2J xxx")
        assert len(row.message) == 200
        assert row.call_sites == ("a b",)


class TestServers:
    def test_the_one_with_most_failures_is_first_and_loaders_are_none(self):
        counted(NOON, server="a:1", epipe=1)
        counted(NOON, server="b:1", timeout=5)
        counted(NOON, server="", loaded=9, duration_sum=1.5)
        digest = compose(DAY)
        assert [entry.server for entry in digest.servers] == ["b:1", "a:1"]
        assert digest.loaders.loaded == 9
        assert digest.loaders.duration_sum == 1.5
