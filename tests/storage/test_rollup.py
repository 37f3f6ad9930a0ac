from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from django.db import connection
from django.db.models import Max, Sum
from django.utils import timezone as django_timezone
from observed import NOON, SERVER, Clock, make_failure, make_outcome

from django_safecache.conf import RetentionDays
from django_safecache.models import (
    CacheDigest,
    DigestDelivery,
    DigestMail,
    Horizon,
    Problem,
    ProblemCount,
    ProblemFacet,
    Resolution,
    Together,
    Writer,
)
from django_safecache.recording.leftovers import MAX_AGE
from django_safecache.recording.recorder import Recorder
from django_safecache.storage import RolledUp, roll_up, store

pytestmark = pytest.mark.django_db

UTC = timezone.utc
AT_NOON = datetime.fromtimestamp(NOON, UTC)
MINUTES = timedelta(minutes=1)
DAY = timedelta(days=1)
RETENTION = RetentionDays(five_minutes=2, hour=21, day=365)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recorder(clock):
    return Recorder(clock=clock, key_groups=lambda keys: [key[0] for key in keys])


def observe(recorder, key="a1", **changes):
    recorder.observe(make_outcome(keys=[key], **changes))


def flush(recorder, *, ended=False, acknowledged=True):
    snapshot = recorder.snapshot()
    stored = store(snapshot, using="default", zone=UTC, ended=ended)
    if acknowledged:
        recorder.forget(snapshot, left_out_before=stored.left_out_before)
    return stored.left_out_before


def settle(recorder, clock):
    """Close the bucket, and let it be known that it is stored."""
    clock.now += 300
    flush(recorder)
    flush(recorder)


def roll(clock, *, retention=RETENTION):
    now = datetime.fromtimestamp(clock.now, UTC)
    return roll_up(now, using="default", retention=retention)


def rows(**conditions):
    """Resolution, bucket, server, key group and hits of what has no writer."""
    names = ("resolution", "bucket", "place__server", "place__key_group", "hits")
    found = CacheDigest.objects.filter(writer="", **conditions)
    return list(found.order_by(*names).values_list(*names))


def raw():
    return CacheDigest.objects.filter(writer__gt="").count()


