from __future__ import annotations

import os
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from observed import NOON, SERVER, Clock, make_failure, make_outcome

from django_safecache.models import (
    CacheDigest,
    CachePlace,
    Problem,
    ProblemCount,
    ProblemFacet,
    ProblemState,
    Writer,
)
from django_safecache.recording.recorder import Recorder
from django_safecache.recording.snapshots import FlushErrors
from django_safecache.storage import store

pytestmark = pytest.mark.django_db

UTC = timezone.utc
AT_NOON = datetime.fromtimestamp(NOON, UTC)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recorder(clock):
    return Recorder(clock=clock, account=lambda: "acme")


def flush(recorder, *, zone=UTC, **options):
    snapshot = recorder.snapshot()
    store(snapshot, using="default", zone=zone, **options)
    return snapshot


def fail(recorder, kind="epipe", **changes):
    recorder.observe(make_outcome(failures=(make_failure(kind, **changes),)))


class TestCounts:
    def test_every_figure_of_an_outcome_has_its_place(self, recorder):
        recorder.observe(
            make_outcome(
                hits=1,
                misses=2,
                unavailable=3,
                stored=4,
                deleted=5,
                loaded=6,
                lines=7,
                retries=8,
                splits=9,
                bytes_sent=10,
                bytes_received=2**40,
                duration=0.25,
                failures=(make_failure(), make_failure(), make_failure("timeout")),
            )
        )
        flush(recorder)
        row = CacheDigest.objects.values().get()
        place = CachePlace.objects.get(together="")
        assert (place.alias, place.server, place.key_group) == ("default", SERVER, "")
        assert {name: value for name, value in row.items() if value} == {
            "resolution": 5,
            "bucket": AT_NOON,
            "place_id": place.pk,
            "writer": recorder.writer.name,
            "calls": 1,
            "hits": 1,
            "misses": 2,
            "unavailable": 3,
            "stores": 4,
            "deletes": 5,
            "loaded": 6,
            "lines": 7,
            "retries": 8,
            "splits": 9,
            "bytes_sent": 10,
            "bytes_received": 2**40,
            "duration_sum": 0.25,
            "duration_max": 0.25,
            "duration_to_250000us": 1,
            "epipe": 2,
            "timeout": 1,
        }

    def test_storing_again_counts_nothing_twice(self, recorder):
        recorder.observe(make_outcome(hits=3))
        flush(recorder)
        flush(recorder)
        recorder.observe(make_outcome(hits=4))
        flush(recorder)
        assert list(CacheDigest.objects.values_list("hits", "calls")) == [(7, 2)]

    def test_each_writer_has_rows_of_its_own(self, clock):
        for _ in range(3):
            recorder = Recorder(clock=clock)
            recorder.observe(make_outcome(hits=1))
            flush(recorder)
        assert list(CacheDigest.objects.values_list("hits", flat=True)) == [1, 1, 1]

    def test_more_rows_than_a_statement_takes_are_stored(self, recorder):
        for number in range(450):
            recorder.observe(make_outcome(server=f"10.0.0.{number}:11211"))
        flush(recorder)
        assert CacheDigest.objects.count() == 450

    def test_long_names_that_begin_alike_stay_apart(self, recorder):
        for suffix in "ab":
            recorder.observe(make_outcome(alias="x" * 100 + suffix, server="y" * 300))
        flush(recorder)
        assert CacheDigest.objects.count() == 2

    def test_names_that_no_database_takes_are_stored_all_the_same(self, recorder):
        recorder.observe(make_outcome(server="a\0b\ud800"))
        fail(recorder, "server_error", errno=None, text="a\0b\ud800")
        flush(recorder)
        assert CacheDigest.objects.count() == 2

    @settings(
        deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        st.lists(
            st.tuples(
                st.sampled_from("ABC"),
                st.integers(0, 9),
                st.integers(0, 200),
                st.sampled_from(["", "store", "store and forget"]),
            ),
            max_size=12,
        )
    )
    def test_the_sums_are_what_was_observed_however_often_it_was_stored(self, steps):
        CacheDigest.objects.all().delete()
        clock = Clock()
        recorder = Recorder(clock=clock, max_cells=4)
        expected = 0
        for server, hits, seconds, then in steps:
            recorder.observe(make_outcome(server=server, hits=hits))
            expected += hits
            clock.now += seconds
            if then:
                snapshot = flush(recorder)
                if then == "store and forget":
                    recorder.forget(snapshot)
        flush(recorder)
        assert sum(CacheDigest.objects.values_list("hits", flat=True)) == expected


