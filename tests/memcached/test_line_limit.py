from __future__ import annotations

import time

import pytest
from observed import Clock
from socket_modules import Fragments

from django_safecache.memcached.line_limit import REMEMBERED, SAFE_LINE, LineLimit
from django_safecache.testing import Faults

LIMITS = [1024, 4096, 16384, 32768]
FAR_TOO_LARGE = 1_000_000


class TestLineLimit:
    def test_what_is_learned_is_the_most(self):
        limit = LineLimit("a:1")
        limit.learn(2000)
        assert (limit.of(32768), limit.of(1024), limit.learned) == (2000, 1024, 2000)

    def test_less_than_every_server_takes_is_not_learned(self):
        limit = LineLimit("a:1")
        limit.learn(80)
        assert limit.learned == SAFE_LINE

    def test_nor_where_a_limit_is_known(self):
        """One of 1500 bytes whose half was answered."""
        limit = LineLimit("a:1")
        limit.learn(1500)
        limit.learn(750)
        assert limit.learned == SAFE_LINE

    def test_a_later_larger_one_does_not_count(self):
        """Another thread found it out at the same time, and less exactly."""
        limit = LineLimit("a:1")
        limit.learn(2000)
        limit.learn(4000)
        assert limit.learned == 2000

    def test_it_is_forgotten_after_an_hour(self):
        clock = Clock()
        limit = LineLimit("a:1", clock)
        limit.learn(2000)
        clock.now += REMEMBERED - 1
        assert limit.of(32768) == 2000
        clock.now += 1
        assert (limit.of(32768), limit.learned) == (32768, None)


def faults(variant, limit):
    """A server that does not take a line of more than `limit` bytes."""
    if variant == "drops":
        return Faults(max_unterminated_bytes=limit)
    return Faults(max_line_bytes=limit, long_line=variant)


@pytest.fixture
def values(campfire_keys):
    return {key: f"value of {key}" for key in campfire_keys}


class TestLearning:
    """Lines far too long for a server, which never says what is not."""

    @pytest.mark.parametrize("limit", LIMITS)
    @pytest.mark.parametrize("variant", ["drops", "error", "close"])
    @pytest.mark.parametrize("at_a_time", [1 << 20, 4096, 1024])
    def test_every_key_is_answered_from_the_first_call_on(
        self, local, make_cache, recording, values, variant, limit, at_a_time
    ):
        """And later calls no longer fail."""
        cache = make_cache(
            local.address,
            batch_max_bytes=FAR_TOO_LARGE,
            batch_max_keys=10_000,
            socket_module=Fragments(at_a_time),
            timeout=5,
            deadline=20,
        )
        assert cache.set_many(values) == []
        local.faults = faults(variant, limit)
        assert cache.get_many(values) == values
        learned = cache.server_status()[0].line_limit
        assert limit / 4 < learned <= limit or (limit == 32768 and learned is None)
        assert set(recording.kinds()) <= {"epipe", "reset", "closed", "client_error"}
        recording.outcomes.clear()
        assert cache.get_many(values) == values
        assert recording.kinds() == []
        assert recording.total("hits") == len(values)

    def test_broken_pipes_are_among_the_ways_it_is_met(
        self, local, make_cache, recording, values
    ):
        """As Campfire met it: the server goes while the line is written."""
        local.faults = faults("drops", 1024)
        for _ in range(20):
            cache = make_cache(
                local.address,
                batch_max_bytes=FAR_TOO_LARGE,
                socket_module=Fragments(1024),
                timeout=5,
                deadline=20,
            )
            cache.get_many(values)
            if "epipe" in recording.kinds():
                return
        pytest.fail(f"no broken pipe: {set(recording.kinds())}")

    def test_it_is_tried_larger_again_after_an_hour(
        self, local, make_cache, recording, values
    ):
        cache = make_cache(local.address, batch_max_bytes=8192, timeout=5, deadline=20)
        cache.set_many(values)
        local.faults = faults("error", 1024)
        cache.get_many(values)
        local.faults = Faults()
        (server,) = cache._cluster.servers
        server.line_limit._clock = lambda: time.monotonic() + REMEMBERED
        local.clear_record()
        assert cache.get_many(values) == values
        assert max(map(len, local.lines)) > 8000
        assert cache.server_status()[0].line_limit is None

    def test_the_lines_that_were_halved_are_counted(
        self, local, make_cache, recording, values
    ):
        cache = make_cache(local.address, batch_max_bytes=FAR_TOO_LARGE)
        cache.set_many(values)
        local.faults = faults("error", 1024)
        assert cache.get_many(values) == values
        assert recording.total("splits") > 10
        assert set(recording.kinds()) == {"client_error"}

    def test_a_server_that_is_gone_is_not_asked_again_and_again(
        self, local, make_cache, recording, values
    ):
        """It must answer a small command first; then the first failure stands."""
        cache = make_cache(local.address)
        local.faults = Faults(close_at=1)
        assert cache.read_many(values).found == {}
        assert recording.kinds() == ["closed"]
        assert cache.server_status()[0].line_limit is None

    @pytest.mark.parametrize("nth", [1, 2, 20, 36])
    def test_a_healthy_server_that_breaks_off_once_teaches_nothing(
        self, local, make_cache, values, nth
    ):
        """Whichever line it was at."""
        cache = make_cache(local.address, timeout=5, deadline=20)
        cache.set_many(values)
        cache.disconnect_all()
        local.faults = Faults(reset_at=nth, times=1)
        cache.get_many(values, loader=lambda keys: {})
        assert cache.server_status()[0].line_limit is None
        assert cache.get_many(values) == values

    def test_one_key_cannot_be_halved(self, local, make_cache, recording):
        cache = make_cache(local.address)
        local.faults = Faults(answer=b"ERROR", only=b"get")
        assert cache.get("a") is None
        assert recording.kinds() == ["client_error"]