class TestFolding:
    def test_final_rows_are_added_to_those_of_all_resolutions(self, recorder, clock):
        other = Recorder(clock=clock, key_groups=lambda keys: [key[0] for key in keys])
        observe(recorder, hits=1)
        observe(other, hits=2)
        settle(recorder, clock)
        flush(other)
        observe(recorder, hits=4)
        settle(recorder, clock)
        flush(other)
        assert roll(clock).folded == 3
        midnight = AT_NOON - timedelta(hours=12)
        assert rows(place__together="") == [
            (5, AT_NOON, SERVER, "a", 3),
            (5, AT_NOON + 5 * MINUTES, SERVER, "a", 4),
            (60, AT_NOON, SERVER, "a", 7),
            (1440, midnight, SERVER, "a", 7),
        ]
        assert raw() == 0

    def test_there_are_sums_over_key_groups_and_over_servers(self, recorder, clock):
        for key, server, hits in (
            ("a", "s:1", 1),
            ("b", "s:1", 10),
            ("a", "s:2", 100),
            ("a", "", 1000),
        ):
            observe(recorder, key, server=server, hits=hits)
        settle(recorder, clock)
        roll(clock)
        for resolution in Resolution:
            sums = rows(resolution=resolution, place__together=Together.KEY_GROUPS)
            assert [row[2:] for row in sums] == [
                ("", "", 1000),
                ("s:1", "", 11),
                ("s:2", "", 100),
            ]
        sums = rows(place__together=Together.SERVERS)
        assert [(row[0], *row[2:]) for row in sums] == [
            (resolution, server, key_group, hits)
            for resolution in (Resolution.HOUR, Resolution.DAY)
            for server, key_group, hits in (
                ("", "a", 1000),
                ("*", "a", 101),
                ("*", "b", 10),
            )
        ]

    def test_figures_are_added_and_the_longest_duration_is_kept(self, recorder, clock):
        for duration, failures in ((0.2, [make_failure()]), (0.7, []), (0.1, [])):
            observe(recorder, duration=duration, failures=failures, bytes_received=7)
            settle(recorder, clock)
            roll(clock)
        day = CacheDigest.objects.get(resolution=1440, place__together="")
        assert (day.calls, day.epipe, day.bytes_received) == (3, 1, 21)
        assert day.duration_sum == pytest.approx(1.0)
        assert day.duration_max == 0.7
        assert (day.duration_to_250000us, day.duration_to_1000000us) == (1, 1)

    def test_occurrences_are_added_up_over_writers_and_hosts(self, recorder, clock):
        for _ in range(3):
            observe(recorder, failures=[make_failure()])
            settle(recorder, clock)
        assert roll(clock).folded == 6
        counts = ProblemCount.objects.filter(writer="")
        names = ("resolution", "server", "host", "count")
        assert sorted(counts.values_list(*names)) == [
            *[(5, SERVER, "", 1)] * 3,
            (60, SERVER, "", 3),
            (1440, SERVER, "", 3),
        ]
        assert not ProblemCount.objects.filter(writer__gt="").exists()

    def test_servers_whose_names_differ_in_case_only_stay_apart(self, recorder, clock):
        for server in ["Cache-1:11211", "cache-1:11211"]:
            observe(recorder, failures=[make_failure(server=server)])
            settle(recorder, clock)
            roll(clock)
        days = ProblemCount.objects.filter(writer="", resolution=1440)
        assert sorted(days.values_list("server", "count")) == [
            ("Cache-1:11211", 1),
            ("cache-1:11211", 1),
        ]

    def test_done_again_it_does_nothing(self, recorder, clock):
        observe(recorder, hits=1)
        settle(recorder, clock)
        roll(clock)
        before = list(CacheDigest.objects.values_list())
        assert roll(clock) == RolledUp(folded=0, pruned=0)
        assert list(CacheDigest.objects.values_list()) == before

    def test_what_comes_days_late_is_added_like_any_other(self, recorder, clock):
        late = Recorder(clock=clock, key_groups=lambda keys: [key[0] for key in keys])
        observe(recorder, hits=1)
        observe(late, hits=2)
        settle(recorder, clock)
        roll(clock)
        clock.now += 86_400
        flush(late)
        flush(late)
        roll(clock)
        assert [row[4] for row in rows(place__together="")] == [3, 3, 3]

    def test_zeros_take_no_room(self, recorder, clock):
        observe(recorder, misses=1)
        settle(recorder, clock)
        roll(clock)
        stored = CacheDigest.objects.count()
        assert CacheDigest.objects.filter(epipe=None, hits=None).count() == stored
        assert set(CacheDigest.objects.values_list("epipe", "hits")) == {(0, 0)}


