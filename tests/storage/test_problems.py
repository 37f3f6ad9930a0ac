from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import islice, product
from random import Random

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import Sum
from observed import NOON, Clock, make_failure, make_outcome

from django_safecache.models import (
    Problem,
    ProblemCount,
    ProblemFacet,
    ProblemSample,
    ProblemState,
    Writer,
)
from django_safecache.recording.recorder import Recorder
from django_safecache.recording.samples import MAX_WAITING
from django_safecache.recording.sightings import Sighting
from django_safecache.storage import problems, store

pytestmark = pytest.mark.django_db

UTC = timezone.utc
AT_NOON = datetime.fromtimestamp(NOON, UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Process:
    """A process that fails when it is told to, and stores that at once."""

    def __init__(self, **options):
        self.clock = Clock()
        self.recorder = Recorder(clock=self.clock, **options)

    def fail(self, after=timedelta(), times=1, *, flush=True):
        self.clock.now = NOON + after.total_seconds()
        for _ in range(times):
            self.recorder.observe(make_outcome(failures=(make_failure(),)))
        if flush:
            self.flush()

    def see(self, site, text="a stack"):
        cause = self.recorder.causes.of("epipe", "", None, "x")
        self.recorder.occurred(cause, lambda: Sighting(site, lambda: text))

    def flush(self, *, forget=True):
        snapshot = self.recorder.snapshot()
        store(snapshot, using="default", zone=UTC)
        if forget:
            self.recorder.forget(snapshot)


@pytest.fixture
def process():
    return Process()


def become(state, **fields):
    Problem.objects.update(state=state, **fields)


def now_is():
    problem = Problem.objects.get()
    return problem.state


class TestRegressing:
    def test_an_occurrence_after_it_was_resolved_is_a_regression_from_then_on(
        self, process
    ):
        process.fail()
        become("resolved", resolved_at=AT_NOON + MINUTE)
        process.flush()
        assert now_is() == ProblemState.RESOLVED
        process.fail(2 * MINUTE, flush=False)
        process.fail(3 * MINUTE)
        problem = Problem.objects.get()
        assert problem.state == ProblemState.REGRESSED
        assert problem.regressed_at == AT_NOON + 3 * MINUTE
        process.fail(HOUR)
        assert Problem.objects.get().regressed_at == problem.regressed_at

    def test_what_is_stored_late_but_occurred_before_is_none(self):
        late, early = Process(), Process()
        late.fail(flush=False)
        early.fail(-MINUTE)
        become("resolved", resolved_at=AT_NOON + MINUTE)
        late.flush()
        assert now_is() == ProblemState.RESOLVED

    def test_resolved_and_regressed_again_it_tells_of_the_last_time(self, process):
        process.fail()
        become("resolved", resolved_at=AT_NOON + MINUTE)
        process.fail(10 * MINUTE)
        become("resolved", resolved_at=AT_NOON + HOUR)
        process.fail(2 * HOUR)
        problem = Problem.objects.get()
        assert problem.state == ProblemState.REGRESSED
        assert problem.regressed_at == AT_NOON + 2 * HOUR


class TestMutedUntilADate:
    def test_before_the_date_it_stays_muted(self, process):
        process.fail()
        become("muted", muted_until=AT_NOON + HOUR)
        process.fail(59 * MINUTE)
        assert now_is() == ProblemState.MUTED

    def test_an_occurrence_on_or_after_the_date_opens_it(self, process):
        process.fail()
        become("muted", muted_until=AT_NOON + HOUR, muted_above=5)
        process.fail(HOUR)
        problem = Problem.objects.get()
        assert problem.state == ProblemState.OPEN
        assert (problem.muted_until, problem.muted_above) == (AT_NOON + HOUR, None)

    def test_one_that_occurred_before_the_date_and_is_stored_after_it_does_not(
        self, process
    ):
        process.fail(flush=False)
        process.fail(59 * MINUTE, flush=False)
        process.clock.now = NOON + 2 * HOUR.total_seconds()
        process.flush()
        become("muted", muted_until=AT_NOON + HOUR)
        process.flush()
        assert now_is() == ProblemState.MUTED

    def test_muted_for_good_it_stays_muted(self, process):
        process.fail()
        become("muted")
        process.fail(HOUR, times=1000)
        assert now_is() == ProblemState.MUTED


class TestMutedUntilMoreThanSoManyAnHour:
    @pytest.fixture(autouse=True)
    def _muted(self, process):
        process.fail()
        become("muted", muted_at=AT_NOON + MINUTE, muted_above=10)

    def test_so_many_are_not_more(self, process):
        process.fail(HOUR, times=5)
        process.fail(HOUR + 50 * MINUTE, times=5)
        process.fail(2 * HOUR, times=10)
        assert now_is() == ProblemState.MUTED

    def test_one_more_in_an_hour_opens_it(self, process):
        process.fail(HOUR, times=5)
        process.fail(HOUR + 50 * MINUTE, times=6)
        problem = Problem.objects.get()
        assert problem.state == ProblemState.OPEN
        assert problem.muted_above is None

    def test_from_when_until_when_it_was_muted_is_kept(self, process):
        """By that a mail of a day before tells that it was."""
        process.fail(3 * HOUR, times=11)
        problem = Problem.objects.get()
        assert problem.muted_at == AT_NOON + MINUTE
        assert problem.muted_until == AT_NOON + 3 * HOUR

    def test_all_processes_are_counted_together(self):
        for _ in range(2):
            Process().fail(HOUR, times=5)
        assert now_is() == ProblemState.MUTED
        Process().fail(HOUR, times=1)
        assert now_is() == ProblemState.OPEN

    def test_what_occurred_before_it_was_muted_does_not_count(self, process):
        become("muted", muted_at=AT_NOON + HOUR + 5 * MINUTE, muted_above=10)
        process.fail(HOUR, times=100)
        process.fail(HOUR + 5 * MINUTE, times=10)
        assert now_is() == ProblemState.MUTED
        process.fail(HOUR + 10 * MINUTE)
        assert now_is() == ProblemState.OPEN

    def test_zero_is_a_number_too(self, process):
        become("muted", muted_at=AT_NOON + 5 * MINUTE, muted_above=0)
        process.flush()
        assert now_is() == ProblemState.MUTED
        process.fail(HOUR)
        assert now_is() == ProblemState.OPEN

    def test_whoever_reads_can_have_all_of_them_looked_at(self, process):
        """Two writers that store at the same moment do not see each other's counts."""
        process.fail(HOUR, times=11)
        become("muted", muted_at=AT_NOON + 5 * MINUTE, muted_above=10)
        assert problems.unmute_what_exceeds(since=AT_NOON, using="default") == 1
        assert problems.unmute_what_exceeds(since=AT_NOON, using="default") == 0
        assert now_is() == ProblemState.OPEN


class TestSeeingAgain:
    """Every flush of a process does it, for all problems of the last minutes."""

    WORDS = tuple(islice(map("".join, product("abcdefghij", repeat=3)), 450))

    def see_all(self, process, after=timedelta()):
        for number, word in enumerate(self.WORDS):
            process.clock.now = NOON + after.total_seconds() + number / 1000
            cause = process.recorder.causes.of("epipe", "", None, word)
            process.recorder.occurred(cause, lambda: Sighting("a", lambda: "a stack"))

    def last_seen(self):
        return set(Problem.objects.values_list("last_seen", flat=True))

    def test_each_is_seen_last_when_it_was(self, process):
        self.see_all(process)
        process.flush()
        self.see_all(process, MINUTE)
        process.flush()
        moments = (timedelta(milliseconds=n) for n in range(len(self.WORDS)))
        assert self.last_seen() == {AT_NOON + MINUTE + moment for moment in moments}

    def test_it_takes_few_statements(self, process, django_assert_max_num_queries):
        self.see_all(process)
        process.flush()
        self.see_all(process, MINUTE)
        with django_assert_max_num_queries(40):
            process.flush()

    def test_samples_of_many_are_stored_in_few_statements(
        self, process, django_assert_max_num_queries
    ):
        self.see_all(process)
        with django_assert_max_num_queries(40):
            process.flush()
        assert ProblemSample.objects.count() == MAX_WAITING

    def test_many_that_are_muted_take_no_more(
        self, process, django_assert_max_num_queries
    ):
        self.see_all(process)
        process.flush()
        become("muted", muted_until=AT_NOON + HOUR)
        self.see_all(process, MINUTE)
        with django_assert_max_num_queries(40):
            process.flush()

    def test_another_writer_that_saw_it_later_is_believed(self, process):
        process.fail()
        later, told = AT_NOON + HOUR, []

        def another(execute, sql, *args):
            if sql.startswith("UPDATE") and not told:
                told.append(sql)
                Problem.objects.update(last_seen=later)
            return execute(sql, *args)

        with connection.execute_wrapper(another):
            process.fail(MINUTE)
        assert "problem" in told[0]
        assert self.last_seen() == {later}


@pytest.mark.django_db(transaction=True)
class TestSeeingWhatAnotherHasLocked:
    def test_the_last_time_is_right_when_it_lets_go(self, process):
        if not connection.features.has_select_for_update:
            pytest.skip("has no locks of rows")
        process.see("a")
        process.fail()
        locked, stored = threading.Event(), threading.Event()

        def hold():
            with transaction.atomic():
                list(Problem.objects.select_for_update().order_by("pk")[:1])
                locked.set()
                stored.wait(0.5)
            connection.close()

        thread = threading.Thread(target=hold)
        thread.start()
        locked.wait(10)
        process.clock.now += 60
        process.see("a")
        process.fail(MINUTE)
        stored.set()
        thread.join()
        last_seen = Problem.objects.values_list("last_seen", flat=True)
        assert list(last_seen) == [AT_NOON + MINUTE] * 2


@pytest.mark.django_db(transaction=True)
class TestTransactionsOfCallers:
    """They keep what is locked in them, whatever is stored in them."""

    WORDS = TestSeeingAgain.WORDS[:300]

    def see(self, process, words, after):
        process.clock.now = NOON + after.total_seconds()
        for word in words:
            cause = process.recorder.causes.of("epipe", "", None, word)
            process.recorder.occurred(cause, lambda: Sighting("a", lambda: "a stack"))

    def words(self):
        """In the order of their rows."""
        return list(Problem.objects.order_by("pk").values_list("message", flat=True))

    def at_once(self, *stores):
        """What they raise, each in a thread of its own."""
        errors = []

        def run(store):
            try:
                store()
            except Exception as error:
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=[store]) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return errors

    def test_two_that_saw_the_same_wait_for_each_other_in_one_order(self, process):
        if not connection.features.has_select_for_update:
            pytest.skip("has no locks of rows")
        self.see(process, self.WORDS, timedelta())
        process.flush()
        first, second = Process(), Process()
        self.see(first, self.WORDS, MINUTE)
        self.see(second, self.words()[150:], 2 * MINUTE)
        halfway, stored = threading.Event(), threading.Event()

        def pause(execute, sql, *args):
            done = execute(sql, *args)
            if sql.startswith("UPDATE") and "last_seen" in sql and not halfway.is_set():
                halfway.set()
                stored.wait(0.5)
            return done

        def store_first():
            with transaction.atomic(), connection.execute_wrapper(pause):
                first.flush()

        def store_second():
            halfway.wait(10)
            with transaction.atomic():
                second.flush()
                stored.set()

        assert self.at_once(store_first, store_second) == []
        last_seen = Problem.objects.order_by("pk").values_list("last_seen", flat=True)
        assert (
            list(last_seen) == [AT_NOON + MINUTE] * 150 + [AT_NOON + 2 * MINUTE] * 150
        )

    def test_many_that_see_old_and_new_problems_are_all_stored(self):
        """In transactions of callers and in their own. MariaDB and MySQL may end one of
        two that create rows side by side; then it is done again, as by the ingest."""
        if not connection.features.has_select_for_update:
            pytest.skip("has no locks of rows")
        ended = []

        def flush(process, number, *, forget):
            within = transaction.atomic() if number % 2 else nullcontext()
            with within:
                process.flush(forget=forget)

        def writer(number):
            def store_all():
                process = Process()
                for minute in range(1, 11):
                    words = self.WORDS[: 25 * minute]
                    shuffle = Random(f"{number} {minute}").sample
                    words = shuffle(words, len(words) // 2)
                    self.see(process, words, (minute * 3 + number) * MINUTE)
                    for _ in range(10):
                        try:
                            flush(process, number, forget=minute % 4 == 0)
                            break
                        except OperationalError as error:
                            ended.append(error)

            return store_all

        assert self.at_once(*map(writer, range(6))) == []
        assert ended == [] or connection.vendor == "mysql"
        seen = 6 * sum(25 * minute // 2 for minute in range(1, 11))
        counts = ProblemCount.objects.aggregate(Sum("count"))
        assert counts == {"count__sum": seen}


class TestFacets:
    def test_the_release_is_one(self):
        Process(release="2026.1").fail()
        Process(release="2026.2").fail()
        releases = ProblemFacet.objects.filter(facet="release").order_by("value")
        assert [facet.value for facet in releases] == ["2026.1", "2026.2"]

    def test_one_of_a_process_that_came_back_meanwhile_is_kept(self, process):
        """Looking at an occurrence takes time; its count may go in between."""

        def seen():
            process.flush(forget=False)
            Writer.objects.update(settled=AT_NOON + HOUR)
            snapshot = process.recorder.snapshot()
            stored = store(snapshot, using="default", zone=UTC)
            process.recorder.forget(snapshot, left_out_before=stored.left_out_before)
            return Sighting("shop:view", lambda: "a stack")

        cause = process.recorder.causes.of("epipe", "", None, "x")
        process.recorder.occurred(cause, seen)
        assert process.recorder.snapshot().occurrences == ()
        process.flush()
        assert ProblemFacet.objects.get().value == "shop:view"
        assert ProblemSample.objects.get().call_site == "shop:view"

    def test_one_of_a_problem_that_is_not_there_holds_nothing_back(self, process):
        process.see("shop:view")
        snapshot = process.recorder.snapshot()
        store(replace(snapshot, occurrences=()), using="default", zone=UTC)
        assert not ProblemFacet.objects.exists()

    def test_without_a_release_there_is_none(self, process):
        process.fail()
        assert not ProblemFacet.objects.filter(facet="release").exists()


class TestSamples:
    def sites(self):
        rows = ProblemSample.objects.order_by("slot")
        return list(rows.values_list("slot", "call_site"))

    def test_one_of_each_of_five_call_sites_is_kept_whoever_took_it(self):
        for sites in ("ab", "bc", "cdefg", "h"):
            process = Process()
            for site in sites:
                process.see(site)
            process.flush()
        assert self.sites() == [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")]

    def test_the_text_and_the_time_are_kept(self, process):
        process.see("a", "a stack\nof two lines")
        process.flush()
        sample = ProblemSample.objects.get()
        assert sample.traceback == "a stack\nof two lines"
        assert sample.taken_at == AT_NOON

    def test_storing_again_changes_nothing(self, process):
        process.see("a")
        process.flush(forget=False)
        process.flush()
        assert self.sites() == [(0, "a")]

    def test_call_sites_that_differ_in_case_only_stay_apart(self, process):
        process.see("a:Page.get")
        process.see("a:page.get")
        process.flush()
        assert self.sites() == [(0, "a:Page.get"), (1, "a:page.get")]

    def test_call_sites_too_long_for_the_column_stay_apart(self, process):
        for end in "ab":
            process.see("x" * 300 + end)
        process.flush()
        assert ProblemSample.objects.count() == 2

    def test_a_real_failure_leaves_the_stack_of_its_call(self, process):
        process.fail()
        assert "in Process.fail" in ProblemSample.objects.get().traceback or (
            "in fail" in ProblemSample.objects.get().traceback
        )


class TestAlgorithms:
    def test_a_problem_of_older_rules_stays_beside_the_new_one(self, process):
        process.fail()
        Problem.objects.update(fingerprint="of version 0", algorithm=0)
        process.fail(MINUTE)
        found = Problem.objects.order_by("algorithm")
        assert list(found.values_list("algorithm", flat=True)) == [0, 1]
