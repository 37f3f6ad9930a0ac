"""What problems are compared with, when rows of hours are kept for some weeks only."""

from __future__ import annotations

from datetime import date, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone
from stored import at, reporting, shared

from django_safecache import reports
from django_safecache.conf import RetentionDays
from django_safecache.models import Problem, ProblemCount, Resolution, Writer
from django_safecache.reports import Period
from django_safecache.reports.days_before import DaysBefore
from django_safecache.storage import roll_up

pytestmark = pytest.mark.django_db

NOW = at(2025, 11, 24, 0, 10)
NOON = at(2025, 11, 24, 12)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _now(monkeypatch):
    monkeypatch.setattr(timezone, "now", lambda: NOW)


def occurred_every_day(days, *, count=100):
    """A problem that was seen first long ago, and `count` times at each noon since."""
    problem = Problem.objects.create(
        fingerprint="often", first_seen=NOW - 400 * DAY, last_seen=NOW - DAY
    )
    for number in range(1, days + 1):
        ProblemCount.objects.create(
            problem=problem,
            resolution=Resolution.FIVE_MINUTES,
            bucket=NOON - number * DAY,
            writer="w",
            count=count,
        )
    Writer.objects.create(
        name="w", host="h", pid=1, started=NOW - 400 * DAY, last_flush=NOW, settled=NOW
    )


def roll(hour=12, day=365):
    retention = RetentionDays(five_minutes=2, hour=hour, day=day)
    roll_up(NOW, using="default", retention=retention)


@pytest.fixture(scope="class")
def rolled_up(django_db_setup, django_db_blocker):
    """Once for all tests of a class: in no time zone, and it takes a while."""

    def store():
        occurred_every_day(120)
        roll()

    with shared(django_db_blocker, store):
        yield


@pytest.mark.xdist_group("rolled up every day")
@pytest.mark.usefixtures("rolled_up")
class TestTheSameEveryDay:
    @pytest.mark.parametrize(
        ("hours", "whole", "known"),
        [
            (1, Resolution.FIVE_MINUTES, 14),
            (24, Resolution.HOUR, 14),
            (7 * 24, Resolution.HOUR, 14),
            (7 * 24 - 5, Resolution.HOUR, 13),  # hours are kept for 20 days
            (90 * 24, Resolution.DAY, 14),  # of UTC
        ],
    )
    @pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
    def test_it_is_as_usual_in_every_period(self, settings, hours, whole, known, zone):
        settings.SAFECACHE = {"DIGEST": {"TIME_ZONE": zone}}
        period = reports.answerable(Period.last(hours=hours, now=NOW, whole=whole))
        for row in reports.problems(period):
            assert row.status == "ongoing"
            assert row.history == (*[None] * (14 - known), *[100] * known)
            assert row.usual == pytest.approx(100 * (period.length / DAY))


class TestHoursKept:
    @pytest.mark.parametrize("hour", [1, 7, 12])
    def test_a_day_is_as_usual_however_long_hours_are(self, hour):
        occurred_every_day(60)
        roll(hour=hour)
        yesterday = Period.for_day(date(2025, 11, 23), ZoneInfo("UTC"))
        (row,) = reports.problems(yesterday)
        assert (row.status, row.history) == ("ongoing", (100,) * 14)


class TestTooFewDays:
    @pytest.mark.parametrize(
        ("ago", "status"), [(18 * DAY, "ongoing"), (17 * DAY, "escalating")]
    )
    def test_nothing_escalates(self, ago, status):
        """Of the days before, rows of hours are there of two, and of three."""
        occurred_every_day(40, count=1)
        ProblemCount.objects.filter(bucket=NOON - ago).update(count=100)
        roll(hour=18)
        (row,) = reports.problems(Period(NOON - ago, NOON - ago + DAY))
        assert (row.status, row.usual) == (status, 1)

    def test_without_any_an_old_problem_is_not_new(self):
        occurred_every_day(60)
        roll(day=30)
        (row,) = reports.problems(Period(NOON - 30 * DAY, NOON - 29 * DAY))
        assert (row.status, row.usual) == ("ongoing", None)
        assert row.history == (None,) * 14


class TestClocks:
    @pytest.mark.parametrize("hour", [0, 1])
    def test_in_the_hour_that_comes_twice_the_days_end_where_the_period_starts(
        self, settings, hour
    ):
        settings.SAFECACHE = {"DIGEST": {"TIME_ZONE": "Europe/Berlin"}}
        moment = at(2025, 10, 26, hour)
        days = DaysBefore.of(moment).days
        assert days[-1].end == moment
        assert days[-1].start == at(2025, 10, 25)
        assert len(days) == 14


class TestWholeHours:
    """An hour that the period begins in is one row, once it is rolled up."""

    @pytest.mark.parametrize("rolled", [False, True])
    @pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Asia/Kathmandu"])
    @pytest.mark.parametrize("minutes", [5, 30, 55])
    def test_nothing_of_the_period_is_told_as_of_the_day_before(
        self, settings, zone, minutes, rolled
    ):
        settings.SAFECACHE = {"DIGEST": {"TIME_ZONE": zone}}
        occurred_every_day(13, count=1)
        hour = NOON - 2 * DAY
        for after, count in ((-5, 20), (0, 300), (minutes, 4000)):
            ProblemCount.objects.create(
                problem=Problem.objects.get(),
                resolution=Resolution.FIVE_MINUTES,
                bucket=hour + timedelta(minutes=after),
                alias="sessions",
                writer="w",
                count=count,
            )
        if rolled:
            roll()
        start = hour + timedelta(minutes=minutes)
        (row,) = reports.problems(Period(start, start + timedelta(hours=1)))
        assert (row.count, row.history[-1]) == (4000, 21)
        assert row.status == "escalating"


class TestSilence:
    """A day on which no process reported is no day without occurrences."""

    @pytest.fixture
    def problem(self):
        """It occurred 12 times yesterday."""
        occurred_every_day(1, count=12)
        return Problem.objects.get()

    def yesterday(self):
        return reports.problems(Period(NOW.replace(minute=0) - DAY, NOW))[0]

    def test_nothing_is_known_of_it(self, problem):
        Writer.objects.update(started=NOW - DAY)
        reporting(NOW - 20 * DAY, NOW - 19 * DAY, name="old")
        row = self.yesterday()
        assert (row.history, row.usual) == ((None,) * 14, None)
        assert row.status == "ongoing"

    @pytest.mark.parametrize(
        ("days", "status"), [(3, "ongoing"), (4, "escalating")], ids=["2", "3"]
    )
    def test_of_fewer_than_three_days_nothing_escalates(self, problem, days, status):
        Writer.objects.update(started=NOW - days * DAY)
        row = self.yesterday()
        assert row.status == status
        assert row.history == (*[None] * (15 - days), *[0] * (days - 1))