class TestFinality:
    def test_an_open_bucket_is_left_alone(self, recorder, clock):
        observe(recorder, hits=1)
        flush(recorder)
        flush(recorder)
        assert (roll(clock).folded, raw()) == (0, 1)

    def test_so_is_one_that_the_writer_does_not_know_to_be_stored(
        self, recorder, clock
    ):
        observe(recorder, hits=1)
        clock.now += 300
        flush(recorder, acknowledged=False)
        flush(recorder, acknowledged=False)
        assert (roll(clock).folded, raw()) == (0, 1)

    def test_the_rows_of_an_ended_writer_are_final_after_its_last_words(
        self, recorder, clock
    ):
        observe(recorder, hits=1)
        flush(recorder, ended=True, acknowledged=False)
        clock.now += 299
        assert roll(clock).folded == 0
        observe(recorder, hits=1)
        flush(recorder, ended=True, acknowledged=False)
        clock.now += 301
        assert roll(clock).folded == 1
        assert [row[4] for row in rows(place__together="")] == [2, 2, 2]

    def test_a_silent_writer_is_presumed_dead_after_two_days(self, recorder, clock):
        observe(recorder, hits=1)
        flush(recorder)
        clock.now += 2 * 86_400
        assert roll(clock).folded == 0
        clock.now += 1
        assert roll(clock).folded == 1

    def test_one_that_comes_back_from_the_dead_is_not_counted_twice(
        self, recorder, clock
    ):
        observe(recorder, hits=1)
        observe(recorder, hits=1, failures=[make_failure()])
        flush(recorder, acknowledged=False)
        clock.now += 3 * 86_400
        roll(clock)
        observe(recorder, hits=10)
        assert flush(recorder) == AT_NOON + 5 * MINUTES
        roll(clock)
        assert raw() == 1
        # The row of five minutes was past retention.
        assert [row[4] for row in rows(place__together="")] == [2, 2]
        assert not ProblemCount.objects.filter(writer__gt="").exists()

    def test_what_it_counted_after_it_stored_is_stored_under_another_name(
        self, recorder, clock
    ):
        """On a quiet site nobody comes for days after the last few requests."""
        observe(recorder, hits=100, duration=1.0, failures=[make_failure("epipe")])
        flush(recorder)
        observe(recorder, hits=500, duration=2.0, failures=[make_failure("epipe")] * 2)
        observe(recorder, "b1", hits=5, failures=[make_failure("reset")])
        clock.now += 3 * 86_400
        roll(clock)
        observe(recorder, hits=7)
        first = recorder.writer
        assert flush(recorder) is not None
        assert recorder.writer != first
        assert flush(recorder) is None
        old, new = Writer.objects.order_by("pk")
        assert (old.ended, new.ended) == (old.last_flush, None)
        clock.now += 301
        flush(recorder)
        roll(clock)
        found = CacheDigest.objects.filter(
            resolution=Resolution.DAY, place__together="", writer=""
        )
        sums = found.aggregate(
            hits=Sum("hits"),
            calls=Sum("calls"),
            epipe=Sum("epipe"),
            reset=Sum("reset"),
            seconds=Sum("duration_sum"),
            longest=Max("duration_max"),
        )
        assert sums == {
            "hits": 612,
            "calls": 4,
            "epipe": 3,
            "reset": 1,
            "seconds": pytest.approx(3.0, abs=0.1),
            "longest": 2.0,
        }
        days = ProblemCount.objects.filter(resolution=Resolution.DAY)
        assert sorted(days.values_list("count", flat=True)) == [1, 3]

    def test_in_normal_operation_nothing_is_left_out(self, recorder, clock):
        for _ in range(10):
            observe(recorder, hits=1)
            clock.now += 100
            assert flush(recorder) is None
            roll(clock)
        assert Writer.objects.get().dropped == 0

    def test_rows_of_a_writer_that_nothing_is_known_of_are_final(self, recorder, clock):
        observe(recorder, hits=1)
        flush(recorder)
        Writer.objects.all().delete()
        assert roll(clock).folded == 1


class TestPruning:
    def test_rows_go_by_the_retention_of_their_resolution(self, recorder, clock):
        counted = []
        for _ in range(9):
            counted.append(datetime.fromtimestamp(clock.now, UTC))
            observe(recorder, hits=1)
            clock.now += 26 * 3600  # more than a day, for rows outlive that by an hour
            settle(recorder, clock)
        roll(clock, retention=RetentionDays(five_minutes=2, hour=4, day=6))
        now = datetime.fromtimestamp(clock.now, UTC)
        for resolution, days in zip(Resolution, (2, 4, 6), strict=True):
            kept_from = resolution.start_of(now - days * DAY)
            assert Horizon.objects.get(resolution=resolution).kept_from == kept_from
            starts = map(resolution.start_of, counted)
            kept = [start for start in starts if start >= kept_from]
            assert 0 < len(kept) < 9
            found = rows(resolution=resolution, place__together="")
            assert [row[1] for row in found] == kept

    def test_counts_of_problems_outlive_the_days_they_are_compared_with(
        self, recorder, clock
    ):
        observe(recorder, failures=(make_failure("epipe"),))
        settle(recorder, clock)
        hours = ProblemCount.objects.filter(resolution=60)
        for days, kept in ((19, 1), (2, 0)):
            clock.now += days * 86_400
            roll(clock, retention=RetentionDays(five_minutes=2, hour=4, day=365))
            assert hours.count() == kept
            assert ProblemCount.objects.filter(resolution=1440).count() == 1

    def test_a_shorter_retention_is_not_forgotten_when_it_is_longer_again(
        self, recorder, clock
    ):
        roll(clock)
        before = Horizon.objects.get(resolution=60).kept_from
        roll(clock, retention=RetentionDays(five_minutes=2, hour=100, day=365))
        assert Horizon.objects.get(resolution=60).kept_from == before

    def test_what_is_not_rolled_up_goes_only_after_the_longest_retention(
        self, recorder, clock
    ):
        observe(recorder, hits=1)
        flush(recorder, acknowledged=False)
        Writer.objects.update(last_flush=AT_NOON + 999 * DAY)
        clock.now += 364 * 86_400
        roll(clock)
        assert raw() == 1
        clock.now += 2 * 86_400
        roll(clock)
        assert raw() == 0

    def test_problems_mails_and_facets_go_as_well(self, recorder, clock):
        for days in (366, 100, 0):
            when = AT_NOON - days * DAY
            problem = Problem.objects.create(
                fingerprint=f"{days}", kind="epipe", first_seen=when, last_seen=when
            )
            ProblemFacet.objects.create(
                problem=problem, facet="account", day=when.date(), value="acme"
            )
            mail = DigestMail.objects.create(day=when.date(), time_zone="UTC")
            DigestDelivery.objects.create(mail=mail, recipient="ops@example.com")
        assert roll(clock).pruned == 4
        assert Problem.objects.count() == 2
        assert ProblemFacet.objects.count() == 1
        assert DigestMail.objects.count() == DigestDelivery.objects.count() == 2

    def test_it_takes_a_batch_at_a_time(self, clock, monkeypatch):
        monkeypatch.setattr("django_safecache.storage.pruning.BATCH_SIZE", 2)
        for number in range(5):
            day = AT_NOON.date() - timedelta(days=400 + number)
            DigestMail.objects.create(day=day, time_zone="UTC")
        assert roll(clock).pruned == 5


