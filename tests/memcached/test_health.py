from __future__ import annotations

import pytest

from django_safecache.memcached.health import LAST_PROBE, Breaker


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker("10.0.0.1:11211", clock=clock)


class TestBreaker:
    @pytest.mark.parametrize("kind", ["refused", "unreachable"])
    def test_opens_at_once_when_nobody_listens(self, breaker, kind):
        breaker.failed(kind)
        assert not breaker.allows()

    def test_opens_after_three_timeouts_in_a_row(self, breaker):
        breaker.failed("timeout")
        breaker.failed("timeout")
        assert breaker.allows()
        breaker.failed("timeout")
        assert not breaker.allows()

    def test_an_answer_starts_the_row_of_timeouts_anew(self, breaker):
        for _ in range(5):
            breaker.failed("timeout")
            breaker.failed("timeout")
            breaker.succeeded()
        assert breaker.allows()

    @pytest.mark.parametrize("kind", ["epipe", "reset", "closed", "server_error"])
    def test_does_not_open_for_a_server_that_is_there(self, breaker, kind):
        for _ in range(10):
            breaker.failed(kind)
        assert breaker.allows()

    def test_one_of_many_may_probe(self, breaker, clock):
        breaker.failed("refused")
        clock.now += 1.0
        assert [breaker.allows() for _ in range(5)] == [True] + [False] * 4

    def test_a_probe_that_fails_doubles_the_wait_up_to_30_seconds(self, breaker, clock):
        breaker.failed("refused")
        waits = []
        for _ in range(8):
            since = clock.now
            while not breaker.allows():
                clock.now += 0.1
            waits.append(clock.now - since)
            breaker.failed("refused")
        expected = [1, 2, 4, 8, 16, 30, 30, 30]
        for wait, full in zip(waits, expected, strict=True):
            assert 0.9 * full - 0.1 <= wait <= full + 0.2
        assert max(waits) <= LAST_PROBE + 0.2

    def test_late_failures_of_earlier_calls_are_no_probes(self, breaker, clock):
        """Fifty threads that time out together must not make the wait 30 seconds."""
        for _ in range(50):
            breaker.failed("refused")
        clock.now += 1.0
        assert breaker.allows()

    def test_a_probe_that_succeeds_closes_it(self, breaker, clock):
        breaker.failed("refused")
        clock.now += 1.0
        assert breaker.allows()
        breaker.succeeded()
        assert [breaker.allows() for _ in range(3)] == [True] * 3

    def test_one_probe_at_a_time_however_long_it_takes(self, clock):
        breaker = Breaker("10.0.0.1:11211", patience=3.0, clock=clock)
        breaker.failed("refused")
        clock.now += 1.0
        assert breaker.allows()
        clock.now += 2.9
        assert not breaker.allows()
        clock.now += 0.1
        assert breaker.allows()

    def test_a_probe_that_never_reports_is_given_up(self, breaker, clock):
        breaker.failed("refused")
        clock.now += 1.0
        assert breaker.allows()
        clock.now += 1.0
        assert breaker.allows()