class TestProblems:
    def test_a_problem_is_told_once_and_counted_by_place(self, recorder, clock):
        fail(recorder)
        clock.now += 60
        fail(recorder)
        fail(recorder, server="10.0.0.2:11211")
        flush(recorder)
        flush(recorder)
        problem = Problem.objects.get()
        assert (problem.kind, problem.exception) == (
            "epipe",
            "builtins.BrokenPipeError",
        )
        assert (problem.errno, problem.message) == (32, "[Errno <n>] Broken pipe")
        assert problem.state == ProblemState.OPEN
        assert problem.first_seen == AT_NOON
        assert problem.last_seen == AT_NOON + timedelta(seconds=60)
        counts = ProblemCount.objects.order_by("server")
        assert list(counts.values_list("alias", "server", "host", "count")) == [
            ("default", SERVER, recorder.writer.host, 2),
            ("default", "10.0.0.2:11211", recorder.writer.host, 1),
        ]

    def test_servers_whose_names_differ_in_case_only_stay_apart(self, recorder):
        for server in ["Cache-1:11211", "Cache-1:11211", "cache-1:11211"]:
            fail(recorder, server=server)
        flush(recorder)
        flush(recorder)
        counts = ProblemCount.objects.values_list("server", "count")
        assert sorted(counts) == [("Cache-1:11211", 2), ("cache-1:11211", 1)]

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
    def test_first_seen_only_goes_down_and_last_seen_only_up(self, order):
        for hour in order:
            recorder = Recorder(clock=Clock(NOON + hour * 3600))
            fail(recorder)
            flush(recorder)
        problem = Problem.objects.get()
        assert problem.first_seen == AT_NOON
        assert problem.last_seen == AT_NOON + timedelta(hours=2)

    def test_a_resolved_problem_that_occurs_again_has_regressed(self, recorder, clock):
        fail(recorder)
        flush(recorder)
        Problem.objects.update(
            state=ProblemState.RESOLVED, resolved_at=AT_NOON + timedelta(seconds=1)
        )
        flush(recorder)
        assert Problem.objects.get().state == ProblemState.RESOLVED
        clock.now += 2
        fail(recorder)
        flush(recorder)
        assert Problem.objects.get().state == ProblemState.REGRESSED

    def test_without_the_time_of_resolving_any_later_occurrence_counts(
        self, recorder, clock
    ):
        fail(recorder)
        flush(recorder)
        Problem.objects.update(state=ProblemState.RESOLVED)
        flush(recorder)
        assert Problem.objects.get().state == ProblemState.RESOLVED
        clock.now += 2
        fail(recorder)
        flush(recorder)
        assert Problem.objects.get().state == ProblemState.REGRESSED

    def test_an_occurrence_from_before_it_was_resolved_does_not_count(self, clock):
        late = Recorder(clock=Clock(NOON))
        fail(late)
        early = Recorder(clock=Clock(NOON - 60))
        fail(early)
        flush(early)
        Problem.objects.update(
            state=ProblemState.RESOLVED, resolved_at=AT_NOON + timedelta(seconds=1)
        )
        flush(late)
        assert Problem.objects.get().state == ProblemState.RESOLVED

    def test_a_muted_problem_stays_muted(self, recorder, clock):
        fail(recorder)
        flush(recorder)
        Problem.objects.update(state=ProblemState.MUTED)
        clock.now += 2
        fail(recorder)
        flush(recorder)
        assert Problem.objects.get().state == ProblemState.MUTED


