from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone as django_timezone
from observed import NOON, SERVER, Clock, make_failure, make_outcome
from stored import occurred, reporting

from django_safecache import reports
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models import Problem, ProblemFacet, ProblemState, Writer
from django_safecache.recording.recorder import Recorder
from django_safecache.reports import Period, Totals
from django_safecache.storage import store

UTC = timezone.utc
AT_NOON = datetime.fromtimestamp(NOON, UTC)
HOUR = timedelta(hours=1)
MINUTES = timedelta(minutes=1)
AFTERNOON = Period(AT_NOON, AT_NOON + 6 * HOUR)
OTHER_SERVER = "10.0.0.2:11211"


class Site:
    """A process that counts, under a clock that the test moves."""

    def __init__(self, **options):
        self.clock = Clock()
        self.options = {"account": lambda: self.account, **options}
        self.account = "acme"
        self.recorder = Recorder(clock=self.clock, **self.options)

    def observe(self, after=0, **changes):
        self.clock.now = NOON + after
        self.recorder.observe(make_outcome(**changes))

    def fail(self, kind="epipe", after=0, account="acme", **changes):
        self.account = account
        self.observe(after, failures=(make_failure(kind, **changes),))

    def flush(self, after=None):
        if after is not None:
            self.clock.now = NOON + after
        store(self.recorder.snapshot(), using="default", zone=UTC)


@pytest.fixture
def site(db):
    return Site()


class TestPeriod:
    def test_the_last_hours_end_with_the_bucket_that_is_being_filled(self):
        now = AT_NOON + timedelta(minutes=7, seconds=3)
        period = Period.last(hours=1, now=now)
        assert period == Period(AT_NOON - 50 * MINUTES, AT_NOON + 10 * MINUTES)

    def test_now_is_the_default(self):
        period = Period.last(hours=24)
        assert period.start < django_timezone.now() < period.end
        assert period.length == 24 * HOUR

    @pytest.mark.parametrize(
        ("day", "hours"),
        [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 1, 14), 24)],
    )
    def test_a_day_is_as_long_as_the_local_clock_makes_it(self, day, hours):
        zone = ZoneInfo("Europe/Vienna")
        period = Period.for_day(day, zone)
        assert period.length == hours * HOUR
        assert period.start.astimezone(zone).date() == day
        assert period.end == Period.for_day(day + timedelta(days=1), zone).start

    def test_days_meet_where_midnight_does_not_exist(self):
        zone = ZoneInfo("Africa/Cairo")  # clocks go from 0 to 1 on 24 April 2026
        day = Period.for_day(date(2026, 4, 24), zone)
        assert day.length == 23 * HOUR
        assert day.start == Period.for_day(date(2026, 4, 23), zone).end

    def test_the_period_before_has_the_same_length(self):
        assert AFTERNOON.before() == Period(AT_NOON - 6 * HOUR, AT_NOON)

    @pytest.mark.parametrize(
        ("start", "end", "message"),
        [
            (datetime(2026, 1, 1), AT_NOON, "a period needs aware datetimes"),  # noqa: DTZ001
            (AT_NOON, AT_NOON + MINUTES, "is not on the edge of a bucket of 0:05:00"),
            (AT_NOON, AT_NOON, "a period cannot end at"),
        ],
    )
    def test_what_buckets_cannot_answer_is_refused(self, start, end, message):
        with pytest.raises(ValueError, match=message):
            Period(start, end)


