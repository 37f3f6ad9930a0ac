"""The rows that stand for what is counted apart: created, kept up to date, pruned."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from observed import NOON, Clock, make_outcome

from django_safecache import reports
from django_safecache.conf import RetentionDays
from django_safecache.models import CacheDigest, CachePlace
from django_safecache.recording.recorder import Recorder
from django_safecache.reports import Period
from django_safecache.storage import roll_up, store

pytestmark = pytest.mark.django_db

UTC = timezone.utc
AT_NOON = datetime.fromtimestamp(NOON, UTC)
DAY = timedelta(days=1)
MIDNIGHT = AT_NOON + DAY / 2
RETENTION = RetentionDays(five_minutes=2, hour=21, day=365)
# A server that is asked for one key group.
PLACES = 3


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recorder(clock):
    return Recorder(clock=clock)


def count(recorder, clock, *servers, **changes):
    """Count a hit, or more, on each and store it."""
    for server in servers or ("a:1",):
        recorder.observe(make_outcome(server=server, **{"hits": 1, **changes}))
    clock.now += 300
    for _ in range(2):
        snapshot = recorder.snapshot()
        store(snapshot, using="default", zone=UTC)
        recorder.forget(snapshot)


def roll(clock):
    now = datetime.fromtimestamp(clock.now, UTC)
    return roll_up(now, using="default", retention=RETENTION)


def is_update(query):
    return query.startswith("UPDATE") and "cacheplace" in query


def counted_until():
    return set(CachePlace.objects.values_list("counted_until", flat=True))


class TestCountedUntil:
    def test_no_row_of_a_place_or_of_its_sums_begins_then_or_later(
        self, recorder, clock
    ):
        for _ in range(3):
            count(recorder, clock)
            roll(clock)
            clock.now += 86_400
        for row in CacheDigest.objects.select_related("place"):
            assert row.bucket < row.place.counted_until
        assert counted_until() == {MIDNIGHT + 2 * DAY}

    def test_it_does_not_move_back_for_what_is_stored_late(self, recorder, clock):
        late = Recorder(clock=clock)
        late.observe(make_outcome(server="a:1", hits=1))
        clock.now += 86_400
        count(recorder, clock)
        store(late.snapshot(), using="default", zone=UTC)
        assert counted_until() == {MIDNIGHT + DAY}

    def test_it_is_said_once_a_day(self, recorder, clock):
        count(recorder, clock)
        with CaptureQueriesContext(connection) as queries:
            count(recorder, clock)
        assert not any(is_update(query["sql"]) for query in queries)

    def test_a_place_that_is_deleted_before_it_is_said_is_created_anew(
        self, recorder, clock
    ):
        count(recorder, clock)
        clock.now += 86_400

        def prune(execute, query, *arguments):
            if is_update(query):
                CachePlace.objects.filter(counted_until=MIDNIGHT)._raw_delete("default")
            return execute(query, *arguments)

        with connection.execute_wrapper(prune):
            count(recorder, clock)
        assert counted_until() == {MIDNIGHT + DAY}
        assert CacheDigest.objects.filter(place__counted_until=MIDNIGHT + DAY).exists()


class TestPruning:
    def test_a_place_goes_a_month_after_its_last_row(self, recorder, clock):
        count(recorder, clock, "a:1")
        roll(clock)
        for days, kept in ((367, 2), (31, 1)):
            clock.now += days * 86_400
            count(recorder, clock, "b:1")
            roll(clock)
            servers = CachePlace.objects.filter(together="").values_list("server")
            assert servers.count() == kept
        assert not CacheDigest.objects.exclude(place__in=CachePlace.objects.all())

    def test_one_that_rows_are_kept_of_stays(self, recorder, clock):
        count(recorder, clock)
        clock.now += 364 * 86_400
        roll(clock)
        assert CacheDigest.objects.exists()
        assert CachePlace.objects.count() == PLACES

    def test_so_does_one_that_a_writer_comes_back_to_meanwhile(self, recorder, clock):
        count(recorder, clock)
        roll(clock)
        clock.now += 500 * 86_400
        left = [lambda: count(recorder, clock, hits=7)]

        def come_back(execute, query, *arguments):
            if query.startswith("DELETE") and "cacheplace" in query:
                left.pop()()
            return execute(query, *arguments)

        with connection.execute_wrapper(come_back):
            roll(clock)
        assert CachePlace.objects.count() == PLACES
        (row,) = CacheDigest.objects.select_related("place")
        assert (row.hits, row.place.server) == (7, "a:1")

    def test_how_many_were_deleted_is_said(self, recorder, clock):
        count(recorder, clock)
        roll(clock)
        clock.now += 500 * 86_400
        rows = CacheDigest.objects.count()
        writers = 1
        assert roll(clock).pruned == rows + writers + PLACES
        assert not CachePlace.objects.exists()

    def test_one_that_is_counted_again_is_found_again(self, recorder, clock):
        count(recorder, clock)
        clock.now += 500 * 86_400
        roll(clock)
        count(recorder, clock, hits=7)
        roll(clock)
        period = Period.last(hours=1, now=datetime.fromtimestamp(clock.now, UTC))
        assert reports.totals(period, server="a:1").hits == 7


@contextmanager
def most_asked(at_most):
    """How many ids, names and moments a query is given."""
    given = []

    def note(execute, query, parameters, *arguments):
        given.append(len(parameters or ()))
        return execute(query, parameters, *arguments)

    with connection.execute_wrapper(note):
        yield
    assert max(given) <= at_most


class TestCost:
    """It does not grow with the places of the days before."""

    @pytest.fixture
    def today(self, recorder, clock):
        count(recorder, clock, *(f"{number}:1" for number in range(500)))
        roll(clock)
        clock.now += 86_400
        count(recorder, clock, "new:1")
        return Period(MIDNIGHT, MIDNIGHT + DAY)

    @pytest.mark.usefixtures("today")
    def test_of_folding(self, clock):
        # The columns of the rows that are written.
        with most_asked(8 * 47):
            assert roll(clock).folded == 1

    @pytest.mark.parametrize("rolled", [False, True])
    def test_of_reports(self, today, clock, rolled):
        if rolled:
            roll(clock)
        with most_asked(50):
            (only,) = reports.by_server(today)
            assert (only.server, only.totals.hits) == ("new:1", 1)
            assert reports.totals(today).hits == 1
            assert reports.totals(today, alias="default").hits == 1
            assert [row.totals.hits for row in reports.by_key_group(today)] == [1]