class TestWriters:
    def begun(self, name, start, end, *, ended=True, **values):
        return Writer.objects.create(
            name=name,
            host="web-1",
            pid=1,
            started=AT_NOON + start * MINUTES,
            last_flush=AT_NOON + end * MINUTES,
            ended=AT_NOON + end * MINUTES if ended else None,
            **values,
        )

    def spans(self):
        spans = Writer.objects.order_by("started").values_list("started", "last_flush")
        return [
            tuple((moment - AT_NOON) // MINUTES for moment in moments)
            for moments in spans
        ]

    def test_those_long_gone_become_one_row_for_each_time_without_a_break(self, clock):
        self.begun("a", 0, 10, dropped=1)
        self.begun("b", 5, 60, dropped=2)
        self.begun("c", 64, 70)
        self.begun("d", 76, 80)
        clock.now += 9 * 86_400
        assert roll(clock).pruned == 2
        assert self.spans() == [(0, 70), (76, 80)]
        assert Writer.objects.get(name="a").dropped == 3
        assert roll(clock).pruned == 0

    def test_one_that_ended_lately_or_may_come_back_is_left_alone(self, clock):
        self.begun("a", 0, 10, ended=False)
        self.begun("b", 0, 10, ended=False)
        clock.now += 29 * 86_400
        assert roll(clock).pruned == 0
        clock.now += 2 * 86_400
        assert roll(clock).pruned == 1

    def test_what_one_left_is_not_counted_again_while_it_may_be_stored(
        self, recorder, clock
    ):
        self.begun("earlier", -300, 60)
        observe(recorder, hits=100)
        left = recorder.snapshot()
        store(left, using="default", zone=UTC, ended=True)
        clock.now += MAX_AGE
        retention = RetentionDays(five_minutes=21, hour=21, day=21)
        for _ in range(3):
            roll(clock, retention=retention)
            store(left, using="default", zone=UTC, ended=True)
            clock.now += 300
        assert {hits for *_, hits in rows(resolution=1440, place__together="")} == {100}

    def test_one_is_known_longer_than_counts_are_kept(self, recorder, clock):
        observe(recorder, hits=100)
        store(recorder.snapshot(), using="default", zone=UTC, ended=True)
        clock.now += MAX_AGE
        retention = RetentionDays(five_minutes=1, hour=1, day=1)
        roll(clock, retention=retention)
        assert Writer.objects.exists()
        clock.now += 2 * 86_400
        roll(clock, retention=retention)
        assert not Writer.objects.exists()


class TestCost:
    def test_queries_do_not_grow_with_servers_or_writers(
        self, clock, django_assert_max_num_queries
    ):
        recorders = [Recorder(clock=clock) for _ in range(5)]
        for recorder in recorders:
            for number in range(20):
                recorder.observe(make_outcome(server=f"10.0.0.{number}:11211"))
            clock.now += 1
        clock.now += 300
        for recorder in recorders * 2:
            flush(recorder)
        with django_assert_max_num_queries(60, connection=connection):
            assert roll(clock).folded == 100


class TestClock:
    def test_the_default_clock_is_the_machine_s(self):
        done = roll_up(django_timezone.now(), using="default", retention=RETENTION)
        assert done == RolledUp(folded=0, pruned=0)