class TestTotals:
    def test_they_are_the_sums_over_places_and_writers(self, site):
        site.observe(hits=3, misses=1, lines=2, duration=0.002, bytes_sent=10)
        site.observe(after=1000, server=OTHER_SERVER, unavailable=2, duration=0.5)
        site.flush()
        other = Site()
        other.observe(after=2000, alias="sessions", hits=1, failures=(make_failure(),))
        other.flush()
        totals = reports.totals(AFTERNOON)
        assert totals == Totals(
            calls=3,
            hits=4,
            misses=1,
            lines=2,
            unavailable=2,
            bytes_sent=10,
            duration_sum=0.502,
            duration_max=0.5,
            failures={**dict.fromkeys(FAILURE_KINDS, 0), "epipe": 1},
            durations=(1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0),
        )
        assert (totals.hit_ratio, totals.errors) == (0.8, 1)
        assert totals.duration_percentile(0.5) == 0.0025

    def test_they_can_be_asked_by_alias_server_and_key_group(self, db):
        site = Site(key_groups=lambda keys: [key[0] for key in keys])
        site.observe(keys=["a1", "b1", "b2"], misses=3)
        site.observe(alias="sessions", server=OTHER_SERVER, keys=["a1"], misses=1)
        site.flush()
        assert reports.totals(AFTERNOON, alias="sessions").misses == 1
        assert reports.totals(AFTERNOON, server=SERVER).misses == 3
        assert reports.totals(AFTERNOON, key_group="a").misses == 2
        assert reports.totals(AFTERNOON, key_group="b", alias="default").misses == 2

    @pytest.mark.parametrize(
        "name", ["x" * 300, "x" * 299 + "y", "two\nlines", "\udc80"], ids=ascii
    )
    def test_names_that_are_stored_shortened_are_asked_in_full(self, db, name):
        site = Site(key_groups=list)
        site.observe(alias=name, server=name, keys=[name], hits=1)
        site.observe(hits=10)
        site.flush()
        for asked in ("alias", "server", "key_group"):
            assert reports.totals(AFTERNOON, **{asked: name}).hits == 1
        (stored,) = {row.alias for row in reports.by_server(AFTERNOON)} - {"default"}
        assert reports.totals(AFTERNOON, alias=stored).hits == 1

    def test_the_end_is_exclusive(self, site):
        for after in (-1, 0, 3599, 3600):
            site.observe(after=after, hits=1)
        site.flush()
        assert reports.totals(Period(AT_NOON, AT_NOON + HOUR)).hits == 2

    def test_loaders_add_what_they_loaded_but_no_calls_to_servers(self, site):
        site.observe(duration=0.001, lost="k", unavailable=1)
        site.observe(server="", operation="load", loaded=1, duration=3.0)
        site.flush()
        totals = reports.totals(AFTERNOON)
        assert (totals.loaded, totals.calls, totals.duration_max) == (1, 1, 0.001)
        loaders = reports.totals(AFTERNOON, server="")
        assert (loaders.loaded, loaders.calls, loaders.duration_max) == (1, 1, 3.0)

    def test_only_loads_are_still_telemetry(self, site):
        site.observe(server="", operation="load", loaded=1, duration=3.0)
        site.flush()
        assert reports.totals(AFTERNOON) == Totals(loaded=1)

    @pytest.mark.django_db
    def test_no_telemetry_is_none(self):
        assert reports.totals(AFTERNOON) is None

    def test_a_process_that_reported_nothing_makes_it_zero(self, site):
        site.flush(after=60)
        assert reports.totals(AFTERNOON) == Totals()
        assert reports.totals(AFTERNOON.before()) is None

    def test_without_answers_there_is_no_hit_ratio(self):
        assert Totals(unavailable=5).hit_ratio is None


class TestByServer:
    def test_each_alias_and_server_has_its_sums_loaders_too(self, site):
        site.observe(hits=1)
        site.observe(alias="sessions", hits=2)
        site.observe(server=OTHER_SERVER, hits=3)
        site.observe(server="", operation="load", loaded=4)
        site.observe(after=600, hits=1)
        site.flush()
        rows = [
            (
                row.alias,
                row.server,
                row.totals.hits,
                row.totals.loaded,
                row.totals.calls,
            )
            for row in reports.by_server(AFTERNOON)
        ]
        assert rows == [
            ("default", "", 0, 4, 1),
            ("default", SERVER, 2, 0, 2),
            ("default", OTHER_SERVER, 3, 0, 1),
            ("sessions", SERVER, 2, 0, 1),
        ]

    @pytest.mark.django_db
    def test_nothing_is_no_server(self):
        assert reports.by_server(AFTERNOON) == []


