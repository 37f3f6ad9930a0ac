"""What reports say after rows were rolled up and pruned."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from observed import NOON, SERVER, Clock, make_failure, make_outcome
from stored import reporting, shared

from django_safecache import reports
from django_safecache.conf import RetentionDays
from django_safecache.models import Resolution
from django_safecache.recording.recorder import Recorder
from django_safecache.reports import Period, Totals, processes
from django_safecache.reports.rows import longest_in, rows_rolled_up
from django_safecache.storage import roll_up, store

UTC = timezone.utc
AT_NOON = datetime.fromtimestamp(NOON, UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
OTHER_SERVER = "10.0.0.2:11211"


class Site:
    """A process that counts a hit now and then on the three days before noon."""

    # In buckets at every distance from the hour.
    EVERY = 35 * MINUTE

    def __init__(self):
        self.clock = Clock(NOON - 3 * 86_400)
        self.recorder = Recorder(
            clock=self.clock, key_groups=lambda keys: [key[0] for key in keys]
        )
        self.counted = [AT_NOON - index * self.EVERY for index in range(123, 0, -1)]
        for moment in self.counted:
            self.clock.now = moment.timestamp()
            self.count(hits=1)
        self.clock.now = NOON
        self.flush()

    def hits(self, period):
        """How many were counted in the period, or in a point of a series."""
        return sum(period.start <= moment < period.end for moment in self.counted)

    def count(self, key="a1", **changes):
        self.recorder.observe(make_outcome(keys=[key], **changes))

    def flush(self):
        for _ in range(2):
            snapshot = self.recorder.snapshot()
            store(snapshot, using="default", zone=UTC)
            self.recorder.forget(snapshot)

    def roll(self, five_minutes=365, hour=365, day=365, now=AT_NOON):
        retention = RetentionDays(five_minutes=five_minutes, hour=hour, day=day)
        roll_up(now, using="default", retention=retention)


@pytest.fixture
def site(db):
    return Site()


ROLLED_UP = {
    "not rolled up": None,
    "rolled up": {},
    "a day kept": {"five_minutes": 1},
    "a day and hours kept": {"five_minutes": 1, "hour": 1},
    "two days at all kept": {"five_minutes": 1, "hour": 1, "day": 2},
    "two days kept": {"five_minutes": 2},
}


@pytest.fixture(scope="class")
def shared_site(request, django_db_setup, django_db_blocker):
    """One of `ROLLED_UP`, for neighbours that only read: to make it takes longer than
    the tests."""

    def store():
        site, days = Site(), ROLLED_UP[request.param]
        if days is not None:
            site.roll(**days)
        return site

    with shared(django_db_blocker, store) as site:
        yield site


@pytest.fixture
def kept(db, shared_site):
    return shared_site


def of(*names):
    # One worker makes it, for all of a class.
    params = [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in names]
    return pytest.mark.parametrize("shared_site", params, indirect=True)


@of("not rolled up", "rolled up")
class TestAnswers:
    @pytest.mark.parametrize(
        ("start", "end"),
        [
            (AT_NOON - 5 * MINUTE, AT_NOON),
            (AT_NOON - 3 * HOUR, AT_NOON - 65 * MINUTE),
            (AT_NOON - 40 * HOUR, AT_NOON - 1 * HOUR),
            (AT_NOON - 2 * DAY - 25 * MINUTE, AT_NOON - 10 * MINUTE),
            (AT_NOON - 60 * HOUR, AT_NOON - 12 * HOUR),
        ],
    )
    def test_they_are_the_same_whether_rolled_up_or_not(self, kept, start, end):
        period = Period(start, end)
        assert reports.answerable(period) == period
        assert reports.totals(period).hits == kept.hits(period)
        assert reports.totals(period, key_group="a").hits == kept.hits(period)
        assert reports.totals(period, server=SERVER).hits == kept.hits(period)
        for step in (5 * MINUTE, HOUR, 7 * HOUR, DAY):
            points = reports.series(period, step=step)
            assert [point.totals.hits for point in points] == [
                kept.hits(point) for point in points
            ]


class TestGroups:
    @pytest.mark.parametrize("rolled", [False, True])
    def test_by_key_group_and_server(self, site, rolled):
        period = Period(AT_NOON - DAY, AT_NOON + HOUR)
        site.count("b1", server=OTHER_SERVER, hits=1000, failures=[make_failure()])
        site.count("b1", server="", operation="load", loaded=7, duration=3.0)
        site.clock.now += 300
        site.flush()
        if rolled:
            site.roll(now=AT_NOON + HOUR)
        groups = reports.by_key_group(period)
        assert [
            (row.alias, row.key_group, row.totals.hits, row.totals.loaded)
            for row in groups
        ] == [("default", "a", site.hits(period), 0), ("default", "b", 1000, 7)]
        assert groups[1].totals.calls == 1
        assert groups[1].totals.duration_max < 3.0
        (only,) = reports.by_key_group(period, server=OTHER_SERVER)
        assert (only.key_group, only.totals.hits, only.totals.errors) == ("b", 1000, 1)
        assert [(row.server, row.totals.hits) for row in reports.by_server(period)] == [
            ("", 0),
            (SERVER, site.hits(period)),
            (OTHER_SERVER, 1000),
        ]
        (problem,) = reports.problems(period)
        assert problem.count == 1


class TestRowsRead:
    def test_days_are_read_from_rows_of_days(self):
        period = Period(AT_NOON - 3 * DAY + 5 * MINUTE, AT_NOON)
        read = [
            dict(part.children)["resolution"]
            for part in rows_rolled_up(period).children
        ]
        assert sorted(read) == [5, 60, 60, 1440]

    @pytest.mark.parametrize(
        ("start", "step", "longest"),
        [
            (AT_NOON, HOUR, Resolution.HOUR),
            (AT_NOON, DAY, Resolution.HOUR),
            (AT_NOON - 12 * HOUR, 3 * DAY, Resolution.DAY),
            (AT_NOON + 5 * MINUTE, DAY, Resolution.FIVE_MINUTES),
            (AT_NOON, 90 * MINUTE, Resolution.FIVE_MINUTES),
        ],
    )
    def test_steps_are_made_of_the_longest_rows_that_fit(self, start, step, longest):
        assert longest_in(start, step) == longest


class TestPruned:
    @of("a day kept")
    def test_a_period_of_short_rows_that_are_gone_is_widened_and_says_so(self, kept):
        asked = Period(AT_NOON - 50 * HOUR - 25 * MINUTE, AT_NOON - 40 * HOUR)
        period = reports.answerable(asked)
        assert period == Period(AT_NOON - 51 * HOUR, AT_NOON - 40 * HOUR)
        assert reports.totals(asked) == reports.totals(period)
        assert reports.totals(period).hits == kept.hits(period)

    @of("a day kept")
    def test_the_edge_that_is_kept_stays_where_it_is(self, kept):
        asked = Period(AT_NOON - 50 * HOUR - 5 * MINUTE, AT_NOON - 5 * MINUTE)
        period = reports.answerable(asked)
        assert period == Period(AT_NOON - 51 * HOUR, AT_NOON - 5 * MINUTE)
        assert reports.totals(asked).hits == kept.hits(period)

    @of("a day kept")
    def test_an_answerable_period_stays_so_while_it_is_answered(self, kept):
        asked = Period(AT_NOON - 24 * HOUR + 5 * MINUTE, AT_NOON)
        period = reports.answerable(asked)
        assert period == asked
        kept.roll(five_minutes=1, now=AT_NOON + 30 * MINUTE)
        assert reports.totals(period).hits == kept.hits(period)

    @of("a day and hours kept")
    def test_where_only_days_are_left_it_is_whole_days(self, kept):
        asked = Period(AT_NOON - 50 * HOUR, AT_NOON - 49 * HOUR)
        period = reports.answerable(asked)
        assert period == Period(AT_NOON - 60 * HOUR, AT_NOON - 36 * HOUR)
        assert reports.totals(asked).hits == kept.hits(period)

    @of("a day and hours kept")
    def test_steps_become_as_long_as_the_rows(self, kept):
        asked = Period(AT_NOON - 60 * HOUR, AT_NOON - 12 * HOUR)
        points = reports.series(asked, step=5 * MINUTE)
        assert [point.end - point.start for point in points] == [DAY, DAY]
        assert [point.totals.hits for point in points] == list(map(kept.hits, points))

    @of("two days at all kept")
    def test_what_is_longer_ago_than_any_row_is_left_off(self, kept):
        asked = Period(AT_NOON - 60 * HOUR, AT_NOON)
        # The whole of the oldest day is kept.
        assert reports.answerable(asked).start == AT_NOON - 60 * HOUR
        longer = Period(AT_NOON - 300 * HOUR, AT_NOON)
        assert reports.answerable(longer).start == AT_NOON - 60 * HOUR

    @pytest.mark.parametrize(
        "zone", ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York"]
    )
    @of("two days kept")
    def test_a_local_day_is_exact_as_long_as_rows_of_five_minutes_are_kept(
        self, kept, zone
    ):
        day = Period.for_day(date(2026, 1, 13), ZoneInfo(zone))
        assert reports.answerable(day) == day
        assert reports.totals(day).hits == kept.hits(day)
        points = reports.series(day, step=HOUR)
        assert len(points) == 24
        assert [point.totals.hits for point in points] == list(map(kept.hits, points))


class TestPrunedInTheMiddleOfAnHour:
    def test_one_that_is_kept_stays_though_rows_of_its_hour_are_gone(self, site):
        site.roll(five_minutes=1, now=AT_NOON - 30 * MINUTE)
        start = AT_NOON - DAY - 30 * MINUTE
        asked = Period(start, start + 25 * MINUTE)
        assert reports.answerable(asked) == asked
        assert reports.totals(asked).hits == site.hits(asked)


class TestComparison:
    @of("rolled up")
    def test_it_is_with_the_period_of_the_same_length_before(self, kept):
        period = Period(AT_NOON - HOUR, AT_NOON)
        compared = reports.compare(period, server=SERVER)
        assert (compared.period, compared.totals.hits) == (period, kept.hits(period))
        assert compared.period_before == period.before()
        assert compared.before.hits == kept.hits(period.before())

    @of("not rolled up")
    def test_or_with_another_one(self, kept):
        before = Period(AT_NOON - 30 * HOUR, AT_NOON - 28 * HOUR)
        compared = reports.compare(Period(AT_NOON - HOUR, AT_NOON), before)
        assert (compared.period_before, compared.before.hits) == (
            before,
            kept.hits(before),
        )

    @of("a day and hours kept")
    def test_nothing_known_is_none_and_says_which_period_it_is_of(self, kept):
        compared = reports.compare(Period(AT_NOON - 9 * DAY, AT_NOON - 8 * DAY))
        assert (compared.totals, compared.before) == (None, None)
        assert compared.period.length == compared.period_before.length == 2 * DAY


class TestNoData:
    def test_rolling_up_makes_no_zero_of_no_data_nor_the_other_way(self, site):
        site.clock.now += 3 * 86_400
        site.flush()
        site.roll(five_minutes=1, hour=2, now=AT_NOON + 3 * DAY)
        assert reports.totals(Period(AT_NOON + DAY, AT_NOON + 2 * DAY)) == Totals()
        assert reports.totals(Period(AT_NOON - 9 * DAY, AT_NOON - 8 * DAY)) is None

    def test_it_is_still_known_when_the_process_is_long_gone(self, site):
        site.clock.now += 3 * 86_400
        site.flush()
        site.roll(now=AT_NOON + 60 * DAY)
        assert reports.totals(Period(AT_NOON + DAY, AT_NOON + 2 * DAY)) == Totals()
        assert reports.totals(Period(AT_NOON + 5 * DAY, AT_NOON + 6 * DAY)) is None

    def test_what_was_pruned_is_no_zero_though_processes_are_remembered(self, site):
        """Writers that are long gone are one row, which goes back further than days."""
        for days in range(1, 61):
            site.clock.now = NOON + days * 86_400
            site.count(hits=1)
            site.flush()
        site.roll(day=30, now=AT_NOON + 60 * DAY)
        month = Period(AT_NOON + 29.5 * DAY, AT_NOON + 59.5 * DAY)
        compared = reports.compare(month)
        assert (compared.totals.hits, compared.before) == (30, None)
        gone = Period(AT_NOON + 10.5 * DAY, AT_NOON + 11.5 * DAY)
        assert (reports.answerable(gone), reports.totals(gone)) == (gone, None)
        assert [point.totals for point in reports.series(gone, step=DAY)] == [None]

    def test_many_short_processes_are_one_time_in_which_some_reported(self, db):
        """Unless a bucket fits in between them."""
        for minute in (0, 3, 8, 20):
            start = AT_NOON + minute * MINUTE
            reporting(start, start + MINUTE, name=f"at {minute}")
        reporting(AT_NOON, AT_NOON + 6 * MINUTE)
        spans = processes.reporting(Period(AT_NOON, AT_NOON + HOUR))
        assert spans == [
            (AT_NOON, AT_NOON + 9 * MINUTE),
            (AT_NOON + 20 * MINUTE, AT_NOON + 21 * MINUTE),
        ]
