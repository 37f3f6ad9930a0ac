"""`cache_failures`: a line at once, then sums; neither keys nor what servers say."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading

import pytest
import structlog
from django.core.cache import cache
from observed import Clock, make_failure, make_outcome

from django_safecache.failure_log import INTERVAL, FailureLog
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.testing import outage


def failing(*kinds, unavailable=0, **changes):
    failures = tuple(make_failure(kind) for kind in kinds)
    return make_outcome(failures=failures, unavailable=unavailable, **changes)


@pytest.fixture
def clock():
    return Clock(0.0)


@pytest.fixture
def log(clock):
    return FailureLog(clock=clock)


@pytest.fixture
def lines():
    """The events that are logged, as structlog's processors get them."""
    captured = structlog.testing.LogCapture()
    structlog.configure(processors=[captured])
    yield captured.entries
    structlog.reset_defaults()


class TestLines:
    def test_the_first_failure_is_told_at_once(self, log, lines):
        log.observe(failing("epipe", unavailable=421))
        assert lines == [
            {
                "event": "cache_failures",
                "log_level": "warning",
                "alias": "default",
                "server": "10.0.0.1:11211",
                "failures": {"epipe": 1},
                "unavailable": 421,
                "seconds": 0,
            }
        ]

    def test_what_follows_is_told_with_the_first_failure_after_a_minute(
        self, log, clock, lines
    ):
        log.observe(failing("epipe", unavailable=1))
        for _ in range(1000):
            log.observe(failing("timeout", "closed", unavailable=2))
        clock.now += INTERVAL - 0.001
        log.observe(failing("epipe", unavailable=3))
        assert len(lines) == 1
        clock.now += 0.001
        log.observe(failing("epipe", unavailable=4))
        assert len(lines) == 2
        assert lines[1]["failures"] == {"timeout": 1000, "closed": 1000, "epipe": 2}
        assert lines[1]["unavailable"] == 2007
        assert lines[1]["seconds"] == 60

    def test_nothing_is_told_twice(self, log, clock, lines):
        for _ in range(3):
            log.observe(failing("epipe", unavailable=5))
            clock.now += 2 * INTERVAL
        assert [line["unavailable"] for line in lines] == [5, 5, 5]
        assert [line["seconds"] for line in lines] == [0, 120, 120]

    def test_each_server_of_each_alias_has_its_own(self, log, lines):
        for _ in range(10):
            for alias in ("default", "other"):
                for server in ("A:1", "B:1"):
                    log.observe(failing("epipe", alias=alias, server=server))
        assert [(line["alias"], line["server"]) for line in lines] == [
            ("default", "A:1"),
            ("default", "B:1"),
            ("other", "A:1"),
            ("other", "B:1"),
        ]

    def test_what_works_is_not_told(self, log, lines):
        log.observe(make_outcome(hits=1))
        log.observe(make_outcome(unavailable=1))
        assert lines == []

    def test_an_open_breaker_is_counted_and_no_reason_for_a_line(
        self, log, clock, lines
    ):
        log.observe(failing("breaker_open", unavailable=7))
        clock.now += INTERVAL
        log.observe(failing("breaker_open", unavailable=7))
        assert lines == []
        log.observe(failing("refused", unavailable=1))
        assert lines[0]["failures"] == {"breaker_open": 2, "refused": 1}
        assert lines[0]["unavailable"] == 15
        clock.now += INTERVAL
        log.observe(failing("breaker_open", unavailable=7))
        assert len(lines) == 1

    @pytest.mark.parametrize("kind", sorted(set(FAILURE_KINDS) - {"breaker_open"}))
    def test_every_other_kind_is_a_reason(self, log, lines, kind):
        log.observe(failing(kind))
        assert lines[0]["failures"] == {kind: 1}

    def test_a_day_of_failures_is_a_line_a_minute(self, log, clock, lines):
        for _ in range(24 * 60 * 6):
            log.observe(failing("timeout", unavailable=1))
            clock.now += 10
        assert len(lines) == 24 * 60
        assert sum(line["unavailable"] for line in lines) == 24 * 60 * 6 - 5

    def test_neither_keys_nor_texts_are_in_it(self, log, lines, caplog):
        """Not with structlog's processors and not in Python's logging."""
        told = make_outcome(
            keys=["secret-key"],
            lost=["secret-key"],
            unavailable=1,
            failures=(
                make_failure("server_error", text="secret text", exception="secret.E"),
            ),
        )
        log.observe(told)
        structlog.reset_defaults()
        with caplog.at_level(logging.WARNING, "django_safecache"):
            FailureLog().observe(told)
        (record,) = caplog.records
        assert re.findall("secret", f"{lines}{record.getMessage()}{record.args}") == []
        assert record.getMessage() == (
            "event='cache_failures' alias='default' server='10.0.0.1:11211' "
            "failures={'server_error': 1} unavailable=1 seconds=0"
        )


class TestProcess:
    def test_a_cache_that_fails_is_told_of(self, settings, lines, tmp_path):
        """It is connected: by the backend, with nothing but CACHES."""
        settings.CACHES = {
            "default": {
                "BACKEND": "django_safecache.backend.SafeCache",
                "LOCATION": f"unix:{tmp_path}/none",
            }
        }
        with outage("reset"):
            for _ in range(5):
                cache.get_many(["secret-a", "secret-b"])
        told = [line for line in lines if line["event"] == "cache_failures"]
        assert [(line["failures"], line["unavailable"]) for line in told] == [
            ({"reset": 1}, 2)
        ]

    def test_threads_lose_no_count(self, log, clock, lines):
        def work():
            for _ in range(500):
                log.observe(failing("epipe", unavailable=1))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        clock.now += INTERVAL
        log.observe(failing("epipe", unavailable=1))
        assert [line["unavailable"] for line in lines] == [1, 4000]

    def test_a_handler_that_uses_the_cache_does_not_end_in_itself(self, log):
        """Its own failures are counted, and told with the next line."""
        told = []

        def handler(_, __, event):
            told.append(event["unavailable"])
            log.observe(failing("epipe", unavailable=1))
            raise structlog.DropEvent

        structlog.configure(processors=[handler])
        try:
            log.observe(failing("epipe", unavailable=1))
        finally:
            structlog.reset_defaults()
        assert told == [1]

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_counts_for_itself(self, log, clock, lines):
        """Also when a thread held the lock: it is told of the child's first failure,
        and of nothing that its parent counted."""
        log.observe(failing("epipe", unavailable=1))
        log.observe(failing("epipe", unavailable=10))
        locked, leave = threading.Event(), threading.Event()

        def hold():
            with log._lock:
                locked.set()
                leave.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        assert locked.wait(30)
        child = os.fork()
        if not child:
            signal.alarm(20)  # ends it, should it wait for a lock
            log.observe(failing("epipe", unavailable=100))
            told = [line["unavailable"] for line in lines]
            os._exit(0 if told == [1, 100] else 1)
        assert os.waitpid(child, 0)[1] == 0
        leave.set()
        holder.join(30)
        clock.now += INTERVAL
        log.observe(failing("epipe", unavailable=1))
        assert [line["unavailable"] for line in lines] == [1, 11]

    def test_memory_is_a_tally_for_each_server(self, log):
        for n in range(10_000):
            log.observe(failing("epipe", keys=[f"key-{n}"], unavailable=n))
        assert len(log._tallies) == 1