class TestSeries:
    def test_steps_add_their_buckets_up(self, site):
        for after in (0, 1200, 3599, 3600):
            site.observe(after=after, hits=1, duration=0.001 * (after + 1))
        site.flush()
        points = reports.series(AFTERNOON, step=HOUR)
        assert [point.start for point in points] == [
            AT_NOON + index * HOUR for index in range(6)
        ]
        assert points[0].totals.hits == 3
        assert points[0].totals.duration_max == 3.6
        assert points[1].totals.hits == 1

    def test_zero_is_not_no_data(self, site):
        site.observe(after=0, hits=1)
        site.flush(after=4000)
        points = reports.series(AFTERNOON, step=HOUR, alias="sessions")
        assert [point.totals for point in points] == [Totals(), Totals(), *[None] * 4]

    def test_a_filter_and_a_shorter_last_step(self, site):
        site.observe(hits=1)
        site.observe(server=OTHER_SERVER, hits=5)
        site.flush()
        period = Period(AT_NOON, AT_NOON + 90 * MINUTES)
        points = reports.series(period, step=HOUR, server=OTHER_SERVER)
        assert len(points) == 2
        assert points[0].totals.hits == 5

    @pytest.mark.parametrize("step", [timedelta(), timedelta(minutes=7), -HOUR])
    def test_a_step_must_be_whole_buckets(self, step):
        with pytest.raises(ValueError, match=r"is not a multiple of 0:05:00"):
            reports.series(AFTERNOON, step=step)


