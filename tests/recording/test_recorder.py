from __future__ import annotations

import os
import re
import sys
import threading
from collections import Counter
from datetime import datetime, timezone
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observed import NOON, SERVER, Clock, make_failure, make_outcome

from django_safecache.memcached.outcomes import FAILURE_KINDS, Observers
from django_safecache.recording.cells import COUNTS, CellTotals
from django_safecache.recording.first_of_day import DAY_SECONDS
from django_safecache.recording.key_groups import first_match
from django_safecache.recording.occurrences import (
    MAX_STORMY,
    FacetValue,
    OccurrenceTotals,
)
from django_safecache.recording.recorder import CONSEQUENCES, MAX_PROBLEMS, Recorder
from django_safecache.recording.sightings import Sighting

NOON_BUCKET = datetime.fromtimestamp(NOON, timezone.utc)
KEYS = ["a1", "a2", "b1", "b2", "c1", "ä"]
OUTCOME_FIELDS = {
    **{name: name for name in COUNTS if name != "calls"},
    "stores": "stored",
    "deletes": "deleted",
}


def places(snapshot):
    return [(cell.alias, cell.server, cell.key_group) for cell in snapshot.cells]


def sums(cells):
    """What the cells say in all: counts, failures by kind, calls by duration."""
    total = Counter()
    for cell in cells:
        total.update(cell.counts)
        total.update(cell.failures)
        total["in the histogram"] += sum(cell.durations)
    return +total


def expected_sums(outcomes):
    total = Counter({"calls": len(outcomes), "in the histogram": len(outcomes)})
    for outcome in outcomes:
        for count, name in OUTCOME_FIELDS.items():
            total[count] += getattr(outcome, name)
        total.update(failure.kind for failure in outcome.failures)
    return +total