class TestFacets:
    def test_a_value_is_stored_once_a_day_whoever_saw_it(self, clock):
        for _ in range(2):
            recorder = Recorder(clock=clock, account=lambda: "acme")
            fail(recorder)
            flush(recorder)
            flush(recorder)
            clock.now += 300
        facets = ProblemFacet.objects.filter(facet="account")
        assert list(facets.values_list("day", "value")) == [(date(2026, 1, 14), "acme")]

    def test_the_day_is_that_of_the_digest(self, recorder):
        fail(recorder)
        flush(recorder, zone=ZoneInfo("Pacific/Auckland"))
        assert set(ProblemFacet.objects.values_list("day", flat=True)) == {
            date(2026, 1, 15)
        }

    def test_values_that_differ_in_case_or_accents_only_stay_apart(self, clock):
        for name in ["Zoe", "zoe", "zoé"]:
            recorder = Recorder(clock=clock, account=lambda name=name: name)
            fail(recorder)
            flush(recorder)
        facets = ProblemFacet.objects.filter(facet="account")
        assert set(facets.values_list("value", flat=True)) == {"Zoe", "zoe", "zoé"}

    def test_values_too_long_for_the_column_stay_apart(self, clock):
        for suffix in "ab":
            recorder = Recorder(clock=clock, account=lambda end=suffix: "x" * 300 + end)
            fail(recorder)
            flush(recorder)
        assert ProblemFacet.objects.filter(facet="account").count() == 2


class TestWriters:
    def test_a_flush_tells_of_the_writer(self, recorder, clock):
        flush(recorder)
        clock.now += 10
        flush(recorder, errors=FlushErrors(3))
        writer = Writer.objects.get()
        assert writer.name == recorder.writer.name
        assert (writer.host, writer.pid) == (recorder.writer.host, os.getpid())
        assert (writer.started, writer.last_flush) == (
            AT_NOON,
            AT_NOON + timedelta(seconds=10),
        )
        assert (writer.flush_errors, writer.ended) == (3, None)

    def test_the_last_flush_says_that_the_writer_ended(self, recorder):
        flush(recorder, ended=True)
        assert Writer.objects.get().ended == AT_NOON

    def test_an_older_snapshot_does_not_take_back_when_it_reported_and_ended(
        self, recorder
    ):
        old = flush(recorder, ended=True)
        later = AT_NOON + timedelta(hours=3)
        Writer.objects.update(last_flush=later, ended=later)
        for ended in (True, False):
            store(old, using="default", zone=UTC, ended=ended)
            writer = Writer.objects.get()
            assert (writer.last_flush, writer.ended) == (later, later)

    def test_one_that_reports_after_its_end_has_come_back(self, recorder, clock):
        flush(recorder, ended=True)
        clock.now += 1
        flush(recorder)
        assert Writer.objects.get().ended is None

    def test_one_that_was_given_up_for_dead_is_told_and_ends(self, recorder):
        recorder.observe(make_outcome(hits=1))
        flush(recorder)
        settled = AT_NOON + timedelta(hours=1)
        Writer.objects.update(settled=settled)
        stored = store(recorder.snapshot(), using="default", zone=UTC)
        assert stored.left_out_before == settled
        assert Writer.objects.get().ended == AT_NOON


class TestAtomicity:
    def test_a_flush_that_fails_halfway_stores_no_totals(self, recorder):
        recorder.observe(make_outcome(hits=1))
        recorder.writer = type(recorder.writer)("w", "h", -1, AT_NOON)
        with pytest.raises(Exception, match=r"constraint|range"):
            flush(recorder)
        assert CacheDigest.objects.count() == 0


class TestCost:
    def test_a_flush_without_problems_is_few_statements(
        self, recorder, django_assert_max_num_queries
    ):
        recorder.observe(make_outcome())
        flush(recorder)
        with django_assert_max_num_queries(6, connection=connection):
            flush(recorder)