class TestProblems:
    def test_most_occurrences_come_first_with_what_they_have_in_common(self, site):
        site.fail("timeout", exception="builtins.TimeoutError", errno=None, text="slow")
        for number in range(3):
            site.fail(after=number * 400, account=f"account {number % 2}")
        site.fail(after=60, server=OTHER_SERVER)
        site.flush()
        epipe, timeout = reports.problems(AFTERNOON)
        assert (epipe.kind, epipe.count, epipe.accounts) == ("epipe", 4, 3)
        assert epipe.servers == (SERVER, OTHER_SERVER)
        assert [site.partition(":")[0] for site in epipe.call_sites] == [__name__]
        assert epipe.first_seen == AT_NOON
        assert epipe.last_seen == AT_NOON + timedelta(seconds=800)
        assert epipe.state == ProblemState.OPEN
        assert epipe.problem_id == Problem.objects.get(kind="epipe").pk
        assert (timeout.kind, timeout.count, timeout.message) == ("timeout", 1, "slow")

    def test_only_the_period_is_counted(self, site):
        for after in (-1, 0, 6 * 3600):
            site.fail(after=after)
        site.flush()
        (row,) = reports.problems(AFTERNOON)
        assert row.count == 1
        assert row.last_seen == AFTERNOON.end

    def test_accounts_of_other_days_are_not_counted(self, site):
        site.fail(after=-86400, account="yesterday's")
        site.fail(account="today's")
        site.flush()
        today = Period.for_day(date(2026, 1, 14), UTC)
        assert [row.accounts for row in reports.problems(today)] == [1]

    def test_a_call_site_of_several_days_is_one_and_the_first_ten_are_told(self, db):
        problem = occurred(AT_NOON, call_sites=[f"a:{n:02}" for n in range(12)])
        for facet, value in (("call_site", "a:00"), ("account", "acme")):
            for day in (13, 14):
                ProblemFacet.objects.get_or_create(
                    problem=problem, facet=facet, value=value, day=date(2026, 1, day)
                )
        (row,) = reports.problems(Period(AT_NOON - 24 * HOUR, AT_NOON + HOUR))
        assert row.call_sites == tuple(f"a:{n:02}" for n in range(10))
        assert row.accounts == 1

    @pytest.mark.parametrize(
        ("muted", "told"), [(-25, "muted"), (1, "new")], ids=["before", "within"]
    )
    def test_what_was_muted_then_stays_so_when_a_later_occurrence_opens_it(
        self, site, muted, told
    ):
        site.fail(after=60)
        site.flush()
        Problem.objects.update(
            state=ProblemState.MUTED,
            muted_at=AT_NOON + muted * HOUR,
            muted_until=AFTERNOON.end,
        )
        assert [row.status for row in reports.problems(AFTERNOON)] == [told]
        site.fail(after=6 * 3600)
        site.flush()
        assert Problem.objects.get().state == ProblemState.OPEN
        assert [row.status for row in reports.problems(AFTERNOON)] == [told]
        later = Period(AFTERNOON.end, AFTERNOON.end + HOUR)
        assert [row.status for row in reports.problems(later)] == ["ongoing"]

    def test_the_number_of_rows_is_limited(self, site):
        for kind in FAILURE_KINDS:
            site.fail(kind)
        site.flush()
        assert len(reports.problems(AFTERNOON, limit=5)) == 5

    def test_the_queries_do_not_grow_with_the_problems(
        self, site, django_assert_num_queries
    ):
        for kind in FAILURE_KINDS:
            site.fail(kind)
        site.flush()
        with django_assert_num_queries(10):
            reports.problems(AFTERNOON)

    @pytest.mark.parametrize(
        ("before", "count", "expected"),
        [
            ({}, 10, "new"),
            ({1: 3}, 9, "ongoing"),  # too few to say
            ({1: 3}, 10, "escalating"),
            ({1: 4}, 12, "ongoing"),  # just three times the mean of a single day
            ({14: 140}, 30, "ongoing"),  # 10 a day
            ({14: 140}, 31, "escalating"),
            ({14: 0, 15: 1000}, 10, "escalating"),  # too long ago
        ],
    )
    def test_much_more_than_usual_is_escalating(self, site, before, count, expected):
        reporting(AT_NOON - timedelta(days=20), AT_NOON)
        for days, times in {days: before[days] for days in sorted(before)}.items():
            for _ in range(times):
                site.fail(after=-days * 86400)
            site.flush()
        site = Site()
        for _ in range(count):
            site.fail(after=60)
        site.flush()
        (row,) = reports.problems(Period(AT_NOON, AT_NOON + 24 * HOUR))
        assert (row.status, row.count) == (expected, count)

    def test_what_is_usual_is_told_for_as_long_as_the_period(self, site):
        reporting(AT_NOON - timedelta(days=20), AT_NOON)
        for days in (3, 1):
            for _ in range(24 * days):
                site.fail(after=-days * 86400)
        site.fail(after=60)
        site.flush()
        (row,) = reports.problems(Period(AT_NOON, AT_NOON + HOUR))
        assert row.history == (*[None] * 11, 72, 0, 24)
        assert row.usual == pytest.approx((72 + 24) / 3 / 24)

    def test_a_regression_is_told_for_the_period_in_which_it_was_one(self, site):
        site.fail(after=-86400)
        site.flush()
        Problem.objects.update(state=ProblemState.RESOLVED, resolved_at=AT_NOON - HOUR)
        for after in (60, 86400 + 60):
            site.fail(after=after)
            site.flush()
        days = [
            Period(AT_NOON + days * 24 * HOUR, AT_NOON + (days + 1) * 24 * HOUR)
            for days in (-1, 0, 1)
        ]
        told = [row.status for day in days for row in reports.problems(day)]
        assert told == ["new", "regressed", "ongoing"]

    @pytest.mark.django_db
    def test_no_problem_is_no_row(self):
        assert reports.problems(AFTERNOON) == []


class TestWriters:
    @pytest.fixture
    def writer(self, db):
        def make(name, ago, **changes):
            now = django_timezone.now()
            values = {"host": "web-1", "pid": 17, "started": now - HOUR, **changes}
            return Writer.objects.create(name=name, last_flush=now - ago, **values)

        return make

    def test_a_writer_is_stale_after_a_minute_or_six_flushes(self, writer, settings):
        writer("fresh", timedelta(seconds=30))
        writer("stale", timedelta(seconds=90))
        assert [(w.writer, w.stale) for w in reports.writers()] == [
            ("fresh", False),
            ("stale", True),
        ]
        settings.SAFECACHE = {"FLUSH_INTERVAL": 60}
        assert [w.stale for w in reports.writers()] == [False, False]

    def test_its_troubles_are_told(self, writer):
        writer("w", timedelta(), dropped=2, flush_errors=3)
        (status,) = reports.writers()
        assert (status.host, status.pid) == ("web-1", 17)
        assert (status.dropped, status.flush_errors) == (2, 3)

    def test_who_ended_orderly_or_long_ago_is_not_listed(self, writer):
        writer("ended", timedelta(), ended=django_timezone.now())
        writer("long gone", timedelta(days=2))
        assert reports.writers() == []