@st.composite
def outcomes(draw):
    """Reads, writes and loads of a few keys, with failures now and then."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True))
    found = draw(st.sets(st.sampled_from(keys))) if keys else set()
    lost = set(keys) - found
    lost = draw(st.sets(st.sampled_from(sorted(lost)))) if lost else set()
    operation = draw(st.sampled_from(["get", "set", "delete", "load"]))
    count = st.integers(0, 2**40)
    figures = {
        "get": {"hits": len(found), "misses": len(keys) - len(found) - len(lost)},
        "set": {"stored": draw(st.integers(0, len(keys)))},
        "delete": {"deleted": draw(st.integers(0, len(keys)))},
        "load": {"loaded": len(found)},
    }[operation]
    return make_outcome(
        alias=draw(st.sampled_from(["default", "sessions"])),
        server="" if operation == "load" else draw(st.sampled_from("ABCD")),
        operation=operation,
        keys=keys,
        found=draw(st.sampled_from([found, list(found), dict.fromkeys(found)])),
        lost=draw(st.sampled_from([lost, tuple(lost)])),
        unavailable=len(lost),
        lines=draw(count),
        bytes_sent=draw(count),
        bytes_received=draw(count),
        retries=draw(count),
        splits=draw(count),
        duration=draw(st.floats(0, 5)),
        failures=tuple(
            make_failure(kind)
            for kind in draw(st.lists(st.sampled_from(FAILURE_KINDS)))
        ),
        **figures,
    )


key_groups = st.sampled_from(
    [None, first_match([(re.compile("^a"), "A"), (re.compile("1"), "one")])]
)


class TestSums:
    @settings(max_examples=40)
    @given(st.lists(outcomes()), key_groups, st.integers(0, 5))
    def test_cells_add_up_to_what_was_observed_even_without_room(
        self, observed, key_groups, max_cells
    ):
        recorder = Recorder(max_cells=max_cells, key_groups=key_groups, clock=Clock())
        for outcome in observed:
            recorder.observe(outcome)
        assert sums(recorder.snapshot().cells) == expected_sums(observed)

    @given(st.lists(outcomes()), key_groups, st.randoms())
    def test_the_order_of_outcomes_does_not_matter(self, observed, key_groups, random):
        shuffled = random.sample(observed, len(observed))
        recorders = [Recorder(key_groups=key_groups, clock=Clock()) for _ in range(2)]
        for recorder, order in zip(recorders, (observed, shuffled), strict=True):
            for outcome in order:
                recorder.observe(outcome)
        first, second = (
            {
                (cell.alias, cell.server, cell.key_group): (cell.counts, cell.failures)
                for cell in recorder.snapshot().cells
            }
            for recorder in recorders
        )
        assert first == second

    @given(
        st.lists(
            st.one_of(
                outcomes(),
                st.just("store"),
                st.just("fail to store"),
                st.floats(-400, 900),  # seconds to pass
            )
        ),
        st.integers(0, 4),
    )
    def test_rows_replaced_by_later_totals_add_up_whatever_clock_and_store_do(
        self, steps, max_cells
    ):
        clock = Clock()
        recorder = Recorder(max_cells=max_cells, clock=clock)
        observed, rows = [], {}
        for step in [*steps, "store"]:
            if isinstance(step, float):
                clock.now += step
            elif isinstance(step, str):
                snapshot = recorder.snapshot()
                for cell in snapshot.cells:
                    row = (cell.bucket, cell.alias, cell.server, cell.key_group)
                    rows[row] = cell
                if step == "store":
                    recorder.forget(snapshot)
            else:
                observed.append(step)
                recorder.observe(step)
        assert sums(rows.values()) == expected_sums(observed)

    @given(st.lists(outcomes(), max_size=20), st.integers(0, 4))
    def test_occurrences_add_up_to_the_failures_even_without_room(
        self, observed, max_places
    ):
        recorder = Recorder(max_places=max_places, clock=Clock())
        for outcome in observed:
            recorder.observe(outcome)
        snapshot = recorder.snapshot()
        kinds = {cause.fingerprint: cause.kind for cause in snapshot.causes}
        counted = Counter()
        for totals in snapshot.occurrences:
            counted[kinds[totals.fingerprint]] += totals.count
        assert counted == Counter(
            f.kind for o in observed for f in o.failures if f.kind not in CONSEQUENCES
        )

    def test_threads_lose_nothing_while_totals_are_stored_and_forgotten(self):
        clock = Clock()
        recorder = Recorder(max_cells=3, clock=clock)
        failing = make_outcome(lost="k", unavailable=1, failures=(make_failure(),))
        mine = [make_outcome(server=name, hits=3, lines=1) for name in "ABCDEF"]
        rows = {}

        def observe():
            for _ in range(300):
                for outcome in (*mine, failing):
                    recorder.observe(outcome)

        def store():
            snapshot = recorder.snapshot()
            for cell in snapshot.cells:
                rows[cell.bucket, cell.alias, cell.server, cell.key_group] = cell
            recorder.forget(snapshot)

        threads = [threading.Thread(target=observe) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            clock.now += 100
            store()
        for thread in threads:
            thread.join()
        store()
        assert sums(rows.values()) == expected_sums([*mine, failing] * 1200)


class TestPlaces:
    def test_without_key_groups_the_group_is_empty(self):
        recorder = Recorder(clock=Clock())
        recorder.observe(make_outcome(keys=["a"], hits=1))
        assert places(recorder.snapshot()) == [("default", SERVER, "")]

    def test_what_finds_no_room_is_counted_as_other(self):
        recorder = Recorder(max_cells=1, clock=Clock())
        for server in ("A", "B", "C"):
            recorder.observe(make_outcome(server=server))
        assert places(recorder.snapshot()) == [
            ("default", "A", ""),
            ("default", "<other>", "<other>"),
        ]

    def test_loaders_are_not_mixed_with_servers_for_want_of_room(self):
        recorder = Recorder(max_cells=0, clock=Clock())
        recorder.observe(make_outcome(server="A"))
        recorder.observe(make_outcome(server="", operation="load", loaded=3))
        assert places(recorder.snapshot()) == [
            ("default", "<other>", "<other>"),
            ("default", "", "<other>"),
        ]

    def test_room_comes_back_when_a_bucket_is_forgotten(self):
        clock = Clock()
        recorder = Recorder(max_cells=1, clock=clock)
        recorder.observe(make_outcome(server="A"))
        clock.now += 300
        recorder.forget(recorder.snapshot())
        recorder.observe(make_outcome(server="B"))
        assert places(recorder.snapshot()) == [("default", "B", "")]


class TestKeyGroups:
    def observe(self, **changes):
        groups = [(re.compile("^a"), "A"), (re.compile("^b"), "B")]
        recorder = Recorder(key_groups=first_match(groups), clock=Clock())
        recorder.observe(make_outcome(**changes))
        return {
            cell.key_group: {name: n for name, n in cell.counts.items() if n}
            for cell in recorder.snapshot().cells
        }

    def test_each_key_is_counted_under_its_own_group(self):
        counted = self.observe(
            keys=["a1", "a2", "b1", "c1"],
            found={"a1": "", "b1": "", "of another server": ""},
            lost=["c1"],
            hits=2,
            misses=1,
            unavailable=1,
        )
        assert counted == {
            "A": {"calls": 1, "hits": 1, "misses": 1},
            "B": {"hits": 1},
            "": {"unavailable": 1},
        }

    def test_a_mixed_call_is_counted_once_under_the_group_of_its_first_key(self):
        counted = self.observe(
            keys=["b1", "a1"], misses=2, lines=1, retries=1, bytes_sent=9
        )
        assert counted == {
            "B": {"calls": 1, "misses": 1, "lines": 1, "retries": 1, "bytes_sent": 9},
            "A": {"misses": 1},
        }

    def test_stores_of_keys_that_were_not_lost_go_to_their_groups(self):
        counted = self.observe(
            operation="set",
            keys=["a1", "b1", "b2"],
            lost=["b1"],
            stored=2,
            unavailable=1,
        )
        assert counted == {
            "A": {"calls": 1, "stores": 1},
            "B": {"stores": 1, "unavailable": 1},
        }

    def test_what_the_keys_do_not_explain_stays_with_the_first_group(self):
        counted = self.observe(operation="delete", keys=["a1", "b1", "b2"], deleted=2)
        assert counted == {"A": {"calls": 1, "deletes": 2}, "B": {}}

    def test_a_call_without_keys_has_no_group(self):
        assert self.observe(operation="flush_all") == {"": {"calls": 1}}


class TestBuckets:
    def test_buckets_are_aligned(self):
        clock = Clock(NOON + 299.9)
        recorder = Recorder(clock=clock)
        recorder.observe(make_outcome())
        clock.now = NOON + 300
        recorder.observe(make_outcome())
        buckets = [cell.bucket.isoformat() for cell in recorder.snapshot().cells]
        assert buckets == ["2026-01-14T12:00:00+00:00", "2026-01-14T12:05:00+00:00"]

    def test_the_open_bucket_is_not_forgotten(self):
        recorder = Recorder(clock=Clock())
        recorder.observe(make_outcome(hits=1))
        recorder.forget(recorder.snapshot())
        recorder.observe(make_outcome(hits=1))
        assert sums(recorder.snapshot().cells)["hits"] == 2

    def test_what_came_after_the_snapshot_is_not_forgotten(self):
        clock = Clock()
        recorder = Recorder(clock=clock)
        recorder.observe(make_outcome(hits=1))
        snapshot = recorder.snapshot()
        recorder.observe(make_outcome(hits=1))
        clock.now += 600
        recorder.forget(snapshot)
        assert sums(recorder.snapshot().cells)["hits"] == 2

    def test_calls_and_failures_are_counted_while_a_snapshot_is_put_together(self):
        """They are not in it, and in the next one."""
        recorder = Recorder(account=lambda: "acme", clock=Clock())
        failing = make_outcome(unavailable=1, failures=(make_failure(),))
        recorder.observe(failing)
        rows = (CellTotals, OccurrenceTotals, FacetValue)
        waiting_for = {row.__init__.__code__ for row in rows}

        def profile(frame, event, arg):
            if event == "call" and frame.f_code in waiting_for:
                waiting_for.remove(frame.f_code)
                thread = threading.Thread(target=recorder.observe, args=(failing,))
                thread.start()
                thread.join(10)
                assert not thread.is_alive()

        sys.setprofile(profile)
        try:
            during = recorder.snapshot()
        finally:
            sys.setprofile(None)
        assert not waiting_for
        counted = [
            (snapshot.cells[0].counts["calls"], snapshot.occurrences[0].count)
            for snapshot in (during, recorder.snapshot())
        ]
        assert counted == [(1, 1), (4, 4)]

    def test_a_clock_set_back_does_not_reopen_a_bucket(self):
        clock = Clock()
        recorder = Recorder(clock=clock)
        recorder.observe(make_outcome())
        clock.now += 300
        recorder.forget(recorder.snapshot())
        clock.now -= 3600
        recorder.observe(make_outcome())
        (cell,) = recorder.snapshot().cells
        assert cell.bucket.timestamp() == NOON + 300

    def test_the_first_outcome_of_a_bucket_is_told(self):
        clock, told = Clock(), []
        recorder = Recorder(clock=clock)
        recorder.on_new_bucket = lambda: told.append(clock.now)
        for seconds in (0, 1, 299, 300, 301):
            clock.now = NOON + seconds
            recorder.observe(make_outcome(failures=(make_failure(),)))
        assert told == [NOON, NOON + 300]


class TestProblems:
    def test_failures_become_occurrences_at_their_server(self):
        clock = Clock()
        recorder = Recorder(clock=clock)
        recorder.observe(
            make_outcome(failures=(make_failure(), make_failure("timeout")))
        )
        clock.now += 7
        recorder.observe(make_outcome(failures=(make_failure(),)))
        snapshot = recorder.snapshot()
        fingerprints = {cause.kind: cause.fingerprint for cause in snapshot.causes}
        (epipe,) = [
            totals
            for totals in snapshot.occurrences
            if totals.fingerprint == fingerprints["epipe"]
        ]
        assert (epipe.alias, epipe.server, epipe.count) == ("default", SERVER, 2)
        assert epipe.bucket == NOON_BUCKET
        assert epipe.first_seen.timestamp() == NOON
        assert epipe.last_seen.timestamp() == NOON + 7

    def test_an_open_breaker_is_counted_but_is_no_problem_of_its_own(self):
        """One stopped server is one problem: why its breaker opened."""
        recorder = Recorder(clock=Clock())
        recorder.observe(make_outcome(failures=(make_failure("refused"),)))
        recorder.observe(make_outcome(failures=(make_failure("breaker_open"),)))
        snapshot = recorder.snapshot()
        assert [cause.kind for cause in snapshot.causes] == ["refused"]
        assert snapshot.cells[0].failures == {"refused": 1, "breaker_open": 1}

    def test_facets_say_on_whose_account_where_and_for_which_keys(self):
        recorder = Recorder(
            account=lambda: "acme",
            release="2026.1",
            key_groups=first_match([(re.compile("^a"), "A")]),
            clock=Clock(),
        )
        recorder.observe(make_outcome(keys=["a"], failures=(make_failure(),)))
        facets = {facet.facet: facet.value for facet in recorder.snapshot().facets}
        assert facets == {
            "account": "acme",
            "call_site": f"{__name__}:{self._here('facets_say')}",
            "key_group": "A",
            "release": "2026.1",
        }

    def _here(self, part):
        (name,) = [name for name in dir(self) if part in name]
        function = getattr(type(self), name)
        code = function.__code__
        return getattr(code, "co_qualname", code.co_name)

    def test_after_fifty_occurrences_in_a_bucket_there_is_only_counting(self):
        clock, asked = Clock(), Counter()

        def account():
            asked["account"] += 1
            return str(asked["account"])

        def seen():
            asked["seen"] += 1
            return Sighting("here", lambda: "a stack")

        recorder = Recorder(account=account, clock=clock)
        cause = recorder.causes.of("epipe", "", None, "")
        for _ in range(120):
            recorder.occurred(cause, seen)
        assert asked == {"account": 50, "seen": 50}
        assert [totals.count for totals in recorder.snapshot().occurrences] == [120]
        clock.now += 300
        recorder.occurred(cause, seen)
        assert asked == {"account": 51, "seen": 51}

    def test_an_account_that_was_read_already_is_kept_of_each(self):
        recorder = Recorder(clock=Clock())
        cause = recorder.causes.of("application", "", None, "")
        for number in range(120):
            seen = Sighting("here", lambda: "")
            recorder.occurred(cause, lambda seen=seen: seen, account=str(number))
        facets = Counter(facet.facet for facet in recorder.snapshot().facets)
        assert facets == {"account": 120, "call_site": 1}

    def test_a_storm_of_several_problems_and_servers_is_counted_by_each(self):
        clock, expected = Clock(), Counter()
        recorder = Recorder(clock=clock, max_places=5)
        kinds, servers = ("epipe", "timeout"), "ABC"
        for number in range(3000):
            clock.now = NOON + number / 5  # over two buckets
            kind, server = kinds[number % 2], servers[number % 3]
            failure = make_failure(kind, server=server)
            recorder.observe(make_outcome(server=server, failures=(failure,)))
            expected[kind] += 1
        snapshot = recorder.snapshot()
        kinds = {cause.fingerprint: cause.kind for cause in snapshot.causes}
        counted = Counter()
        for totals in snapshot.occurrences:
            counted[kinds[totals.fingerprint]] += totals.count
        assert counted == expected
        assert max(t.last_seen for t in snapshot.occurrences).timestamp() == clock.now

    def test_what_a_storm_is_known_by_is_bounded(self):
        recorder = Recorder(clock=Clock(), fingerprint=lambda cause: "all of it")
        for number in range(3 * MAX_STORMY):
            failure = make_failure("server_error", errno=None, text=f"no {number}")
            recorder.observe(make_outcome(failures=(failure,)))
        (totals,) = recorder.snapshot().occurrences
        assert totals.count == 3 * MAX_STORMY
        occurrences = recorder._buckets.current.occurrences
        assert len(occurrences._stormy) <= MAX_STORMY

    def test_facets_without_room_are_dropped_and_that_is_counted(self):
        accounts = iter(range(10))
        recorder = Recorder(
            account=lambda: str(next(accounts)), max_facets=4, clock=Clock()
        )
        for _ in range(10):
            recorder.observe(make_outcome(failures=(make_failure(),)))
        snapshot = recorder.snapshot()
        assert len(snapshot.facets) == 4
        assert snapshot.dropped == 7

    def test_stored_facets_are_not_handed_over_again(self):
        recorder = Recorder(account=lambda: "acme", clock=Clock())
        recorder.observe(make_outcome(failures=(make_failure(),)))
        recorder.forget(recorder.snapshot())
        recorder.observe(make_outcome(failures=(make_failure(),)))
        assert recorder.snapshot().facets == ()

    def test_problems_without_room_are_counted_as_one_of_their_kind(self):
        recorder = Recorder(max_places=1, clock=Clock())
        for text in ("one", "two", "three"):
            failure = make_failure("server_error", errno=None, text=text)
            recorder.observe(make_outcome(failures=(failure,)))
        snapshot = recorder.snapshot()
        messages = {cause.fingerprint: cause.message for cause in snapshot.causes}
        counted = {
            (messages[totals.fingerprint], totals.server): totals.count
            for totals in snapshot.occurrences
        }
        assert counted == {("one", SERVER): 1, ("<other>", "<other>"): 2}


class TestManyProblems:
    """Rows of problems are kept for long, and nobody bounds what a text may be."""

    WORDS = ["".join(letters) for letters in product("abcdefghij", repeat=4)]
    MORE = MAX_PROBLEMS + 100

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def recorder(self, clock):
        return Recorder(clock=clock)

    def occur(self, recorder, words, kind="application"):
        for word in words:
            cause = recorder.causes.of(kind, "E", None, word)
            recorder.occurred(cause, lambda: Sighting("site", str))

    def counts(self, recorder):
        snapshot = recorder.snapshot()
        texts = {cause.fingerprint: cause.message for cause in snapshot.causes}
        counts = Counter()
        for totals in snapshot.occurrences:
            counts[texts[totals.fingerprint]] += totals.count
        return counts

    def test_those_beyond_a_days_bound_are_one_problem(self, recorder):
        self.occur(recorder, self.WORDS[: self.MORE])
        counts = self.counts(recorder)
        assert len(counts) == MAX_PROBLEMS + 1
        assert (counts["<other>"], counts.total()) == (100, self.MORE)

    def test_it_holds_over_all_buckets_of_the_day(self, recorder, clock):
        self.occur(recorder, self.WORDS[:MAX_PROBLEMS])
        clock.now += 300
        recorder.forget(recorder.snapshot())
        self.occur(recorder, [self.WORDS[0], self.WORDS[-1]])
        assert self.counts(recorder) == {self.WORDS[0]: 1, "<other>": 1}

    def test_another_day_has_another_bound(self, recorder, clock):
        self.occur(recorder, self.WORDS[:MAX_PROBLEMS])
        clock.now += DAY_SECONDS
        recorder.forget(recorder.snapshot())
        self.occur(recorder, self.WORDS[-1:])
        assert self.counts(recorder) == {self.WORDS[-1]: 1}

    def test_a_clock_that_is_set_back_begins_another_day(self, recorder, clock):
        clock.now += 1000 * DAY_SECONDS
        self.occur(recorder, self.WORDS[:MAX_PROBLEMS])
        recorder.forget(recorder.snapshot())
        clock.now -= 1000 * DAY_SECONDS
        self.occur(recorder, self.WORDS[-1:])
        assert self.counts(recorder)[self.WORDS[-1]] == 1

    def test_one_kind_takes_no_room_from_another(self, recorder):
        self.occur(recorder, self.WORDS[: self.MORE])
        self.occur(recorder, self.WORDS[-1:], kind="server_error")
        assert self.counts(recorder)[self.WORDS[-1]] == 1

    def test_failures_of_the_cache_are_bounded_as_well(self, recorder):
        for word in self.WORDS[: self.MORE]:
            failure = make_failure("server_error", errno=None, text=word)
            recorder.observe(make_outcome(failures=[failure]))
        counts = self.counts(recorder)
        assert (counts["<other>"], counts.total()) == (100, self.MORE)

    def test_a_new_process_has_its_own_bound(self, recorder):
        self.occur(recorder, self.WORDS[:MAX_PROBLEMS])
        recorder.reset()
        self.occur(recorder, self.WORDS[-1:])
        assert self.counts(recorder) == {self.WORDS[-1]: 1}


class TestProcesses:
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_starts_empty_as_another_writer(self):
        recorder = Recorder()
        recorder.observe(make_outcome(hits=5))
        held, release = threading.Event(), threading.Event()

        def hold_the_lock():
            with recorder._lock:
                held.set()
                release.wait()

        thread = threading.Thread(target=hold_the_lock)
        thread.start()
        held.wait()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            recorder.observe(make_outcome(hits=2))
            snapshot = recorder.snapshot()
            said = f"{snapshot.writer.name} {sums(snapshot.cells)['hits']}"
            os.write(writing, said.encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(pid, 0)
        with open(reading, "rb") as pipe:
            name, hits = pipe.read().decode().split()
        release.set()
        thread.join()
        assert hits == "2"
        assert f":{pid}:" in name
        assert sums(recorder.snapshot().cells)["hits"] == 5

    def test_a_snapshot_of_another_writer_forgets_nothing(self):
        clock = Clock()
        recorder = Recorder(clock=clock)
        clock.now += 600
        snapshot = recorder.snapshot()
        recorder.reset()
        clock.now -= 600
        recorder.observe(make_outcome(hits=1))
        recorder.forget(snapshot)
        assert sums(recorder.snapshot().cells)["hits"] == 1

    def test_counting_within_counting_does_not_deadlock(self):
        recorder = Recorder(clock=Clock())
        with recorder._lock:  # as when a destructor runs in the middle of it
            recorder.observe(make_outcome(hits=1))
        assert sums(recorder.snapshot().cells)["hits"] == 1

    def test_it_is_an_observer(self):
        observers, recorder = Observers(), Recorder(clock=Clock())
        observers.connect(recorder)
        observers.observe(make_outcome(hits=1))
        assert sums(recorder.snapshot().cells)["hits"] == 1
