"""Random stores, crashes, rollups and prunes against a model that only adds."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import Sum
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from observed import NOON, Clock, make_failure, make_outcome

from django_safecache import reports
from django_safecache.conf import RetentionDays
from django_safecache.models import (
    CacheDigest,
    Horizon,
    ProblemCount,
    Resolution,
    Writer,
)
from django_safecache.recording.recorder import Recorder
from django_safecache.reports import Period
from django_safecache.storage import roll_up, store

UTC = timezone.utc
BUCKET = timedelta(minutes=5)
RETENTION = RetentionDays(five_minutes=1, hour=3, day=40)
SERVERS = ["10.0.0.1:11211", "10.0.0.2:11211"]
# From within a bucket to longer than a silent writer is believed to live.
PASSING = [60, 290, 3600, 7 * 3600, 86_400, 3 * 86_400]
MODELS = ((CacheDigest, "hits"), (ProblemCount, "count"))


class Process:
    """A recorder, and what the database must have of it: (column, bucket) to sum."""

    def __init__(self, clock):
        self.recorder = Recorder(clock=clock)
        self.counted = Counter()
        self.stored = Counter()
        self.offered = Counter()
        # Offered before it was given up for dead, and not stored, as it turned out.
        self.missed = Counter()
        self.last_flush = None
        self.ended = False
        self.settled = datetime.min.replace(tzinfo=UTC)

    def saw(self, buckets):
        """A store of what it had counted in `buckets` was committed."""
        for key, number in self.counted.items():
            if key[1] in buckets and key[1] >= self.settled:
                self.stored[key] = number - self.missed[key]

    def goes_on(self, buckets, offered_before):
        """Under another name, with what it has more than was offered before."""
        for key in self.counted:
            if key[1] in buckets and key[1] < self.settled:
                self.missed[key] = offered_before[key] - self.stored[key]
                self.offered[key] = offered_before[key]
        self.settled = datetime.min.replace(tzinfo=UTC)
        self.ended = False


class Rollups(RuleBasedStateMachine):
    processes = Bundle("processes")

    def __init__(self):
        super().__init__()
        for model in (CacheDigest, ProblemCount, Writer, Horizon):
            model.objects.all().delete()
        self.clock = Clock()
        self.all = []

    @property
    def now(self):
        return datetime.fromtimestamp(self.clock.now, UTC)

    @initialize(target=processes)
    def begin_with_one(self):
        return self.begin()

    @rule(target=processes)
    @precondition(lambda self: len(self.all) < 3)
    def begin(self):
        process = Process(self.clock)
        self.all.append(process)
        return process

    @rule(
        process=processes,
        server=st.sampled_from(SERVERS),
        hits=st.integers(0, 9),
        fails=st.booleans(),
    )
    def count(self, process, server, hits, fails):
        failures = (make_failure(server=server),) if fails else ()
        process.recorder.observe(
            make_outcome(server=server, hits=hits, failures=failures)
        )
        bucket = Resolution.FIVE_MINUTES.start_of(self.now)
        process.counted["hits", bucket] += hits
        process.counted["count", bucket] += fails

    def is_buried(self, process):
        """Who is silent for so long does not come back, see `storage.pruning`."""
        if process.last_flush is None:
            return False
        silent = timedelta(days=2 if process.ended else 30)
        return self.now - process.last_flush > silent

    @rule(process=processes, counts_on=st.booleans())
    def suspend(self, process, counts_on):
        """Stopped between storing and knowing it, given up for dead, and back again."""
        self.count(process, SERVERS[0], 1, True)
        self.flush(process, "unknown", False)
        if counts_on:
            self.count(process, SERVERS[0], 1, True)
        self.clock.now += 3 * 86_400
        self.roll_up(None)
        self.flush(process, "stored", False)

    @rule(seconds=st.sampled_from(PASSING))
    def pass_time(self, seconds):
        self.clock.now += seconds

    @rule(
        process=processes,
        outcome=st.sampled_from(["stored", "unknown", "rolled back"]),
        ended=st.booleans(),
    )
    def flush(self, process, outcome, ended):
        if self.is_buried(process):
            return
        snapshot = process.recorder.snapshot()
        offered_before, process.offered = process.offered, process.counted.copy()
        with transaction.atomic():
            stored = store(snapshot, using="default", zone=UTC, ended=ended)
            transaction.set_rollback(outcome == "rolled back")
        if outcome == "rolled back":
            return
        held = {cell.bucket for cell in snapshot.cells}
        left_out = any(bucket < process.settled for bucket in held)
        assert stored.left_out_before == (process.settled if left_out else None)
        process.saw(held)
        process.last_flush, process.ended = self.now, ended or left_out
        if outcome == "stored":
            process.recorder.forget(snapshot, left_out_before=stored.left_out_before)
            if left_out:
                process.goes_on(held, offered_before)

    @rule(crash_at=st.none() | st.integers(1, 60))
    def roll_up(self, crash_at):
        left = None if crash_at is None else iter(range(crash_at))

        def crash(execute, *arguments):
            if left is not None and next(left, None) is None:
                raise OperationalError("the server closed the connection")
            return execute(*arguments)

        self.give_up_the_dead()
        try:
            with connection.execute_wrapper(crash):
                roll_up(self.now, using="default", retention=RETENTION)
        except OperationalError:
            self.settle_as_the_database_says()

    def give_up_the_dead(self):
        """What a rollup will bind those to that have ended or are presumed dead."""
        for process in self.all:
            rows = set()
            for model, _ in MODELS:
                mine = model.objects.filter(writer=process.recorder.writer.name)
                rows.update(mine.values_list("bucket", flat=True))
            silent = timedelta(days=2)
            if process.ended:
                silent = timedelta(minutes=5)
            if rows and self.now - process.last_flush > silent:
                process.settled = max(process.settled, max(rows) + BUCKET)

    def settle_as_the_database_says(self):
        for process in self.all:
            row = Writer.objects.filter(name=process.recorder.writer.name).first()
            if row and row.settled:
                process.settled = min(process.settled, row.settled)

    @rule(
        ago=st.integers(0, 1200),
        length=st.integers(1, 400),
        step=st.sampled_from([5, 60, 360, 1440]),
    )
    def ask(self, ago, length, step):
        end = Resolution.FIVE_MINUTES.start_of(self.now) + BUCKET - ago * BUCKET
        asked = Period(end - length * BUCKET, end)
        period = reports.answerable(asked)
        assert period.start <= max(asked.start, period.start)
        assert period.end >= asked.end
        expected = self.expected("hits", period.start, period.end)
        totals = reports.totals(period)
        assert (totals.hits if totals else 0) == expected
        points = reports.series(period, step=timedelta(minutes=step))
        for point in points:
            hits = point.totals.hits if point.totals else 0
            assert hits == self.expected("hits", point.start, point.end)
        by = (reports.by_server(period), reports.by_key_group(period))
        assert [sum(each.totals.hits for each in rows) for rows in by] == [expected] * 2
        for server in SERVERS:
            groups = reports.by_key_group(period, server=server)
            totals = reports.totals(period, server=server)
            assert sum(each.totals.hits for each in groups) == (
                totals.hits if totals else 0
            )
        assert points[-1].end == period.end
        assert sum(row.count for row in reports.problems(period)) == self.expected(
            "count", period.start, period.end
        )

    def expected(self, name, start, end):
        return sum(
            number
            for process in self.all
            for (column, bucket), number in process.stored.items()
            if column == name and start <= bucket < end
        )

    @invariant()
    def the_sums_are_what_was_stored_at_every_resolution(self):
        for resolution in Resolution:
            since = (
                Horizon.objects.filter(resolution=resolution)
                .values_list("kept_from", flat=True)
                .first()
            ) or datetime.fromtimestamp(0, UTC)
            for model, column in MODELS:
                rows = model.objects.filter(bucket__gte=since)
                rolled = rows.filter(writer="", resolution=resolution)
                if model is CacheDigest:
                    rolled = rolled.filter(place__together="")
                total = sum(
                    each.aggregate(total=Sum(column))["total"] or 0
                    for each in (rolled, rows.filter(writer__gt=""))
                )
                later = self.expected(column, since, datetime.max.replace(tzinfo=UTC))
                assert total == later, (resolution, column)


@pytest.mark.django_db(transaction=True)
def test_every_count_is_there_once_at_every_resolution_at_any_moment():
    assert NOON % 86_400
    run_state_machine_as_test(
        Rollups,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
